"""From heatmaps to boxes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import FloatArray


def largest_component_box(heatmap: FloatArray, size: tuple[int, int], threshold: float) -> FloatArray:
    """The box around a heatmap's largest bright region (CAM; Zhou et al., CVPR 2016, section 3.2).

    The map is enlarged to the picture; of the pixels of at least `threshold` times its maximum the largest 8-connected
    component is taken. A map that is nowhere positive gives the whole picture.

    Args:
        heatmap: (h, w), spans the whole picture; what is below zero speaks against the class.
        size: width and height of the picture in pixels.
        threshold: in (0, 1).

    Returns:
        (4,) float32, xyxy pixels.
    """
    enlarged = enlarge(heatmap, size)
    if enlarged.max() <= 0:
        return np.array([0, 0, *size], np.float32)
    bright = (enlarged >= threshold * enlarged.max()).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    left, top, width, height, _ = statistics[1 + statistics[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([left, top, left + width, top + height], np.float32)


def enlarge(heatmap: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bilinear interpolation of a map (h, w) that spans the picture to `size` (width, height)."""
    return np.asarray(cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR), np.float32)


def proposal_heatmap(boxes: FloatArray, scores: FloatArray, size: tuple[int, int], cell: int = 8) -> FloatArray:
    """For every cell the sum of the scores of the proposals that cover its centre, normalised to a maximum of one.

    Args:
        boxes: (N, 4), xyxy pixels.
        scores: (N, classes).
        size: width and height of the picture in pixels.
        cell: side of a cell in pixels.

    Returns:
        (classes, h, w) float32.
    """
    columns, rows = (max(1, round(side / cell)) for side in size)
    scale = np.array([columns / size[0], rows / size[1]] * 2)
    left, top, right, bottom = np.clip(np.ceil(boxes * scale - 0.5), 0, [columns, rows] * 2).astype(np.int64).T
    # A box is four corners of a table whose running sums along both axes fill it in: no loop over boxes.
    table: NDArray[np.float64] = np.zeros((rows + 1, columns + 1, scores.shape[1]))
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(table, (y, x), sign * scores)
    maps = table.cumsum(0).cumsum(1)[:rows, :columns].transpose(2, 0, 1)
    return np.asarray(maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12), np.float32)
