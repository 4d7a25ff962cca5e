"""Consensus of two predictions: the pseudo labels to keep, without ground truth to tell which are right."""

from collections.abc import Sequence

import numpy as np
import torch

from boxless.methods.box_ops import paired_iou
from boxless.structures import Annotations, Dataset, FloatArray, IntArray

MIN_KEPT_QUANTILE = 0.75
"""Of every class the boxes above this quantile of the IoU are kept, however low it is."""


def consensus(seeds: Sequence[Annotations], held_out: Sequence[Annotations], min_iou: float) -> list[Annotations]:
    """Merge two predictions of the box of every tag.

    Where their IoU is at least `min_iou` the mean of both is kept. Elsewhere the second one's box is marked to be
    ignored: the class is there, but where it ends is unknown. Of a class whose boxes hardly ever reach `min_iou` the
    first one's boxes of the highest IoU are kept: without them the class would not be trained at all.

    Args:
        seeds: for each image the boxes of its tags.
        held_out: boxes of the same tags in the same order, predicted by other means.
        min_iou: least IoU of two boxes that agree.

    Returns:
        One an image, the same tags in the same order.
    """
    ious = [_ious(one, other) for one, other in zip(seeds, held_out, strict=True)]
    labels: IntArray = np.concatenate([one.labels for one in seeds])
    values = np.concatenate(ious)
    limits = np.full(labels.max(initial=0) + 1, min_iou)
    for label in np.unique(labels):
        limits[label] = min(min_iou, np.quantile(values[labels == label], MIN_KEPT_QUANTILE))
    merged = []
    for one, other, iou in zip(seeds, held_out, ious, strict=True):
        kept = iou >= limits[one.labels]
        either = np.where(kept[:, None], one.boxes, other.boxes)
        boxes = np.where((iou >= min_iou)[:, None], (one.boxes + other.boxes) / 2, either)
        merged.append(Annotations(boxes.astype(np.float32), one.labels, ~kept))
    return merged


def kept_labels(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How many pseudo labels of each class are kept, for the manifest: `kept` of `all`."""
    boxes = [sample.annotations for sample in dataset.samples if sample.annotations is not None]
    found = {}
    for label, name in enumerate(dataset.classes):
        of_class = [own.ignore[own.labels == label] for own in boxes]
        found[name] = {"kept": sum(int((~part).sum()) for part in of_class), "all": sum(map(len, of_class))}
    return found


def _ious(one: Annotations, other: Annotations) -> FloatArray:
    ious: FloatArray = paired_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy()
    return ious
