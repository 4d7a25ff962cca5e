"""Correct localisation: the share of images in which the best box of a class lies on an object of it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boxless.metrics.boxes import iou
from boxless.structures import Annotations, Detections


def corloc(detections: Sequence[Detections], annotations: Sequence[Annotations], classes: int) -> NDArray[np.float64]:
    """CorLoc of every class (Deselaers, Alexe, Ferrari, IJCV 2012).

    An image that shows the class is correct if the best-scored box of the class has an IoU of at least 0.5 with any
    ground-truth box of the class; it is not if there is no such box. Of equal scores the first given is the best.

    Difficult objects: an image whose only objects of the class are difficult is left out, as Deselaers et al. do (they
    leave out the truncated as well); in the others every ground-truth box counts, difficult or not, as they define it.
    OICR's code counts every box too, but leaves no image out.

    Args:
        detections: one per image.
        annotations: ground truth, in the same order.
        classes: the number of classes.

    Returns:
        (classes,) float64 in [0, 1]; NaN where no image shows the class.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    correct, shown = np.zeros(classes), np.zeros(classes)
    for found, ground_truth in zip(detections, annotations, strict=True):
        for label in np.unique(ground_truth.labels[~ground_truth.ignore]):
            shown[label] += 1
            correct[label] += _best_box_hits(found, ground_truth, label)
    share = np.full(classes, np.nan)
    np.divide(correct, shown, out=share, where=shown > 0)
    return share


def _best_box_hits(found: Detections, ground_truth: Annotations, label: np.int64) -> bool:
    of_class = np.flatnonzero(found.labels == label)
    if not len(of_class):
        return False
    best = of_class[found.scores[of_class].argmax()]
    return bool(iou(found.boxes[[best]], ground_truth.boxes[ground_truth.labels == label]).max() >= 0.5)
