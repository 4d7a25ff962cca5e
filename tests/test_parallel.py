import threading
import time
from pathlib import Path

import cv2
import pytest

from boxless.errors import ImageError
from boxless.parallel import map_images, map_threads


def test_results_are_in_the_order_of_the_items():
    last_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert last_is_done.wait(10)
        if item == 3:
            last_is_done.set()
        return 10 * item

    assert list(map_threads(work, range(9), "Test", 2)) == [10 * item for item in range(9)]


def test_work_runs_in_as_many_threads_as_given_and_not_in_the_callers():
    together, names = threading.Barrier(3, timeout=10), set()

    def work(item: int) -> None:
        names.add(threading.get_ident())
        together.wait()

    list(map_threads(work, range(6), "Test", 3))
    assert len(names) == 3 and threading.get_ident() not in names


def test_threads_wait_for_a_slow_caller_and_stop_when_it_does():
    started: list[int] = []
    results = map_threads(started.append, range(100), "Test", 2)
    for fetched in range(1, 4):
        next(results)
        deadline = time.monotonic() + 10
        while len(started) < fetched + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert sorted(started) == list(range(fetched + 3))
    results.close()
    assert len(started) == 6


def test_queued_items_are_not_started_after_closing():
    started, go_on = [], threading.Event()

    def work(item: int) -> None:
        started.append(item)
        assert item == 0 or go_on.wait(10)

    results = map_threads(work, range(9), "Test", 2)
    next(results)
    threading.Timer(0.2, go_on.set).start()
    results.close()
    # Three items are submitted, of which two have a thread.
    assert go_on.is_set() and 3 not in started


def test_an_error_is_raised_in_the_order_of_the_items_and_ends_the_work():
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return 1 // (2 - item)

    results = map_threads(work, range(50), "Test", 1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert len(started) <= 4


def test_opencv_has_one_thread_meanwhile_and_its_own_number_afterwards():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        outer = map_threads(lambda item: cv2.getNumThreads(), range(9), "Test", 2)
        assert next(outer) == 1
        assert list(map_threads(lambda item: cv2.getNumThreads(), range(4), "Test", 2)) == [1] * 4
        assert next(outer) == 1
        outer.close()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_images_that_raise_image_errors_are_skipped_with_the_reason():
    def work(path: Path) -> str:
        if path.stem in "bd":
            raise ImageError(f"{path}: broken")
        return path.stem.upper()

    files, skipped = [Path(f"{name}.jpg") for name in "abcdea"], {}
    results = list(map_images(work, files, "Test", 2, skipped))
    assert results == [(Path(f"{name}.jpg"), name.upper()) for name in "acea"]
    assert list(skipped.items()) == [(Path(f"{name}.jpg"), f"{name}.jpg: broken") for name in "bd"]


def test_other_errors_of_images_are_raised():
    with pytest.raises(ZeroDivisionError):
        list(map_images(lambda path: 1 // 0, [Path("a.jpg")], "Test", 2, {}))
