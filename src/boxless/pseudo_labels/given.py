"""Boxes that a person has given beside pseudo labels: they are ground truth, and no consensus overrules them.

`without_given` leaves what is to be predicted, `with_given` makes of predictions what is trained on.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.np_box_ops import iou
from boxless.structures import Annotations, BoolArray, Dataset, FloatArray, IntArray, Sample

REJECTED_IOU = 0.5
"""A pseudo label of this IoU with a box of its class that a person rejected is not taken."""
SEED_BOXES = 5
"""Least number of given boxes of a class, on fully boxed images, for its seeds to come from a network trained on
them."""


def without_given(data: CachedDataset) -> CachedDataset:
    """The same images with only those tags that need a pseudo label, as no box of their class is given."""
    samples = (
        sample if sample.given is None else replace(sample, tags=sample.tags - sample.given.labels)
        for sample in data.dataset.samples
    )
    return replace(data, dataset=replace(data.dataset, samples=tuple(samples)))


def with_given(labels: Sequence[Annotations], data: CachedDataset) -> list[Annotations]:
    """Pseudo labels and given boxes together.

    Args:
        labels: pseudo labels of each image, none of a class that has a given box there (`without_given`); those that
            contradict a person are ignored (`without_contradicting`).
        data: the images.
    """
    pairs = zip(without_contradicting(labels, data), data.dataset.samples, strict=True)
    return [own if sample.given is None else Annotations.merge([sample.given.right, own]) for own, sample in pairs]


def without_contradicting(labels: Sequence[Annotations], data: CachedDataset) -> list[Annotations]:
    """Pseudo labels of which those are ignored that contradict what a person said.

    They lie at a box of their class that was rejected, or hold none of the points of their class, if there are points
    and no more objects were counted.
    """
    pairs = zip(labels, data.dataset.samples, strict=True)
    return [replace(own, ignore=own.ignore | _contradicts(own, sample)) for own, sample in pairs]


def _contradicts(labels: Annotations, sample: Sample) -> BoolArray:
    wrong = at_rejected(labels.boxes, labels.labels, sample)
    for label in {point.label for point in sample.points}:
        points = points_on(sample, label)
        if label not in sample.counts or sample.counts[label].number <= len(points):
            wrong |= (labels.labels == label) & ~contains_points(labels.boxes, points).any(axis=1)
    return wrong


def points_on(sample: Sample, label: int) -> FloatArray:
    """The points on objects of a class: (P, 2), x and y in pixels."""
    return np.array([point[1:] for point in sample.points if point.label == label], np.float32).reshape(-1, 2)


def at_rejected(boxes: FloatArray, labels: IntArray, sample: Sample) -> BoolArray:
    """Whether boxes (N, 4) of these classes lie at a box of their class that a person rejected: (N,) bool."""
    if sample.given is None:
        return np.zeros(len(boxes), np.bool_)
    wrong = sample.given.wrong
    same = np.equal.outer(labels, wrong.labels)
    return np.asarray(np.any((iou(boxes, wrong.boxes) >= REJECTED_IOU) & same, axis=1), np.bool_)


def contains_points(boxes: FloatArray, points: FloatArray) -> BoolArray:
    """Whether boxes (N, 4) hold points (P, 2): (N, P) bool."""
    inside = (points >= boxes[:, None, :2]) & (points < boxes[:, None, 2:])
    return np.asarray(np.all(inside, axis=2), np.bool_)


def needs_no_label(sample: Sample) -> bool:
    """Whether boxes are given for all tags of an image, and it has some."""
    return sample.given is not None and bool(sample.tags) and sample.tags <= sample.given.labels


def is_negative(sample: Sample, dataset: Dataset) -> bool:
    """Whether an image has no tag, and it is known of a class that it is not there."""
    return not sample.tags and len(sample.unsure) < len(dataset.classes)


def given_alone(data: CachedDataset) -> CachedDataset:
    """The images that can be trained on without pseudo labels, with their given boxes, and those without a class."""
    samples = data.dataset.samples
    rows = [row for row, one in enumerate(samples) if needs_no_label(one) or is_negative(one, data.dataset)]
    boxed = data.subset(rows)
    return boxed.with_boxes(with_given([Annotations.empty()] * len(boxed), boxed))


def seed_classes(dataset: Dataset) -> list[int]:
    """The classes that have enough given boxes to seed from (`SEED_BOXES`)."""
    given = [one.given.right.labels for one in dataset.samples if one.given is not None and needs_no_label(one)]
    counts = np.bincount(np.concatenate(given), minlength=len(dataset.classes)) if given else np.zeros(0, np.int64)
    return list(np.flatnonzero(counts >= SEED_BOXES).tolist())


def replace_classes(
    seeds: Sequence[Annotations], others: Sequence[Annotations], classes: Sequence[int]
) -> list[Annotations]:
    """Boxes of the same tags, for tags of these classes those of `others`."""
    pairs = zip(seeds, others, strict=True)
    return [one.with_boxes(other.boxes, np.isin(one.labels, classes)) for one, other in pairs]
