"""Progress bars and messages, on standard error so that results can be piped."""

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from boxless.errors import ImageError
from boxless.structures import Dataset

console = Console(stderr=True)

T = TypeVar("T")
R = TypeVar("R")


def track(items: Iterable[T], description: str, total: int, *, transient: bool = False) -> Iterator[T]:
    """Walk over `items` behind a progress bar; a `transient` one is wiped at the end, an empty walk has none.

    On the way memory that is free is given back to the system.
    """
    if total == 0:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=transient) as progress:
        for number, item in enumerate(progress.track(items, total=total, description=description), start=1):
            yield item
            if number % TRIMMED == 0:
                give_back()
    give_back()


TRIMMED = 20
"""After so many items memory that is free is given back."""


def give_back() -> None:
    """Give free memory back to the system.

    GNU's C library keeps it. Maps of many sizes leave it in pieces, and a long walk then grows by a gigabyte that
    nobody uses (benchmarks/memory.py). Other libraries have no such function, and are left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def track_threads(
    work: Callable[[T], R], items: Collection[T], description: str, threads: int | None
) -> Generator[R, None, None]:
    """Walk over what `work` makes of every item, in order, behind a progress bar, each in a thread of its own.

    Where the caller is slower than the threads they wait: no more than twice as many items as there are threads are
    begun and not yet fetched, so memory does not grow with the number of items.

    Args:
        work: lets go of Python's lock for most of its time; what it raises is raised here.
        items: what to work on.
        description: of the bar.
        threads: how many at once; None is one a core.
    """
    with contextlib.closing(_in_order(work, items, threads or os.cpu_count() or 1)) as results:
        yield from track(results, description, len(items))


def _in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    begun: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if len(begun) == 2 * threads:
                    yield begun.popleft().result()
                begun.append(pool.submit(work, item))
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def track_images(
    work: Callable[[str, Path], None], images: Mapping[str, Path], description: str, threads: int | None
) -> dict[Path, str]:
    """Do `work` for every (content key, file) as `track_threads` does.

    Args:
        work: may raise `ImageError`.
        images: content key -> file.
        description, threads: as `track_threads` takes them.

    Returns:
        Images that could not be used -> reason.
    """

    def reason(item: tuple[str, Path]) -> str | None:
        try:
            work(*item)
        except ImageError as error:
            return str(error)
        return None

    reasons = track_threads(reason, images.items(), description, threads)
    return {path: why for path, why in zip(images.values(), reasons, strict=True) if why is not None}


def announce(dataset: Dataset) -> Dataset:
    """Say what was wrong with a dataset and how it was taken; returns it."""
    for warning in dataset.warnings:
        console.print(f"Warning: {warning}", style="yellow", markup=False, highlight=False)
    return dataset


def report_skipped(skipped: dict[Path, str]) -> None:
    """Say how many images could not be used, and why, the first few by name."""
    if not skipped:
        return
    console.print(f"[yellow]{len(skipped)} image(s) skipped:[/]", highlight=False)
    for reason in list(skipped.values())[:5]:
        console.print(f"  {reason}", markup=False, highlight=False)
    if len(skipped) > 5:
        console.print(f"  ... and {len(skipped) - 5} more")
