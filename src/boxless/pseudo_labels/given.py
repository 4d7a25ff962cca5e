"""Boxes that a person has given beside pseudo labels: they are ground truth, and no consensus overrules them.

`without_given` leaves what is to be predicted, `with_given` makes of predictions what is trained on.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torchvision.ops import box_iou

from boxless.cached_dataset import CachedDataset
from boxless.structures import Annotations, Dataset, Sample

REJECTED_IOU = 0.5
"""A pseudo label of this IoU with a box of its class that a person rejected is not taken."""
SEED_BOXES = 5
"""Given boxes of a class, on images whose tags all have one, from which a network that is trained on them gives its
seeds."""


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
        labels: pseudo labels of each image, none of a class that has a given box there (`without_given`); those at
            rejected boxes are ignored.
        data: the images.
    """
    pairs = zip(without_rejected(labels, data), data.dataset.samples, strict=True)
    return [own if sample.given is None else _joined(sample.given.right, own) for own, sample in pairs]


def _joined(one: Annotations, other: Annotations) -> Annotations:
    return Annotations(
        np.concatenate([one.boxes, other.boxes]),
        np.concatenate([one.labels, other.labels]),
        np.concatenate([one.ignore, other.ignore]),
    )


def without_rejected(labels: Sequence[Annotations], data: CachedDataset) -> list[Annotations]:
    """Pseudo labels of which those are ignored that lie at a box of their class that a person rejected."""
    pairs = zip(labels, data.dataset.samples, strict=True)
    return [own if sample.given is None else _ignoring(own, sample.given.wrong) for own, sample in pairs]


def _ignoring(labels: Annotations, wrong: Annotations) -> Annotations:
    overlaps = box_iou(torch.from_numpy(labels.boxes), torch.from_numpy(wrong.boxes)).numpy()
    rejected = (overlaps >= REJECTED_IOU) & (labels.labels[:, None] == wrong.labels)
    return replace(labels, ignore=labels.ignore | rejected.any(axis=1))


def needs_no_label(sample: Sample) -> bool:
    """Whether boxes are given for all tags of an image, and it has some."""
    return sample.given is not None and bool(sample.tags) and sample.tags <= sample.given.labels


def given_alone(data: CachedDataset) -> CachedDataset:
    """The images that can be trained on without pseudo labels, with their given boxes, and those without a class."""
    samples = data.dataset.samples
    boxed = data.subset([row for row, one in enumerate(samples) if needs_no_label(one) or not (one.tags or one.unsure)])
    none = Annotations(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    return boxed.with_boxes(with_given([none] * len(boxed), boxed))


def seed_classes(dataset: Dataset) -> list[int]:
    """The classes that have enough given boxes to seed from (`SEED_BOXES`)."""
    given = [one.given.right.labels for one in dataset.samples if one.given is not None and needs_no_label(one)]
    counts = np.bincount(np.concatenate(given), minlength=len(dataset.classes)) if given else np.zeros(0, np.int64)
    return list(np.flatnonzero(counts >= SEED_BOXES).tolist())


def chosen(seeds: Sequence[Annotations], others: Sequence[Annotations], classes: Sequence[int]) -> list[Annotations]:
    """Boxes of the same tags, for tags of these classes those of `others`."""
    pairs = zip(seeds, others, strict=True)
    return [
        replace(one, boxes=np.where(np.isin(one.labels, classes)[:, None], other.boxes, one.boxes))
        for one, other in pairs
    ]
