"""A dense grid of boxes at several scales and aspect ratios: sliding windows, at almost no cost."""

import itertools

import numpy as np
from numpy.typing import NDArray

from boxless.structures import FloatArray

SCALES = (0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.0)
"""Square root of a box's area over that of the image; a factor of 1.4 gives neighbouring scales an IoU of 0.5."""
RATIOS = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)
"""Width over height."""
STEP = 0.4
"""Distance between neighbouring boxes as a fraction of their side."""


def grid(image: NDArray[np.uint8], size: int) -> FloatArray:
    """Boxes of every scale and ratio that fit, evenly spaced from edge to edge.

    Args:
        image: (h, w, 3); only its shape matters.
        size: unused; other generators take it.

    Returns:
        (N, 4) float32, xyxy pixels.
    """
    height, width = image.shape[:2]
    root = np.sqrt(width * height)
    boxes = []
    for scale, ratio in itertools.product(SCALES, RATIOS):
        w, h = min(scale * root * np.sqrt(ratio), width), min(scale * root / np.sqrt(ratio), height)
        lefts = np.linspace(0, width - w, 1 + int(np.ceil((width - w) / (STEP * w))))
        tops = np.linspace(0, height - h, 1 + int(np.ceil((height - h) / (STEP * h))))
        x, y = (corner.ravel() for corner in np.meshgrid(lefts, tops))
        boxes.append(np.stack([x, y, x + w, y + h], axis=1))
    # Rounding makes boxes equal that differ in the last bit only.
    return np.unique(np.concatenate(boxes).round(3).astype(np.float32), axis=0)
