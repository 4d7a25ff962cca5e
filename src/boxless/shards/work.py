"""One shard -> one part. It knows no engine: whatever runs it, however often, ends in the same file."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError, ImageError
from boxless.images import decode_image
from boxless.loading import load_predictor
from boxless.parallel import in_order
from boxless.predictor import Predictor
from boxless.progress import progress_bars, track
from boxless.shards.job import Job, describe, part_name
from boxless.shards.manifest import ImageRow, read_rows
from boxless.shards.parts import encode_part
from boxless.shards.storage import MissingImageError, exists, fetch, join, state, writing
from boxless.structures import Detections

READERS = 8
"""Threads that fetch files ahead, of which at most twice as many wait in memory."""
LISTED = 3
"""Unread images of a shard whose reason is passed on."""
ALL_MISSING = 10
"""From so many images on a shard of which no file is there or may be read is an error: storage is not mounted, was
moved, or denies access."""


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Args:
        shard: its number.
        images: in its part, those that cannot be read included; 0 where it was not written now.
        boxes: in its part.
        unread: images that cannot be read.
        reasons: of the first few of these.
        failure: why no part was written; None where it is there.
    """

    shard: int
    images: int = 0
    boxes: int = 0
    unread: int = 0
    reasons: tuple[str, ...] = ()
    failure: str | None = None


def load_detector(job: Job) -> Predictor:
    """The detector of a job.

    Raises:
        BoxlessError: it cannot be loaded, or on this machine another one is at its path.
    """
    if describe(job.run)[0] != job.detector:
        raise BoxlessError(f"{job.run}: on this machine it is another detector than where the command was started")
    return load_predictor(job.run)


def predict_shard(job: Job, shard: int, detector: Predictor, threads: int | None) -> Outcome:
    """Write the part of a shard, unless it is there.

    Storage that fails is no exception but a `failure`: other shards may succeed, and the same call tries again.

    Args:
        job: the job.
        shard: number of the shard.
        detector: what `load_detector` gives.
        threads: how many images are worked on at once; None is one a core, or as many as keep a GPU busy.
    """
    part = join(job.out, part_name(shard))
    try:
        if exists(part):
            return Outcome(shard)
        if state(job.manifest) != job.manifest_state:
            raise BoxlessError(f"{job.manifest}: was replaced since the command was started; start it again")
        rows = read_rows(job.manifest, shard * job.shard_size, job.shard_size)
        found = _predict(rows, detector, threads, job.threshold)
        if len(rows) >= ALL_MISSING and all(isinstance(image, MissingImageError) for image in found):
            raise BoxlessError(
                f"{job.manifest}: none of the {len(rows)} images of shard {shard} is there (the first: {found[0]}); "
                "mount the storage on this machine, get access to it, or make the manifest anew"
            )
        with writing(part) as file:
            file.write(encode_part(rows, found, job.record))
    except BoxlessError as error:
        return Outcome(shard, failure=str(error))
    reasons = [str(image) for image in found if isinstance(image, ImageError)]
    boxes = sum(len(image) for image in found if isinstance(image, Detections))
    return Outcome(shard, len(rows), boxes, len(reasons), tuple(reasons[:LISTED]))


def _predict(
    rows: Sequence[ImageRow], detector: Predictor, threads: int | None, threshold: float | None
) -> list[Detections | ImageError]:
    found: list[Detections | ImageError] = []
    with (
        progress_bars(False),
        closing(in_order(_fetched, rows, READERS)) as files,
        closing(detector.predict_each(files, _decoded, threads)) as images,
    ):
        for image in track(images, "Predict", len(rows)):
            if isinstance(image, Detections):
                image = image.confident() if threshold is None else image.above(threshold)
            found.append(image)
    return found


def _fetched(row: ImageRow) -> tuple[str, bytes | ImageError]:
    try:
        return row.uri, fetch(row.uri)
    except ImageError as error:
        return row.uri, error


def _decoded(file: tuple[str, bytes | ImageError]) -> NDArray[np.uint8]:
    uri, content = file
    if isinstance(content, ImageError):
        raise content
    return decode_image(content, uri)
