"""Memory that the process no longer uses goes back to the operating system."""

import contextlib
import ctypes


def release_memory() -> None:
    """Return free memory to the operating system.

    GNU's C library keeps freed memory. Arrays of many sizes fragment it, and a loop over many images then grows by a
    gigabyte of unused memory (benchmarks/memory.py). Other C libraries lack `malloc_trim`; there, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
