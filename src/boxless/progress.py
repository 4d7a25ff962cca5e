"""Progress bars and messages, on standard error so that results can be piped."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from boxless.errors import PictureError
from boxless.structures import Dataset

console = Console(stderr=True)

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int, *, transient: bool = False) -> Iterator[T]:
    """Walk over `items` behind a progress bar; a `transient` one is wiped at the end, an empty walk has none."""
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
        yield from progress.track(items, total=total, description=description)


def track_threads(
    work: Callable[[str, Path], None], pictures: Mapping[str, Path], description: str, threads: int | None
) -> dict[Path, str]:
    """Do `work` for every (content key, file), each in a thread of its own, behind a progress bar.

    Args:
        work: may raise `PictureError`; lets go of Python's lock for most of its time.
        pictures: content key -> file.
        description: of the bar.
        threads: how many at once; None is one a core.

    Returns:
        Pictures that could not be used -> reason.
    """
    skipped: dict[Path, str] = {}

    def guarded(key: str, path: Path) -> None:
        try:
            work(key, path)
        except PictureError as error:
            skipped[path] = str(error)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            done = pool.map(guarded, pictures.keys(), pictures.values())
            for _ in track(done, description, len(pictures)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return skipped


def announce(dataset: Dataset) -> Dataset:
    """Say what was wrong with a dataset and how it was taken; returns it."""
    for warning in dataset.warnings:
        console.print(f"Warning: {warning}", style="yellow", markup=False, highlight=False)
    return dataset


def report_skipped(skipped: dict[Path, str]) -> None:
    """Say how many pictures could not be used, and why, the first few by name."""
    if not skipped:
        return
    console.print(f"[yellow]{len(skipped)} picture(s) skipped:[/]", highlight=False)
    for reason in list(skipped.values())[:5]:
        console.print(f"  {reason}", markup=False, highlight=False)
    if len(skipped) > 5:
        console.print(f"  ... and {len(skipped) - 5} more")
