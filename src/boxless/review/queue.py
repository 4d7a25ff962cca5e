"""Which images to ask a person about first: those whose boxes are the least certain, by tags alone.

    score      The sum of three signals, each from 0 to 1:
               1  box-in-box: a box contains another of its class, a part beside the whole or an object beside a group
                  (Vo et al., "Active learning strategies for weakly-supervised object detection", ECCV 2022);
               2  views: the box of a tag differs between the detector's views, or at another scale if it has one;
               3  classes: an image-level score contradicts a tag.
    diversity  Images are taken one after the other, each time the one whose score, times its distance to the nearest
               image taken before, is the highest. Of two shots of one scene the second so comes late.

Nothing is drawn at random but the random sample of `chosen_rows`, whose seed is fixed: the same run and data give the
same queue.
"""

import codecs
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from boxless.cached_dataset import CachedDataset, cache_dataset
from boxless.datasets.label_lines import ProposedBox, image_name, read_labels
from boxless.datasets.lookup import ImageIndex
from boxless.datasets.problems import Problems
from boxless.detector import CachedImage, Detector
from boxless.errors import BoxlessError, first_problem
from boxless.evaluation import matched
from boxless.export import FORMATS
from boxless.export.common import rows
from boxless.files import check_writable, expand_user, write_whole
from boxless.image_files import data_folder
from boxless.np_box_ops import areas, coverage, iou
from boxless.parallel import map_threads
from boxless.result_record import check_results, record_results
from boxless.structures import Dataset, Detections, FloatArray, Sample
from boxless.views import View

logger = logging.getLogger(__name__)

QUEUE = "queue.jsonl"
EXPORTS = ("label-studio", "coco")
"""Written beside the queue, for those who correct boxes elsewhere; CVAT reads COCO."""
MOST_PROPOSED = 20
"""Confident boxes of an image that are proposed, the best ones; a detector that has learned little has a hundred."""
CONTAINED_SHARE, CONTAINER_AREA = 0.8, 3.0
"""A box lies in another if this share of its area does, and the other has at least so many times its area (the paper's
values)."""
PART_SCORE = 0.1
"""Least score of both, over the best of the class in the image. Those of half the best, which are proposed, hardly ever
contain each other, since they were suppressed."""
RESCALE = 0.7
"""Scale of the second view of a detector that has one, over that of the first: half of its cost."""
REASON = 0.3
"""Least value of a signal that is named as a reason."""
SAMPLE_SEED = 0
"""Seed of the random sample."""


class ImageAssessment(NamedTuple):
    """The output of a detector for one image.

    Args:
        proposed: the boxes that a person is asked about.
        signals: reason, in words -> value from 0 to 1; one of each kind at most.
        descriptor: (C,) float32, the mean of the feature map over the image.
    """

    proposed: Detections
    signals: dict[str, float]
    descriptor: FloatArray


class QueryImage(NamedTuple):
    """One image to ask about.

    Args:
        sample: the image.
        proposed: the boxes to accept or to correct.
        score: the sum of the signals; None in a random sample.
        reasons: why this image, in words.
    """

    sample: Sample
    proposed: Detections
    score: float | None
    reasons: list[str]


class QueuedBox(ProposedBox):
    """A proposed box and its score."""

    score: float


class QueuedImage(BaseModel):
    """One line of `queue.jsonl`."""

    image: str
    score: float | None
    reasons: list[str]
    boxes: list[QueuedBox]


def ask(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    number: int = 40,
    *,
    split: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    random: bool = False,
) -> int:
    """Choose the images to ask about, and write them in order: `queue.jsonl`, and the same for other tools.

    Feature maps and proposals come from the caches that training fills; what an interrupted call has computed of them
    is kept.

    Args:
        run: the run folder.
        data: a path that `load_dataset` takes; boxes, where it has them, are not used.
        out: the folder of the results: `queue.jsonl` for `boxless review`; `tasks.json` and `labeling-config.xml` for
            Label Studio; `predictions.json`, COCO, for CVAT.
        number: images to choose; all if there are fewer.
        split: of the data.
        labels: what reviews have written; images that are done there are not asked about again.
        random: draw a random sample instead, on which the precision of the boxes is estimated without bias.

    Returns:
        How many images were chosen.

    Raises:
        BoxlessError: the run, the data or the labels cannot be read, no image is left, or `out` cannot be written.
    """
    out, root = expand_user(out), expand_user(data)
    check_writable(out / QUEUE)
    written = (QUEUE, *chain.from_iterable(FORMATS[name].files for name in EXPORTS))
    check_results(out, written)
    done = {} if labels is None else read_labels(expand_user(labels))
    detector = Detector.load(run)
    dataset = _without(matched(detector, root, split), root, (name for name, own in done.items() if own.done))
    if random and done:
        logger.warning("The sample is of the images that were not reviewed: it says nothing of the others")
    query_images = choose(detector, dataset, number, random=random)
    record_results(out, written)
    write_queue(out / QUEUE, query_images, root)
    for name in EXPORTS:
        pairs = [(image.sample.path, image.proposed) for image in query_images]
        FORMATS[name].write(out, pairs, detector.classes, detector.name)
    return len(query_images)


