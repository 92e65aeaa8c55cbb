"""The embedded default: a real PostgreSQL and a real Valkey in one folder, on unix sockets, as our children.

Nothing listens on a network port, so it runs beside any Redis or PostgreSQL of the machine.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from cli.postgres import SOCKET_NAME as POSTGRES_SOCKET
from cli.postgres import EmbeddedPostgres
from cli.server_process import ServicesError
from cli.valkey import EmbeddedValkey

SOCKET_PATH_BYTES = 107
"""The longest path of a unix socket (unix(7): 108 bytes with the closing zero)."""

DATABASE = "vlmq"

__all__ = ["Services", "ServicesError"]


class Services:
    """Both servers, while the context lasts. One process at a time owns the folder; a folder whose owner crashed is
    taken over, with the servers it left running stopped first.

    The sockets lie in `<folder>/run`. Where that path is too long for a socket they lie in a private folder of the
    system's temporary one, whose path stands in `<folder>/sockets` while the servers run.
    """

    def __init__(self, folder: Path | str, durable: bool = True) -> None:
        self.folder = Path(folder).absolute()
        self._durable = durable
        self._lock: IO[str] | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._valkey: EmbeddedValkey | None = None

    @property
    def database_url(self) -> str:
        return self.postgres.url(DATABASE)

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    @property
    def postgres(self) -> EmbeddedPostgres:
        if self._postgres is None:
            raise ServicesError(f"the services in {self.folder} are not started")
        return self._postgres

    @property
    def valkey(self) -> EmbeddedValkey:
        if self._valkey is None:
            raise ServicesError(f"the services in {self.folder} are not started")
        return self._valkey

    def start(self) -> None:
        """Raises ServicesError when another process runs the folder's services, or one does not start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._acquire()
        try:
            sockets = self._sockets()
            self._postgres = EmbeddedPostgres(self.folder / "postgres", sockets / "postgres", self._durable)
            self._valkey = EmbeddedValkey(self.folder / "valkey", sockets / "valkey")
            self._postgres.start()
            self._postgres.ensure_database(DATABASE)
            self._valkey.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops both servers and releases the folder. Harmless when they are stopped already."""
        if self._lock is None:
            return
        if self._valkey is not None:
            self._valkey.stop()
        if self._postgres is not None:
            self._postgres.stop()
        self._drop_temporary_sockets()
        self._lock.close()
        self._lock = None

    def dead(self) -> list[str]:
        """Names of the servers that are not running though they should."""
        return [child.name for child in (self.postgres.process, self.valkey.process) if not child.running]

    def __enter__(self) -> "Services":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _acquire(self) -> None:
        # The kernel drops the lock with its owner, however that dies: no stale locks. The pid is for the message.
        lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise ServicesError(
                f"the services in {self.folder} are run by process {owner} already: stop it, or use another folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _sockets(self) -> Path:
        self._drop_temporary_sockets()
        near = self.folder / "run"
        longest = near / "postgres" / POSTGRES_SOCKET
        if len(os.fsencode(longest)) <= SOCKET_PATH_BYTES:
            near.mkdir(exist_ok=True)
            return near
        far = Path(tempfile.mkdtemp(prefix="vlmq-"))
        if len(os.fsencode(far / "postgres" / POSTGRES_SOCKET)) > SOCKET_PATH_BYTES:
            far.rmdir()
            raise ServicesError(
                f"socket paths under {near} and under {far.parent} are too long: set TMPDIR to a short one"
            )
        far.chmod(0o711)
        (self.folder / "sockets").write_text(f"{far}\n")
        return far

    def _drop_temporary_sockets(self) -> None:
        record = self.folder / "sockets"
        with contextlib.suppress(FileNotFoundError):
            recorded = Path(record.read_text().strip())
            if recorded.name.startswith("vlmq-") and recorded.parent == Path(tempfile.gettempdir()):
                shutil.rmtree(recorded, ignore_errors=True)
            record.unlink()
