"""Correct localisation: the share of images in which the best box of a class lies on an object of it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from boxless.np_box_ops import iou
from boxless.structures import Annotations, Detections


def corloc(
    detections: Sequence[Detections],
    annotations: Sequence[Annotations],
    classes: int,
    *,
    convention: Literal["deselaers", "oicr"] = "deselaers",
) -> NDArray[np.float64]:
    """CorLoc of every class (Deselaers, Alexe, Ferrari, IJCV 2012).

    An image that shows the class is correct if the best-scored box of the class has an IoU of at least 0.5 with any
    ground-truth box of the class; it is not if there is no such box. Of equal scores the first given is the best.

    Difficult objects: an image whose only objects of the class are difficult is left out, as Deselaers et al. do (they
    leave out the truncated as well); in the others every ground-truth box counts, difficult or not, as they define it.
    In the convention of OICR's code no image is left out, and the IoU must be over 0.5.

    Args:
        detections: one per image.
        annotations: ground truth, in the same order.
        classes: the number of classes.
        convention: that of Deselaers et al., or of OICR (Tang et al., CVPR 2017).

    Returns:
        (classes,) float64 in [0, 1]; NaN where no image shows the class.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    correct, shown = np.zeros(classes), np.zeros(classes)
    for found, ground_truth in zip(detections, annotations, strict=True):
        counted = np.full(len(ground_truth.labels), True) if convention == "oicr" else ~ground_truth.ignore
        for label in np.unique(ground_truth.labels[counted]):
            shown[label] += 1
            overlap = _best_box_iou(found, ground_truth, label)
            correct[label] += overlap > 0.5 or (overlap == 0.5 and convention == "deselaers")
    share = np.full(classes, np.nan)
    np.divide(correct, shown, out=share, where=shown > 0)
    return share


def _best_box_iou(found: Detections, ground_truth: Annotations, label: np.int64) -> float:
    """IoU of the best-scored box of a class with the nearest object of it; 0 where there is no such box."""
    of_class = np.flatnonzero(found.labels == label)
    if not len(of_class):
        return 0.0
    best = of_class[found.ranking_scores[of_class].argmax()]
    return float(iou(found.boxes[[best]], ground_truth.boxes[ground_truth.labels == label]).max())
