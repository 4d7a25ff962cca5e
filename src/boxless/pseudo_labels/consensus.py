"""Pseudo boxes on which two opinions agree: how sure they are without anybody having looked at them."""

from collections.abc import Sequence

import numpy as np
import torch

from boxless.methods.heads import paired_iou
from boxless.structures import Annotations, FloatArray, IntArray

KEPT_QUANTILE = 0.75
"""Of every class at least the quarter of its boxes that agree best are kept, however poorly these agree."""


def consensus(first: Sequence[Annotations], second: Sequence[Annotations], least: float) -> list[Annotations]:
    """Merge two opinions on where the objects of every image are.

    Where both have nearly the same box, their mean is kept. Where they differ the second one's box is marked difficult:
    something of the class is there, but nobody can say how far it reaches. Of a class on which they hardly ever agree
    the first one's boxes are kept where they agree best: without them it would not be learned at all.

    Args:
        first: for each image the boxes of the classes in it.
        second: the same classes in the same order, boxes found by other means.
        least: IoU of the two boxes from which on they agree.

    Returns:
        One an image, the same classes in the same order.
    """
    overlaps = [_overlaps(one, other) for one, other in zip(first, second, strict=True)]
    labels: IntArray = np.concatenate([one.labels for one in first])
    values = np.concatenate(overlaps)
    limits = np.full(labels.max(initial=0) + 1, least)
    for label in np.unique(labels):
        limits[label] = min(least, np.quantile(values[labels == label], KEPT_QUANTILE))
    merged = []
    for one, other, overlap in zip(first, second, overlaps, strict=True):
        same = overlap >= limits[one.labels]
        likely = np.where(same[:, None], one.boxes, other.boxes)
        boxes = np.where((overlap >= least)[:, None], (one.boxes + other.boxes) / 2, likely)
        merged.append(Annotations(boxes.astype(np.float32), one.labels, ~same))
    return merged


def _overlaps(one: Annotations, other: Annotations) -> FloatArray:
    overlaps: FloatArray = paired_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy()
    return overlaps
