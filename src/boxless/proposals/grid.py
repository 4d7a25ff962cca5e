"""A dense grid of boxes at several scales and aspect ratios: sliding windows, as good as free."""

import itertools

import numpy as np

from boxless.structures import FloatArray

SCALES = (0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.0)
"""Square root of a box's area over that of the image; a factor of 1.4 keeps the IoU of neighbours at a half."""
RATIOS = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)
"""Width over height."""
STEP = 0.4
"""Distance of neighbours as a fraction of the box's side."""


def grid(width: int, height: int) -> FloatArray:
    """Boxes of every scale and ratio that fit, spread evenly from edge to edge.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        (N, 4) float32, xyxy pixels.
    """
    root = np.sqrt(width * height)
    boxes = []
    for scale, ratio in itertools.product(SCALES, RATIOS):
        w, h = min(scale * root * np.sqrt(ratio), width), min(scale * root / np.sqrt(ratio), height)
        lefts = np.linspace(0, width - w, 1 + int(np.ceil((width - w) / (STEP * w))))
        tops = np.linspace(0, height - h, 1 + int(np.ceil((height - h) / (STEP * h))))
        x, y = (corner.ravel() for corner in np.meshgrid(lefts, tops))
        boxes.append(np.stack([x, y, x + w, y + h], axis=1))
    # Rounded, as sides that differ by the last bit would make the same box twice.
    return np.unique(np.concatenate(boxes).round(3).astype(np.float32), axis=0)
