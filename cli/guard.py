"""Stops the embedded services when the process that started them is gone: `python -m cli.guard FOLDER`.

PostgreSQL must not be tied to its parent by SIGKILL, and runs as another user when we are root. So a small process
waits for the end of a pipe that only the parent holds; when the parent stopped its services itself, nothing is left
to do.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.server_process import stop_orphan


@contextmanager
def guarded(folder: Path, root: Path) -> Iterator[None]:
    """Has a guard watch over the services in `folder` for as long as this process lives."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "cli.guard", str(folder)], cwd=root, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(60)


def main(folder: Path) -> None:
    sys.stdin.buffer.read()
    stop_orphan(folder / "valkey" / "valkey.pid", "valkey-server", folder / "valkey" / "data", signal.SIGTERM)
    data = folder / "postgres" / "data"
    stop_orphan(data / "postmaster.pid", "postgres", data, signal.SIGINT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
