"""Progress bars, on standard error so that results can be piped."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from boxless.memory import release_memory
from boxless.process import is_main_process

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOG_AFTER, LOG_EVERY = 2.0, 60.0
"""Seconds after which a log file is told what takes so long, and after which it is told again."""
RELEASE_EVERY = 20
"""Items after which free memory is released."""

_enabled: ContextVar[bool] = ContextVar("progress_bars", default=True)


@cache
def console() -> "Console":
    """The console that messages of `boxless.logs` share with the bars: rich then prints them above a running bar."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress_bars(enabled: bool) -> Iterator[None]:
    """Within the block, show progress bars or none; `BOXLESS_PROGRESS=0` turns them off altogether."""
    token = _enabled.set(enabled and _enabled.get())
    try:
        yield
    finally:
        _enabled.reset(token)


def _wanted() -> bool:
    """Whether progress is to be told: by the main process of several, and where bars are not turned off."""
    return _enabled.get() and os.environ.get("BOXLESS_PROGRESS") != "0" and is_main_process()


def bars_shown() -> bool:
    """Whether `track` shows a bar: only in a terminal or a notebook, in the main process of several, and where bars are
    not turned off."""
    # Exported detectors run where rich is not installed.
    if not _wanted() or find_spec("rich") is None:
        return False
    # Not `console.is_terminal`, which FORCE_COLOR turns on for log files too.
    return console().is_jupyter or (console().file.isatty() and not console().is_dumb_terminal)


def track(items: Iterable[T], description: str, total: int, *, transient: bool = False) -> Iterator[T]:
    """Yield from `items` behind a progress bar, and release free memory now and then.

    Where there is no terminal, a line tells of what takes longer than `LOG_AFTER`, and another one every `LOG_EVERY`,
    unless the bar would disappear.

    Args:
        items: what to iterate over.
        description: label of the bar.
        total: how many items there are; for 0 there is no bar.
        transient: the bar disappears at the end.
    """
    if total and bars_shown():
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console(), transient=transient) as progress:
            yield from _releasing_memory(progress.track(items, total=total, description=description))
    elif total:
        told = _wanted() and not transient
        yield from _releasing_memory(_told(items, description, total) if told else items)


@contextmanager
def download_bar(description: str, total: int | None, completed: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download within the block; yields a function that advances the bar by a number of bytes.

    Args:
        description: label of the bar.
        total: bytes; None if unknown.
        completed: bytes that are there already.
    """
    if not bars_shown():
        yield lambda count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console()) as progress:
        task = progress.add_task(description, total=total, completed=completed)
        yield lambda count: progress.advance(task, count)


def _told(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    due, told = time.monotonic() + LOG_AFTER, False
    for number, item in enumerate(items):
        now = time.monotonic()
        if now >= due:
            logger.info("%s: %d of %d done", description, number, total)
            due, told = now + LOG_EVERY, True
        yield item
    if told:
        logger.info("%s: %d of %d done", description, total, total)


def _releasing_memory(items: Iterable[T]) -> Iterator[T]:
    for number, item in enumerate(items, start=1):
        yield item
        if number % RELEASE_EVERY == 0:
            release_memory()
    release_memory()
