"""How much memory the process has used, and giving back to the operating system what it no longer uses."""

import contextlib
import ctypes
import sys


def peak_memory() -> float:
    """Most memory that this process has used so far, in bytes; NaN on systems that do not tell."""
    try:
        import resource
    except ImportError:
        return float("nan")
    # macOS counts bytes, others kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def release_memory() -> None:
    """Return free memory to the operating system.

    GNU's C library keeps freed memory. Arrays of many sizes fragment it, and a loop over many images then grows by a
    gigabyte of unused memory (benchmarks/memory.py). Other C libraries lack `malloc_trim`; there, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
