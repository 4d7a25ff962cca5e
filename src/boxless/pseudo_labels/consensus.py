"""Consensus of two predictions: the pseudo labels to keep, without ground truth to tell which are right."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from boxless.methods.box_ops import paired_iou
from boxless.structures import Annotations, BoolArray, Dataset, FloatArray, IntArray

MIN_AGREEING = 0.55
"""Least share of the tags, the mean over classes, on which two predictions agree if agreement is to choose labels."""
MIN_TAGS = 5
"""Classes with fewer tags have no part in that mean, unless all have fewer."""
HELD_OUT_COPIES = 2
"""How often an out-of-fold prediction is repeated beside one copy of each seed, when all are trained on
(docs/lab_book)."""
CHANCE_ROWS = 500
"""About how many other boxes tell which IoU is chance."""

Sizes = Sequence[tuple[int, int]]
"""Width and height of every image in pixels."""


def consensus(
    seeds: Sequence[Annotations], held_out: Sequence[Annotations], sizes: Sizes, min_iou: float
) -> list[Annotations]:
    """Merge two predictions of the box of every tag.

    Where their chance-corrected IoU is at least `min_iou` the mean of both is kept. Elsewhere the second one's box is
    marked to be ignored: the class is there, but where it ends is unknown.

    Args:
        seeds: for each image the boxes of its tags.
        held_out: boxes of the same tags in the same order, predicted by other means.
        sizes: of the images.
        min_iou: least chance-corrected IoU of two boxes that agree.

    Returns:
        One an image, the same tags in the same order.
    """
    _, values = _agreement(seeds, held_out, sizes)
    ious = np.split(values, np.cumsum([len(one.labels) for one in seeds])[:-1])
    merged = []
    for one, other, iou in zip(seeds, held_out, ious, strict=True):
        kept = iou >= min_iou
        boxes = np.where(kept[:, None], (one.boxes + other.boxes) / 2, other.boxes)
        merged.append(Annotations(boxes.astype(np.float32), one.labels, ~kept))
    return merged


def classes_without_consensus(merged: Sequence[Annotations], boxed: Sequence[int]) -> list[int]:
    """The classes for which agreement is not to choose labels: all if it is rare, see `MIN_AGREEING`, else none.

    Args:
        merged: what `consensus` returned.
        boxed: classes with enough given boxes, which are none of them.
    """
    labels, kept = (np.concatenate(parts) for parts in zip(*((one.labels, ~one.ignore) for one in merged), strict=True))
    classes: list[int] = np.setdiff1d(labels, boxed).tolist()
    frequent = [label for label in classes if np.sum(labels == label) >= MIN_TAGS]
    shares = [np.mean(kept[labels == label], dtype=float) for label in frequent or classes]
    return classes if shares and np.mean(shares) < MIN_AGREEING else []


def classes_never_kept(merged: Sequence[Annotations], boxed: Sequence[int]) -> list[int]:
    """The classes of which no label is kept, which would not be trained at all.

    Args:
        merged, boxed: as for `classes_without_consensus`.
    """
    labels, kept = (np.concatenate(parts) for parts in zip(*((one.labels, ~one.ignore) for one in merged), strict=True))
    found: list[int] = np.setdiff1d(labels, [*labels[kept], *boxed]).tolist()
    return found


def label_sets(
    merged: Sequence[Annotations], predictions: Sequence[Sequence[Annotations]], classes: Sequence[int]
) -> list[list[Annotations]]:
    """What networks are trained on: sets of boxes, in each of which an image is seen as often as in the others.

    Where predictions rarely agree, those that do are alike and not right. All of them are trained on instead: a
    proposal is then an object in the share of the boxes that it overlaps.

    Args:
        merged: labels by `consensus`.
        predictions: several boxes of the same tags; one that is to weigh more occurs more often.
        classes: those without consensus; of all others each set has the labels in `merged`.
    """
    if not classes:
        return [list(merged)]
    sets = []
    for boxes in predictions:
        pairs = zip(merged, boxes, strict=True)
        sets.append([_all_trained(one, own, np.isin(one.labels, classes)) for one, own in pairs])
    return sets


def _all_trained(labels: Annotations, others: Annotations, which: BoolArray) -> Annotations:
    """These labels with the other boxes, not ignored, where `which` is set."""
    return replace(labels.with_boxes(others.boxes, which), ignore=labels.ignore & ~which)


def kept_labels(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How many pseudo labels of each class are kept, for the manifest: `kept` of `all`."""
    boxes = [sample.annotations for sample in dataset.samples if sample.annotations is not None]
    found = {}
    for label, name in enumerate(dataset.classes):
        of_class = [own.ignore[own.labels == label] for own in boxes]
        found[name] = {"kept": sum(int((~part).sum()) for part in of_class), "all": sum(map(len, of_class))}
    return found


def class_agreement(
    seeds: Sequence[Annotations], held_out: Sequence[Annotations], sizes: Sizes, classes: int
) -> list[float | None]:
    """For each class the mean chance-corrected IoU of its boxes; None for a class without boxes.

    Args:
        seeds, held_out, sizes: as for `consensus`.
        classes: number of classes.
    """
    labels, values = _agreement(seeds, held_out, sizes)
    of_class = [values[labels == label] for label in range(classes)]
    return [float(own.mean()) if len(own) else None for own in of_class]


def chance_corrected_ious(boxes: FloatArray, others: FloatArray, labels: IntArray) -> FloatArray:
    """The IoU of pairs of boxes beyond chance, relative to what is possible beyond it (as Cohen's kappa).

    Two boxes that fill the image overlap whatever they show. What is chance is told by the boxes of the same class in
    the other images (`chance_iou`); of a class with one box it is zero.

    Args:
        boxes: (N, 4), xyxy in fractions of their image.
        others: (N, 4), boxes of the same tags.
        labels: (N,).

    Returns:
        (N,) float64, at most 1.
    """
    one, other = torch.from_numpy(boxes), torch.from_numpy(others)
    values: FloatArray = paired_iou(one, other).double().numpy()
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            chance = chance_iou(one[rows], other[rows]).double().numpy()
            values[rows] = (values[rows] - chance) / np.maximum(1 - chance, 1e-9)
    return values


def chance_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """The mean IoU of every box (N, 4), xyxy, with those of the other rows (N, 4), N at least 2: (N,).

    It is the IoU to expect of two boxes that know the usual places and sizes of a class and nothing of the image. Of
    many rows about `CHANCE_ROWS` are compared.
    """
    rows = torch.arange(0, len(others), max(1, len(others) // CHANCE_ROWS), device=boxes.device)
    overlaps = box_iou(boxes, others[rows])
    own = torch.zeros_like(overlaps)
    own[rows, torch.arange(len(rows), device=boxes.device)] = 1
    found: Tensor = (overlaps * (1 - own)).sum(dim=1) / (1 - own).sum(dim=1)
    return found


def _agreement(
    seeds: Sequence[Annotations], held_out: Sequence[Annotations], sizes: Sizes
) -> tuple[IntArray, FloatArray]:
    """The label of every box of all images, and its chance-corrected IoU."""
    labels: IntArray = np.concatenate([one.labels for one in seeds])
    return labels, chance_corrected_ious(_relative(seeds, sizes), _relative(held_out, sizes), labels)


def _relative(boxes: Sequence[Annotations], sizes: Sizes) -> FloatArray:
    parts = [own.boxes / np.array([*size, *size], np.float32) for own, size in zip(boxes, sizes, strict=True)]
    return np.concatenate(parts).astype(np.float32)
