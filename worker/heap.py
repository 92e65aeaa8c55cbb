"""What the C library's allocator keeps of memory that Python has given back. Knows glibc; elsewhere it does nothing."""

import contextlib
import ctypes

# From glibc's malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
ARENAS = 2
MAPPED_BYTES = 256 << 10


def keep_small() -> None:
    """To be called before there are threads. By default each thread that allocates gets an arena of its own, up to
    eight for each core, and each keeps the most that its thread ever had, tiles of large pictures among it: hundreds of
    MiB on a machine of many cores. Large blocks go back to the system as soon as they are free."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
