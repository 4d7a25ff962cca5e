"""The process: its part in a run of several, and settings of all of it that a block of code changes for a while."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


def is_launched() -> bool:
    """Whether torchrun or `accelerate launch` started this process, by the variable that both set."""
    return os.environ.get("LOCAL_RANK", "-1") != "-1"


def is_main_process() -> bool:
    """Whether this is the only process of a run, or the first of several."""
    return not is_launched() or os.environ.get("RANK", "0") == "0"


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait for each other; call it before torch is imported.

    By default they spin, and beside other busy processes take the time that the thread they wait for would need.
    `OMP_WAIT_POLICY` of the environment is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessSetting(Generic[T]):
    """A setting that several threads may change at the same time; the last block that is left restores it.

    Args:
        get: reads the setting.
        set: changes it.
    """

    def __init__(self, get: Callable[[], T], set: Callable[[T], object]) -> None:
        self._get, self._set = get, set
        self._lock = threading.Lock()
        self._blocks = 0
        self._before: list[T] = []

    @contextmanager
    def changed_to(self, value: T) -> Iterator[T]:
        """Change the setting within the block; yields what it was before the first of the blocks that are open."""
        with self._lock:
            if not self._blocks:
                self._before = [self._get()]
            self._blocks += 1
            before = self._before[0]
            self._set(value)
        try:
            yield before
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._set(before)
