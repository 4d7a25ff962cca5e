"""Predicting all images of a manifest, by whichever engine."""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike, fspath

from boxless.errors import BoxlessError
from boxless.progress import track
from boxless.shards.job import Job, begin_job, part_name, plan
from boxless.shards.local import run_local
from boxless.shards.storage import names
from boxless.shards.work import LISTED, Outcome
from boxless.share import parse_share
from boxless.wording import counted

logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")
MAX_FAILURES = 3
"""Shards that fail before the others are left alone."""


@dataclass(frozen=True)
class Summary:
    """What `predict_manifest` did.

    Args:
        shards, images, boxes: of the parts that were written.
        unread: images of these parts that cannot be read.
        reasons: of the first few of these.
        there: parts that were there before.
        seconds: that it took.
    """

    shards: int
    images: int
    boxes: int
    unread: int
    reasons: tuple[str, ...]
    there: int
    seconds: float


def predict_manifest(
    run: str | PathLike[str],
    manifest: str | PathLike[str],
    out: str | PathLike[str],
    *,
    engine: str = "local",
    shard_size: int = 500,
    shards: str | None = None,
    threshold: float | None = None,
    workers: int | None = None,
) -> Summary:
    """Detect objects in all images of a manifest; write a Parquet part for each shard of it that has none yet.

    The bytes of the parts depend on manifest, detector, `shard_size` and `threshold` (and on processor and releases, as
    floating-point numbers do), and not on engine, machines, interruptions and repetitions. In a script of your own call
    this below `if __name__ == "__main__":`, as the processes that it starts import the script.

    Args:
        run: run folder of `boxless train`, `hf://OWNER/NAME`, or file of `boxless export`.
        manifest: path or URI of what `boxless manifest` writes, or a Parquet file of your own with columns `id` and
            `uri`.
        out: folder, or URI in an object store, which takes the parts and `job.json`.
        engine: `local` or `ray`.
        shard_size: images in a part.
        shards: `i/n` for every n-th shard from the i-th on, where n processes share the work; None for all.
        threshold: write the boxes that score at least this; None writes the confident ones, see
            `Detections.confident`.
        workers: number of processes, or of Ray's actors; None is one a core, or one a GPU.

    Raises:
        BoxlessError: an argument is wrong, the parts that are there are of another detector or manifest, or shards
            failed; the others are there then, and the same call does what is missing.
    """
    start = time.perf_counter()
    if engine not in ENGINES:
        raise BoxlessError(f"--engine {engine}: there are {' and '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise BoxlessError(f"workers={workers}: one is needed at least")
    share = parse_share(shards)
    if engine == "ray":
        from boxless.shards.ray_data import check_ray, run_ray

        check_ray()
    job = begin_job(fspath(run), fspath(manifest), fspath(out), shard_size, threshold)
    todo, there = plan(job, share)
    engine_of = run_local if engine == "local" else run_ray
    with closing(engine_of(job, todo, workers)) as outcomes:
        done = _collect(outcomes, len(todo))
    _check(job, todo, done)
    return Summary(
        shards=len(todo),
        images=sum(outcome.images for outcome in done),
        boxes=sum(outcome.boxes for outcome in done),
        unread=sum(outcome.unread for outcome in done),
        reasons=tuple(reason for outcome in done for reason in outcome.reasons)[:LISTED],
        there=len(there),
        seconds=time.perf_counter() - start,
    )


def _collect(outcomes: Iterable[Outcome], total: int) -> list[Outcome]:
    """What became of the shards, behind a progress bar, until too many failed."""
    done: list[Outcome] = []
    failed = 0
    for outcome in track(outcomes, "Predict", total):
        done.append(outcome)
        failed += outcome.failure is not None
        if failed == MAX_FAILURES:
            break
    return done


def _check(job: Job, todo: Sequence[int], done: Sequence[Outcome]) -> None:
    """Check that all shards that were to be done have a part.

    Raises:
        BoxlessError: some failed, or their parts are elsewhere.
    """
    failures = [outcome.failure for outcome in done if outcome.failure is not None]
    if failures:
        written = counted(len(done) - len(failures), "part")
        raise BoxlessError(
            f"{counted(len(failures), 'shard')} failed, {written} of {len(todo)} written; the same command does the "
            f"rest. The first: {failures[0]}"
        )
    found = names(job.out)
    if lost := [part_name(shard) for shard in todo if part_name(shard) not in found]:
        raise BoxlessError(
            f"{job.out}: {lost[0]} was written elsewhere; --out must be a folder that all machines share"
        )


def log_summary(summary: Summary, out: str) -> None:
    """Say what was done."""
    if summary.unread:
        reasons = "\n  ".join(summary.reasons)
        logger.warning(
            "%s cannot be read; the column `error` says why:\n  %s", counted(summary.unread, "image"), reasons
        )
    if not summary.shards:
        logger.info("All parts were there before (%d). Results: %s", summary.there, out)
        return
    logger.info(
        "%s of %s: %s, %.1f images a second; there before: %d. Results: %s",
        counted(summary.shards, "part"),
        counted(summary.images, "image"),
        counted(summary.boxes, "box"),
        summary.images / summary.seconds,
        summary.there,
        out,
    )