def choose(
    detector: Detector, dataset: Dataset, number: int | None = None, *, random: bool = False
) -> list[QueryImage]:
    """The images to ask about, in order.

    Args:
        detector: proposes the boxes.
        dataset: in its classes; only the tags are used.
        number: of images; None takes all.
        random: draw a random sample instead.

    Raises:
        BoxlessError: no image can be read.
    """
    if random:
        rows = np.random.default_rng(SAMPLE_SEED).permutation(len(dataset))[:number].tolist()
        dataset = replace(dataset, samples=tuple(dataset.samples[row] for row in rows))
        return [QueryImage(sample, own.proposed, None, ["random sample"]) for sample, own in examine(detector, dataset)]
    pairs = list(examine(detector, dataset))
    scores = np.array([sum(own.signals.values()) for _, own in pairs])
    order = diverse_order(scores, np.array([own.descriptor for _, own in pairs]), number)
    return [_query_image(*pairs[row], float(scores[row])) for row in order]


def _query_image(sample: Sample, examined: ImageAssessment, score: float) -> QueryImage:
    reasons = [reason for reason, value in examined.signals.items() if value >= REASON]
    return QueryImage(sample, examined.proposed, score, reasons or ["unlike the images before"])


def examine(detector: Detector, dataset: Dataset) -> Iterator[tuple[Sample, ImageAssessment]]:
    """Every image that can be read, and what the detector says of it, behind a progress bar."""
    # Another scale rather than the mirror image, as heads are trained on mirrored regions.
    views = detector.views if len(detector.views) > 1 else (*detector.views, _rescaled(detector.views[0]))
    data = cache_dataset(dataset.tags_only(), detector.features, views, detector.proposals)
    with (
        detector.in_parallel() as threads,
        closing(map_threads(partial(_examine, detector, data, views), range(len(data)), "Ask", threads)) as results,
    ):
        yield from zip(data.dataset.samples, results, strict=True)


def _rescaled(view: View) -> View:
    return replace(view, scale=max(1, round(view.scale * RESCALE)))


def _examine(detector: Detector, data: CachedDataset, views: Sequence[View], row: int) -> ImageAssessment:
    sample, image = data.dataset.samples[row], detector.with_views(views).read(data, row)
    maps = dict(zip(views, image.maps, strict=True))

    def in_views(chosen: Sequence[View]) -> CachedImage:
        return image._replace(maps=[maps[view] for view in chosen])

    def best(chosen: Sequence[View], labels: Sequence[int]) -> FloatArray:
        return detector.with_views(chosen).boxes_for_labels(in_views(chosen), np.array(labels, np.int64))

    found = detector.postprocess(in_views(detector.views))
    tags = sorted(sample.tags)
    missing = [label for label in tags if label not in _confident(found).labels]
    proposed = proposals(found, missing, best(detector.views, missing))
    signals = {
        **box_in_box(found, sample.tags),
        **differing_views([best([view], tags) for view in views], tags, found.classes),
    }
    signals |= contradicted_tags(found.image_scores, sample, found.classes)
    return ImageAssessment(proposed, signals, maps[views[0]].float().mean(dim=(1, 2)).numpy())


def proposals(found: Detections, missing: Sequence[int], best: FloatArray) -> Detections:
    """The best confident boxes, and for every tag without one its best box, whatever its score.

    Boxes are clipped to the image, and those of less than a pixel are left out.

    Args:
        found: all detections of an image.
        missing: tags without a confident box.
        best: (len(missing), 4) float32, their best boxes, xyxy pixels of the image.
    """
    confident = _confident(found)
    scores = [found.scores[found.labels == label].max(initial=0) for label in missing]
    boxes = np.concatenate([confident.boxes, best]).clip(0, np.array(found.size * 2, np.float32))
    every = replace(
        confident,
        boxes=boxes,
        scores=np.concatenate([confident.scores, np.array(scores, np.float32)]),
        labels=np.concatenate([confident.labels, np.array(missing, np.int64)]),
        raw_scores=None,
    )
    return every[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 1]


def _confident(found: Detections) -> Detections:
    return found.confident()[:MOST_PROPOSED]


