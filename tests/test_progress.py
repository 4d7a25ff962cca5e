import threading
import time
from pathlib import Path

import pytest

from boxless.errors import ImageError
from boxless.progress import track_images, track_threads


def test_results_come_in_order_whatever_is_done_first():
    last_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert last_is_done.wait(10)
        if item == 3:
            last_is_done.set()
        return 10 * item

    assert list(track_threads(work, range(9), "Test", 2)) == [10 * item for item in range(9)]


def test_as_many_are_worked_on_at_once_as_there_are_threads_and_none_in_the_callers():
    together, names = threading.Barrier(3, timeout=10), set()

    def work(item: int) -> None:
        names.add(threading.get_ident())
        together.wait()

    list(track_threads(work, range(6), "Test", 3))
    assert len(names) == 3 and threading.get_ident() not in names


def test_threads_wait_for_a_slow_caller_and_stop_with_it():
    begun: list[int] = []
    results = track_threads(begun.append, range(100), "Test", 2)
    for fetched in range(1, 4):
        next(results)
        deadline = time.monotonic() + 10
        while len(begun) < fetched + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert sorted(begun) == list(range(fetched + 3))
    results.close()
    assert len(begun) == 6


def test_of_what_waits_for_a_thread_nothing_is_begun_after_the_end():
    begun, go_on = [], threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        assert item == 0 or go_on.wait(10)

    results = track_threads(work, range(9), "Test", 2)
    next(results)
    threading.Timer(0.2, go_on.set).start()
    results.close()
    # Three wait to be fetched, of which two have a thread.
    assert go_on.is_set() and 3 not in begun


def test_what_goes_wrong_is_raised_in_its_turn_and_nothing_further_begun():
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return 1 // (2 - item)

    results = track_threads(work, range(50), "Test", 1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert len(begun) <= 4


def test_images_that_cannot_be_used_are_told_in_order():
    def work(key: str, path: Path) -> None:
        if key in "bd":
            raise ImageError(f"{path}: broken")

    images = {key: Path(f"{key}.jpg") for key in "abcde"}
    reasons = track_images(work, images, "Test", 2)
    assert list(reasons.items()) == [(Path(f"{key}.jpg"), f"{key}.jpg: broken") for key in "bd"]
