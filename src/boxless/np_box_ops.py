"""Areas and overlap of boxes as NumPy arrays; `methods.box_ops` has what is computed on tensors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def iou(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`.

    VOC's devkit adds 1 to every width and height, because its corners are 1-based and inclusive. Such a box
    (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax, ymax) here, where plain differences give the same widths and
    heights; hence no +1 anywhere, and the same IoU.

    Args:
        a: (N, 4), xyxy pixels, right and bottom exclusive.
        b: (M, 4), likewise.

    Returns:
        (N, M) float64 in [0, 1]; 0 for boxes without area.
    """
    shared = _intersections(a, b)
    union = areas(a)[:, None] + areas(b)[None] - shared
    overlaps = np.zeros_like(shared)
    np.divide(shared, union, out=overlaps, where=union > 0)
    return overlaps


def coverage(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The intersection of every box of `a` with every box of `b`, as a share of the area of the box of `a`.

    Args:
        a: (N, 4), xyxy pixels, right and bottom exclusive.
        b: (M, 4), likewise.

    Returns:
        (N, M) float64 in [0, 1]; 0 for boxes without area.
    """
    shared, area = _intersections(a, b), areas(a)[:, None]
    shares = np.zeros_like(shared)
    np.divide(shared, area, out=shares, where=area > 0)
    return shares


def areas(boxes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Area of every box (N, 4), xyxy pixels, right and bottom exclusive: (N,) float64 square pixels."""
    corners = boxes.astype(np.float64)
    return _areas(corners[:, :2], corners[:, 2:])


def _intersections(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None, :]
    return _areas(np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:]))


def _areas(top_left: NDArray[np.float64], bottom_right: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(bottom_right - top_left, 0)
    return sides[..., 0] * sides[..., 1]
