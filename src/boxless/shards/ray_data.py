"""The engine `ray`: Ray Data gives the shards to actors on the machines of a cluster, each of which holds the detector.

Only numbers of shards and counts go through Ray: the actor reads the images and writes the part. A part is thus kept as
soon as it is whole, whatever happens to the actor, its machine or the program that waits for it.
"""

import json
import os
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from typing import Any

from boxless.errors import BoxlessError, in_one_line
from boxless.files import expand_user
from boxless.process import wait_passively
from boxless.run_path import is_exported
from boxless.shards.job import Job
from boxless.shards.work import Outcome, load_detector, predict_shard


def check_ray() -> None:
    """Join the Ray cluster of this machine or of `RAY_ADDRESS`, or start one that is this machine alone.

    Raises:
        BoxlessError: Ray is not installed, or the cluster does not answer.
    """
    # Ray would report to its makers that it was started.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError:
        raise BoxlessError("Ray is not installed: in the checkout pip install -e '.[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init()
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BoxlessError(f"Ray does not start or answer ({in_one_line(error)}); see RAY_ADDRESS") from None


class ShardActor:
    """Holds the detector in a process of its own.

    Args:
        job: the job.
        threads: see `predict_shard`.
    """

    def __init__(self, job: Job, threads: int | None) -> None:
        wait_passively()
        self._job, self._threads = job, threads
        self._detector = load_detector(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write the part of a shard; `row` has its number."""
        outcome = predict_shard(self._job, int(row["shard"]), self._detector, self._threads)
        return {"outcome": json.dumps(asdict(outcome))}


def run_ray(job: Job, shards: Sequence[int], workers: int | None = None) -> Generator[Outcome, None, None]:
    """Yield what becomes of each shard, as it does.

    An actor has one CPU and one thread, or one GPU where the cluster has some. There are as many as the cluster has
    room for, and more when it grows. Shards of an actor that ends are begun anew by another.

    Args:
        job: the job.
        shards: numbers of the shards to do.
        workers: number of actors; None is as many as there is room for.

    Raises:
        BoxlessError: the detector cannot be loaded, or Ray fails.
    """
    import ray.data

    if not shards:
        return
    gpus = 0 if is_exported(job.run) else int(ray.cluster_resources().get("GPU", 0))
    room = workers or gpus or int(ray.cluster_resources().get("CPU", 1))
    if not ray.get_runtime_context().runtime_env.get("working_dir"):
        # Actors have other working folders, unless a job brings one to each machine.
        manifest = job.manifest if "://" in job.manifest else str(expand_user(job.manifest).absolute())
        job = replace(job, run=str(expand_user(job.run).absolute()), manifest=manifest)
    context = ray.data.DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        # A block each, as the actor is given whole blocks.
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        outcomes = rows.map(
            ShardActor,
            fn_constructor_args=(job, None if gpus else 1),
            compute=ray.data.ActorPoolStrategy(
                min_size=min(room, len(shards)), max_size=min(workers or len(shards), len(shards))
            ),
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        for row in outcomes.iter_rows():
            outcome = json.loads(row["outcome"])
            yield Outcome(**outcome | {"reasons": tuple(outcome["reasons"])})
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        reason = str(cause) if isinstance(cause, BoxlessError) else in_one_line(error)
        raise BoxlessError(f"{reason}; the parts that were written are kept") from error
    finally:
        context.enable_progress_bars = bars
