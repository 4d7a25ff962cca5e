"""Localisation by one point: whether the peak of a class's heatmap lies on an object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.metrics.voc import ranked_ap
from boxless.structures import Annotations

TOLERANCE = 18
"""Pixels by which a ground-truth box grows on each side: the stride of the map in Oquab et al. 2015."""


def pointing_ap(
    points: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]], annotations: Sequence[Annotations]
) -> NDArray[np.float64]:
    """Localisation AP of every class (Oquab, Bottou, Laptev, Sivic, CVPR 2015).

    Every image has one point per class, ranked by the class's score. It is correct if it lies in a ground-truth box of
    the class, difficult or not, grown by `TOLERANCE` on each side. A point elsewhere is a false positive, whether the
    image shows the class or not; in an image that shows it, it also lowers the recall. Recall counts the images that
    show the class; those whose only objects of it are difficult are left out. AP is VOC's area convention.

    Args:
        points: (N, classes, 2), x and y of the pixel where each class's heatmap, scaled to the image, is highest; NaN
            lies in no box.
        scores: (N, classes), higher where the class is more likely in the image.
        annotations: ground truth of the N images.

    Returns:
        (classes,) float64 in [0, 1]; NaN where no image shows the class.

    Raises:
        ValueError: the arguments differ in the number of images.
    """
    correct, shown, annotated = (np.zeros(scores.shape, np.bool_) for _ in range(3))
    for row, (ground_truth, peaks) in enumerate(zip(annotations, points, strict=True)):
        x, y = peaks[ground_truth.labels].T
        left, top, right_edge, bottom = ground_truth.boxes.T
        inside = (x >= left - TOLERANCE) & (x < right_edge + TOLERANCE)
        inside &= (y >= top - TOLERANCE) & (y < bottom + TOLERANCE)
        correct[row, ground_truth.labels[inside]] = True
        shown[row, ground_truth.labels[~ground_truth.ignore]] = True
        annotated[row, ground_truth.labels] = True
    evaluated = shown | ~annotated
    return np.array(
        [
            ranked_ap(scores[rows, label], correct[rows, label], int(shown[:, label].sum()))["area"]
            for label, rows in enumerate(evaluated.T)
        ]
    )
