"""Becomes the engine process, tied to the worker: the kernel kills it when the worker's thread that started it ends.

Runs before the engine is loaded: `python -m worker.engine_child <parent pid> <argument>…`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, arguments: list[str]) -> None:
    """Never returns. The tie survives exec; a parent that died before the tie was made is noticed."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker died while its engine process was starting")
    os.execv(sys.executable, [sys.executable, "-m", "worker.engine.server", *arguments])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
