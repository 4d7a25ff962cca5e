"""How bright a heatmap must be to belong to the object, told by whether two scales agree: no box is looked at."""

from collections.abc import Mapping

import numpy as np
import torch
from torchvision.ops import box_iou

from boxless.structures import FloatArray

THRESHOLDS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56)
"""Fractions of a heatmap's maximum that are tried."""
DEFAULT_THRESHOLD = 0.1
"""The threshold where nothing tells a better one."""
SCALE = 1.375
"""Of the second look over the first."""
SHARPNESS = 50
"""How much better agreement counts: 0.02 more is e times the weight."""


def agreement(boxes: FloatArray, others: FloatArray) -> float:
    """Mean IoU of pairs beyond what chance brings, relative to what is possible beyond it (Cohen's kappa).

    A threshold that lets every box fill the image makes all agree, and one image's box with any other's.

    Args:
        boxes: (N, 4), xyxy in fractions of the image, N at least 2.
        others: (N, 4), of the same objects.
    """
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).double().numpy()
    same, pairs = overlaps.diagonal().mean(), len(boxes) * (len(boxes) - 1)
    chance = (overlaps.sum() - overlaps.diagonal().sum()) / pairs
    return float((same - chance) / max(1 - chance, 1e-9))


def consistent_threshold(boxes: Mapping[float, tuple[FloatArray, FloatArray]]) -> float:
    """The geometric mean of the thresholds, each weighted by how well the boxes of the two scales agree with it.

    The mean rather than the best, as agreement changes little from one threshold to the next.

    Args:
        boxes: threshold -> boxes of the same objects at both scales, as `agreement` takes them.
    """
    values = np.array([agreement(*pair) for pair in boxes.values()])
    weights = np.exp(SHARPNESS * (values - values.max()))
    return float(np.exp(np.average(np.log(list(boxes)), weights=weights)))
