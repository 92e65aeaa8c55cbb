"""The folder of one installation on this machine: where its data, logs and state are, and who runs it now.

Whoever holds the lock file runs it; the kernel lets go of the lock however the holder ends.
"""

import fcntl
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.markup import escape

from cli.errors import CommandError
from cli.terminal import console

FLOWER_USER = "vlmq"


class Running(msgspec.Struct, frozen=True):
    """What a running `vlmq up` tells the other commands. Written once everything is ready."""

    pid: int
    url: str
    flower_url: str
    flower_password: str
    database_url: str
    redis_url: str
    models: tuple[str, ...]
    processes: dict[str, int]


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.blobs = self.path / "blobs"
        self._lock = self.path / "up.lock"
        self._state = self.path / "up.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the caller the one who runs this folder. Raises CommandError when another does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as file:
            if not _take(file.fileno(), within_s=1.0):
                running = self.running()
                where = f" at {running.url} (pid {running.pid})" if running else " (it is still starting or stopping)"
                raise CommandError(
                    f"vlmq already runs in {self.path}{where}",
                    f"stop it with `vlmq down --folder {self.path}`, or give this one another --folder and --port",
                )
            try:
                self._state.unlink(missing_ok=True)
                self._lock.write_text(str(os.getpid()))
                yield
            finally:
                self._state.unlink(missing_ok=True)

    def busy(self) -> bool:
        """Whether somebody holds the folder, ready or not."""
        try:
            with self._lock.open("a") as file:
                return not _take(file.fileno())
        except FileNotFoundError:
            return False

    def announce(self, running: Running) -> None:
        """Tells the other commands. Only the owner may read it: it holds a password."""
        fresh = self._state.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(running)))
        fresh.replace(self._state)

    def running(self) -> Running | None:
        """What runs here and is ready; None when nothing is."""
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=Running) if self.busy() else None
        except FileNotFoundError:
            return None

    def holder(self) -> int | None:
        """The process that holds the lock; None when nobody does."""
        return int(self._lock.read_text() or 0) or None if self.busy() else None

    def stop(self, within_s: float) -> bool:
        """Asks the holder to stop and waits. False when nothing ran. Raises CommandError when it does not stop."""
        pid = self.holder()
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + within_s
        while self.busy():
            if time.monotonic() > end:
                raise CommandError(
                    f"vlmq in {self.path} (pid {pid}) did not stop within {within_s:.0f} s",
                    f"its log: {self.logs / 'up.log'}; `kill -9 {pid}` ends it and everything it started",
                )
            time.sleep(0.1)
        return True

    def secret(self, name: str) -> str:
        """A password that is made once and kept, readable by the owner only."""
        path = self.path / f"{name}.password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(18))
        return path.read_text().strip()


def _take(descriptor: int, within_s: float = 0.0) -> bool:
    """Locks for the life of the descriptor. A moment's patience tells a holder from somebody who only looks."""
    end = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)


def describe(running: Running, folder: Folder) -> None:
    """Prints where everything is."""
    console.print(f"\n  API     [bold]{running.url}[/bold]  (docs: {running.url}/docs)")
    login = f"user {FLOWER_USER}, password {escape(running.flower_password)}"
    console.print(f"  Flower  [bold]{running.flower_url}[/bold]  ({login})")
    console.print(f"  models  {', '.join(running.models)}")
    console.print(f"  logs    {folder.logs}\n")