def box_in_box(found: Detections, tags: Collection[int]) -> dict[str, float]:
    """Signal 1: 1 if a box of a tag contains another of the same, both scoring enough of the best (`PART_SCORE`)."""
    # Calibrated ones tell how likely the class is, not which of its boxes are good.
    scores = found.ranking_scores
    best = np.zeros(len(found.classes), np.float32)
    np.maximum.at(best, found.labels, scores)
    boxes = found[np.isin(found.labels, list(tags)) & (scores >= PART_SCORE * best[found.labels])]
    sides, inside = areas(boxes.boxes), coverage(boxes.boxes, boxes.boxes) >= CONTAINED_SHARE
    pairs = inside & (sides[:, None] * CONTAINER_AREA <= sides) & (boxes.labels[:, None] == boxes.labels)
    rows = np.flatnonzero(pairs.any(axis=1))
    return {f"a box of {boxes.names[rows[0]]} lies in another": 1.0} if len(rows) else {}


def differing_views(by_view: Sequence[FloatArray], tags: Sequence[int], classes: Sequence[str]) -> dict[str, float]:
    """Signal 2: 1 minus the IoU of the boxes of a tag in the first and in another view, where it is the lowest.

    Args:
        by_view: the best box of each tag in every view, (len(tags), 4) each, xyxy pixels of the image.
        tags: the classes.
        classes: their names.
    """
    if not tags:
        return {}
    overlaps = np.array([iou(by_view[0], other).diagonal() for other in by_view[1:]]).min(axis=0)
    row = int(overlaps.argmin())
    return {f"boxes of {classes[tags[row]]} differ between views": float(1 - overlaps[row])}


def contradicted_tags(image_scores: FloatArray, sample: Sample, classes: Sequence[str]) -> dict[str, float]:
    """Signal 3: the largest difference of an image-level score and its tag; an unknown tag counts as 0.5 to either."""
    tagged = np.array([label in sample.tags for label in range(len(classes))])
    unsure = np.array([label in sample.unsure for label in range(len(classes))])
    differences = np.where(unsure, 1 - 2 * np.abs(image_scores - 0.5), np.abs(tagged - image_scores))
    label = int(differences.argmax())
    what = "unknown" if unsure[label] else "unlikely" if tagged[label] else "likely, yet not tagged"
    return {f"{classes[label]} is {what}": float(differences[label])}


def diverse_order(scores: NDArray[np.float64], descriptors: FloatArray, number: int | None = None) -> list[int]:
    """Rows in the order of score times distance to the nearest row taken before, taken one after the other.

    The distance is half of 1 minus the cosine of the descriptors, from which the mean of all is subtracted.

    Args:
        scores: (N,), not negative.
        descriptors: (N, C).
        number: of rows; None takes all.
    """
    centred = descriptors - descriptors.mean(axis=0)
    units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    distances, order = np.ones(len(scores)), list[int]()
    while len(order) < min(len(scores), len(scores) if number is None else number):
        weighted = scores * distances
        weighted[order] = -1
        order.append(int(weighted.argmax()))
        # Rounded, so that equal images are equal on every machine.
        distances = np.minimum(distances, ((1 - units @ units[order[-1]]) / 2).clip(0).round(6))
    return order


def write_queue(path: Path, query_images: Sequence[QueryImage], root: Path) -> None:
    """Write a queue atomically, one JSON line an image.

    Raises:
        BoxlessError: the file cannot be written.
    """
    with write_whole(path) as file:
        for line in queued(query_images, root):
            file.write(json.dumps(line.model_dump(mode="json", by_alias=True)).encode() + b"\n")


def queued(query_images: Sequence[QueryImage], root: Path) -> list[QueuedImage]:
    """Images to ask about, as lines of a queue, images named by their paths below the data `root`."""
    return [
        QueuedImage(
            image=image_name(root, image.sample.path),
            score=None if image.score is None else round(image.score, 6),
            reasons=image.reasons,
            boxes=[
                QueuedBox(name=image.proposed.classes[label], xyxy=box, score=score)
                for label, score, box in rows(image.proposed)
            ],
        )
        for image in query_images
    ]


def read_queue(path: Path) -> list[QueuedImage]:
    """The images of a queue, or of a part of one, in order.

    Raises:
        BoxlessError: the file cannot be read, or is no queue.
    """
    try:
        lines = [line.removeprefix(codecs.BOM_UTF8) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise BoxlessError(f"{path}: cannot be read ({error.strerror}); boxless ask writes a queue") from None
    images = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            images.append(QueuedImage.model_validate_json(line))
        except ValidationError as error:
            raise BoxlessError(
                f"{path}, line {number}: {first_problem(error.errors())}; make it anew with boxless ask"
            ) from None
    if not images:
        raise BoxlessError(f"{path}: names no image; make it anew with boxless ask")
    return images


def _without(dataset: Dataset, root: Path, names: Iterable[str]) -> Dataset:
    index = ImageIndex((sample.path for sample in dataset.samples), data_folder(root))
    done = {index.find(name, Problems()) for name in names}
    kept = tuple(sample for sample in dataset.samples if sample.path not in done)
    if not kept:
        raise BoxlessError(f"{dataset.name}: every image has been looked at; nothing is left to ask about")
    return replace(dataset, samples=kept)
