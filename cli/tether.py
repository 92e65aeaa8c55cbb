"""Becomes another program that the kernel kills when its parent dies: `python -m cli.tether PARENT_PID PROGRAM …`.

The signal is set after the fork and survives the exec (prctl(2), PR_SET_PDEATHSIG), so the program itself needs to
know nothing of it. A process between the two would not do: it could be killed alone.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def command(argv: tuple[str, ...]) -> list[str]:
    """The words that start `argv` tethered to the calling process."""
    return [sys.executable, "-m", "cli.tether", str(os.getpid()), *argv]


def main(argv: list[str]) -> None:
    parent = int(argv[0])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the signal was set
        sys.exit(f"tether: the parent {parent} is gone")
    os.execvp(argv[1], argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
