"""Whether a program runs in this container: `python -m cli.alive worker.maintenance`. For health checks of what listens
on nothing."""

import os
import sys
from pathlib import Path


def runs(module: str, proc: Path = Path("/proc")) -> bool:
    """Whether some other process was started as `python -m module`."""
    for folder in proc.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended, or is not ours to see
            continue
        if b"-m" in words and module.encode() in words:
            return True
    return False


if __name__ == "__main__":
    sys.exit(0 if runs(sys.argv[1]) else 1)
