"""Snap the boxes of pseudo labels to nearby proposals."""

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import box_iou

from boxless.cached_dataset import CachedDataset
from boxless.pseudo_labels.given import contains_points
from boxless.structures import Annotations, FloatArray

SNAP_IOU = 0.6
"""Least IoU of a proposal that moves a box."""


def snap(boxes: FloatArray, proposals: FloatArray) -> FloatArray:
    """Move each box to the mean of the proposals near it.

    Pseudo labels are right about where an object is and wrong about where it ends; proposals end at edges of the image
    (docs/lab_book). Proposals of at least `SNAP_IOU` count, weighted by the eighth power of their IoU; a box without
    any stays.

    Args:
        boxes: (M, 4), xyxy pixels.
        proposals: (N, 4), xyxy pixels, of the same image.

    Returns:
        (M, 4) float32, xyxy pixels.
    """
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(proposals)).double().numpy()
    weights = np.where(overlaps >= SNAP_IOU, overlaps, 0) ** 8
    total = weights.sum(axis=1, keepdims=True)
    means = weights @ proposals / np.maximum(total, 1e-12)
    return np.where(total > 0, means, boxes).astype(np.float32)


def snap_all(labels: Sequence[Annotations], data: CachedDataset, leave: Sequence[int] = ()) -> list[Annotations]:
    """`snap` the boxes of every image to its proposals.

    Args:
        labels: the boxes of each image.
        data: the images.
        leave: classes whose boxes stay: networks that were trained on ground truth have learned where objects end.
    """
    snapped = []
    for row, own in enumerate(labels):
        moved = snap(own.boxes, data.proposals_of(row))
        stay = np.isin(own.labels, leave)
        # A box that was chosen as it holds a point must not lose it.
        for label, x, y in data.dataset.samples[row].points:
            point = np.array([[x, y]], np.float32)
            stay |= (
                (own.labels == label) & contains_points(own.boxes, point)[:, 0] & ~contains_points(moved, point)[:, 0]
            )
        snapped.append(own.with_boxes(moved, ~stay))
    return snapped
