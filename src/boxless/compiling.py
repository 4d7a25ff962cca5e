"""Compilation of loops by Numba."""

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function, which then releases the GIL and divides as NumPy does: by zero without an error.

    Numba caches machine code beside the function's file, or else in the user's cache folder; NUMBA_CACHE_DIR precedes
    both. If it can write to none of them, as in a container without a home, each process compiles anew, in seconds.
    """
    try:
        return cast(F, njit(nogil=True, error_model="numpy", cache=True)(function))
    except RuntimeError:
        return cast(F, njit(nogil=True, error_model="numpy")(function))
