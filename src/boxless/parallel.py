"""Work on many items in threads, in order, behind a progress bar."""

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2

from boxless.errors import ImageError
from boxless.process import ProcessSetting, cores
from boxless.progress import track

T = TypeVar("T")
R = TypeVar("R")


_opencv_threads = ProcessSetting(cv2.getNumThreads, cv2.setNumThreads)


def map_threads(
    work: Callable[[T], R], items: Collection[T], description: str, threads: int | None
) -> Generator[R, None, None]:
    """Yield the result of `work` for every item, in the order of the items, computed in a pool of threads.

    At most twice as many items as there are threads are in progress or waiting to be fetched, so memory does not grow
    with the number of items when the caller is slower than the threads. When the generator is closed, no further item
    is started; close it (`contextlib.closing`) where the loop over it may end early.

    Args:
        work: called in a thread; gains from threads as far as it releases the GIL. What it raises is raised here.
        items: the arguments of `work`.
        description: of the progress bar.
        threads: size of the pool; None is one thread per core.
    """
    with contextlib.closing(in_order(work, items, threads or cores())) as results:
        yield from track(results, description, len(items))


def map_images(
    work: Callable[[Path], R],
    images: Collection[Path],
    description: str,
    threads: int | None,
    skipped: dict[Path, str],
) -> Generator[tuple[Path, R], None, None]:
    """Yield (file, result) for every image file that `work` can use, as `map_threads` does.

    Args:
        work: called with a file in a thread; may raise `ImageError`.
        images: files.
        description, threads: as for `map_threads`.
        skipped: receives the files for which `work` raised `ImageError` -> reason; nothing is yielded for them.
    """

    def attempt(path: Path) -> R | ImageError:
        try:
            return work(path)
        except ImageError as error:
            return error

    with contextlib.closing(map_threads(attempt, images, description, threads)) as results:
        for path, result in zip(images, results, strict=True):
            if isinstance(result, ImageError):
                skipped[path] = str(result)
            else:
                yield path, result


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    """As `map_threads`, without a progress bar, for items that are taken from an iterator as they are needed."""
    started: deque[Future[R]] = deque()
    # OpenCV's own threads would only compete with the pool.
    with _opencv_threads.changed_to(1), ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if len(started) == 2 * threads:
                    yield started.popleft().result()
                started.append(pool.submit(work, item))
            while started:
                yield started.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
