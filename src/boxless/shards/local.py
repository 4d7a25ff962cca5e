"""The engine `local`: processes of this machine, one thread each, or one process that feeds a GPU."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache

from boxless.errors import BoxlessError
from boxless.predictor import Predictor
from boxless.process import cores, wait_passively
from boxless.run_path import is_exported
from boxless.shards.job import Job
from boxless.shards.work import Outcome, load_detector, predict_shard

MAX_BREAKS = 3
"""How often in a row the pool is started again after a process of it ended, while no shard succeeds."""


def run_local(job: Job, shards: Sequence[int], workers: int | None = None) -> Generator[Outcome, None, None]:
    """Yield what becomes of each shard, as it does.

    A process that ends, for example as the system killed it, takes the shards in progress with it; they are begun anew
    in new processes. All of them end with this process.

    Args:
        job: the job.
        shards: numbers of the shards to do.
        workers: number of processes; None is one a core, or one where there is a GPU.

    Raises:
        BoxlessError: the detector cannot be loaded, or processes keep ending.
    """
    if not shards:
        return
    on_gpu = _uses_gpu(job.run)
    number = workers or (1 if on_gpu else cores())
    todo, breaks = list(reversed(shards)), 0
    while todo:
        pool = _pool(min(number, len(todo)))
        running: dict[Future[Outcome], int] = {}
        try:
            while todo or running:
                while todo and len(running) < 2 * number:
                    # Taken off the list only then: a pool whose process has just ended accepts nothing.
                    running[pool.submit(_work, job, todo[-1], None if on_gpu else 1)] = todo[-1]
                    del todo[-1]
                done = wait(running, return_when=FIRST_COMPLETED).done
                # When a process ends, others may just have succeeded.
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    outcome = future.result()
                    del running[future]
                    breaks = 0
                    yield outcome
        except BrokenProcessPool:
            breaks += 1
            todo += sorted(running.values(), reverse=True)
        finally:
            pool.shutdown(cancel_futures=True)
        if breaks == MAX_BREAKS:
            raise BoxlessError(
                f"processes end without an error, as when memory is short, the last at shard {todo[-1]}; give the "
                "machine more, or use fewer cores (taskset -c 0 boxless predict ...)"
            )


def _uses_gpu(run: str) -> bool:
    if is_exported(run):
        return False
    from boxless.devices import default_device

    return default_device().type != "cpu"


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: threads of the libraries would be missing in the new processes.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start)


def _start() -> None:
    wait_passively()
    # Ctrl-C ends a process without a traceback; the one that started it reports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job, shard: int, threads: int | None) -> Outcome:
    return predict_shard(job, shard, _loaded(job), threads)


@cache
def _loaded(job: Job) -> Predictor:
    return load_detector(job)
