"""Becomes a program that is tied to who started it: the kernel kills it when the thread that did so ends.

Runs before an engine is loaded: `python -m worker.engine_child <parent pid> <program> <argument>…`. Parent 0 is whoever
it is: the ranks of a group are tied to their launcher.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Never returns. The tie survives exec; a parent that died before the tie was made is noticed."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:
        sys.exit("the worker died while its engine process was starting")
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
