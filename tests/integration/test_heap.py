"""How many arenas the C library has after many threads have allocated, as it tells itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.heap import ARENAS

pytestmark = pytest.mark.integration

# In a process of its own: what is set holds for the whole of it.
_PROGRAM = """
import ctypes, sys, threading
from worker import heap
if sys.argv[2] == "small":
    heap.keep_small()
barrier = threading.Barrier(12)
def work():
    kept = [bytearray(5000) for _ in range(2000)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def arenas(told: Path, how: str) -> int:
    subprocess.run([sys.executable, "-c", _PROGRAM, str(told), how], check=True, timeout=60)
    return told.read_text().count("<heap nr=")


def test_threads_share_few_arenas(tmp_path: Path) -> None:
    assert arenas(tmp_path / "usual.xml", "usual") > ARENAS
    assert arenas(tmp_path / "small.xml", "small") <= ARENAS
