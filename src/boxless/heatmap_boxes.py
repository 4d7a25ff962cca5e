"""Heatmaps and the boxes around them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import FloatArray

CAM_WEIGHT = 1.0
"""Weight of the log of a CAM beside the log odds of objectness."""
CELLS = 64
"""Cells of the longest side of the map on which proposals are compared."""


def largest_component_box(heatmap: FloatArray, size: tuple[int, int], threshold: float) -> FloatArray:
    """The CAM box: around the largest component of high response (CAM; Zhou et al., CVPR 2016, section 3.2).

    The map is resized to the image; of the pixels of at least `threshold` times its maximum the largest 8-connected
    component is taken. A map without a positive response gives the whole image.

    Args:
        heatmap: (h, w), spans the whole image; values below zero are evidence against the class.
        size: width and height of the image in pixels.
        threshold: in (0, 1).

    Returns:
        (4,) float32, xyxy pixels.
    """
    resized = resize_map(heatmap, size)
    if resized.max() <= 0:
        return np.array([0, 0, *size], np.float32)
    strong = (resized >= threshold * resized.max()).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    left, top, width, height, _ = statistics[1 + statistics[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([left, top, left + width, top + height], np.float32)


def objectness_box(heatmap: FloatArray, objectness: FloatArray, size: tuple[int, int], threshold: float) -> FloatArray:
    """The CAM box with objectness: around the component of object locations that has the largest CAM response.

    The log odds of objectness are shifted by the log of the heatmap over `threshold` times its maximum. Of the
    8-connected components of locations that are likelier object than background the one with the largest sum of the
    heatmap is taken; without any the box is that of `largest_component_box`.

    Args:
        heatmap: (h, w), spans the whole image; values below zero are evidence against the class.
        objectness: (h, w), log odds that a location is on an object of any class.
        size: width and height of the image in pixels.
        threshold: in (0, 1).

    Returns:
        (4,) float32, xyxy pixels.
    """
    if heatmap.max() <= 0:
        return np.array([0, 0, *size], np.float32)
    relative = np.maximum(heatmap / heatmap.max(), 1e-3)
    odds = objectness + CAM_WEIGHT * np.log(relative / threshold)
    # Probabilities are resized, as the log odds of one very certain cell would shift the edge beside it.
    likely = (resize_map(1 / (1 + np.exp(-odds)), size) >= 0.5).astype(np.uint8)
    number, components, statistics, _ = cv2.connectedComponentsWithStats(likely, connectivity=8)
    if number == 1:
        return largest_component_box(heatmap, size, threshold)
    response = np.maximum(resize_map(heatmap, size), 0)
    sums = np.bincount(components.ravel(), response.ravel(), minlength=number)
    left, top, width, height, _ = statistics[1 + sums[1:].argmax()]
    return np.array([left, top, left + width, top + height], np.float32)


def separating_proposal(heatmap: FloatArray, proposals: FloatArray, size: tuple[int, int]) -> int:
    """The proposal that separates a map best into high inside and low outside, by Otsu's criterion.

    The between-class variance of the values inside and outside a box, in place of those above and below a threshold
    (Otsu, IEEE Transactions on Systems, Man, and Cybernetics, 1979, equation 14). Neither the scale of the map nor its
    zero matters.

    Args:
        heatmap: (h, w), spans the whole image.
        proposals: (N, 4), xyxy pixels, N at least 1.
        size: width and height of the image in pixels.

    Returns:
        Its row; 0 where no proposal has a higher mean inside than outside.
    """
    cells = max(1, round(CELLS * size[0] / max(size))), max(1, round(CELLS * size[1] / max(size)))
    table = np.pad(resize_map(heatmap, cells).astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    scaled = np.rint(proposals * (np.array([*cells, *cells]) / np.array([*size, *size]))).astype(np.int64)
    # Of a proposal smaller than a cell the cell that it lies in is taken.
    left, top = (np.minimum(scaled[:, axis], cells[axis] - 1) for axis in (0, 1))
    right, bottom = np.maximum(scaled[:, 2], left + 1), np.maximum(scaled[:, 3], top + 1)
    sums = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    inside = (right - left) * (bottom - top)
    outside = cells[0] * cells[1] - inside
    contrast = sums / inside - (table[-1, -1] - sums) / np.maximum(outside, 1)
    return int((np.maximum(contrast, 0) ** 2 * inside * outside).argmax())


def resize_map(heatmap: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bilinear interpolation of a map (h, w) that spans the image to `size` (width, height)."""
    return np.asarray(cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR), np.float32)


def proposal_heatmap(boxes: FloatArray, scores: FloatArray, size: tuple[int, int], cell: float = 8) -> FloatArray:
    """For every cell the sum of the scores of the proposals that cover its centre, normalised to a maximum of one.

    Args:
        boxes: (N, 4), xyxy pixels.
        scores: (N, classes).
        size: width and height of the image in pixels.
        cell: side of a cell in pixels.

    Returns:
        (classes, h, w) float32.
    """
    columns, rows = (max(1, round(side / cell)) for side in size)
    scale = np.array([columns / size[0], rows / size[1]] * 2)
    left, top, right, bottom = np.clip(np.ceil(boxes * scale - 0.5), 0, [columns, rows] * 2).astype(np.int64).T
    # A summed-area table: each box adds its four corners, and cumulative sums along both axes fill it in.
    table: NDArray[np.float64] = np.zeros((rows + 1, columns + 1, scores.shape[1]))
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(table, (y, x), sign * scores)
    maps = table.cumsum(0).cumsum(1)[:rows, :columns].transpose(2, 0, 1)
    return np.asarray(maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12), np.float32)
