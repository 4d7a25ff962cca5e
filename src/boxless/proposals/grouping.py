"""Grouping: Selective Search's idea (Uijlings et al., IJCV 2013), compiled, and spent where it pays.

A segmentation (Felzenszwalb and Huttenlocher, IJCV 2004) costs ten times what a hierarchy of its regions costs. So the
image is segmented once a colour space, and every segmentation is grouped in several ways that differ in one cue each.
Boxes that nearly repeat one of a coarser level are dropped.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import FloatArray

# The caller spreads images over the cores; OpenCV's own threads would only get in their way.
cv2.setNumThreads(1)

REVISION = 2
"""Of the boxes that are found; raised with every change to them, so that stored ones are not taken for them."""
SMOOTHING = 0.8
"""Standard deviation in pixels before segmentation."""
SCALE = 1 / 800
"""Felzenszwalb and Huttenlocher's k over the number of pixels: 150 for 400 x 300, with colours from 0 to 255."""
REGIONS = 1600
"""Most regions of a segmentation: what is smaller than this part of the image joins a neighbour."""
OVERLAP = 0.92
"""IoU from which on a box repeats another."""
MOST = 1390
"""Boxes of an image."""


def grouping(image: NDArray[np.uint8], size: int) -> FloatArray:
    """Proposals from hierarchies of regions: three colour spaces, four ways to say what is alike.

    Args:
        image: (h, w, 3) uint8, RGB.
        size: longest side in pixels at which regions are grouped; smaller images are not enlarged.

    Returns:
        (N, 4) float32, xyxy pixels of the image, N <= MOST; those of coarse levels of the hierarchies first.
    """
    # Numba takes a quarter of a second to import, and some seconds to compile, once on a machine.
    from boxless.proposals.compiled import suppress

    height, width = image.shape[:2]
    factor = min(1.0, size / max(height, width))
    small_width, small_height = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA), np.uint8)
    hierarchies = [hierarchy for plane in _colour_spaces(small) for hierarchy in _hierarchies(plane)]
    boxes, levels = (np.concatenate(parts) for parts in zip(*hierarchies, strict=True))
    boxes = boxes[np.argsort(levels, kind="stable")]
    boxes = boxes[suppress(boxes, OVERLAP, MOST)].astype(np.float64)
    # Multiplied first and in double precision, a box that ends at the edge ends there to the bit.
    return np.asarray(boxes * ([width, height] * 2) / ([small_width, small_height] * 2), np.float32)


def _colour_spaces(image: NDArray[np.uint8]) -> list[FloatArray]:
    """HSV, Lab and RGB: (h, w, 3) float32 from 0 to 255 and smoothed; a* and b* around 128 may go beyond."""
    rgb = image.astype(np.float32) / 255
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV) * np.array([255 / 360, 255, 255], np.float32)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab) * np.float32(2.55) + np.array([0, 128, 128], np.float32)
    return [np.asarray(cv2.GaussianBlur(plane, (0, 0), SMOOTHING), np.float32) for plane in (hsv, lab, rgb * 255)]


def _hierarchies(plane: FloatArray) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Boxes and levels of a colour space, by colour, texture, contrast, and by size and fill alone."""
    from boxless.proposals.compiled import UNIT, boundaries, describe, group, segment

    pixels = plane.shape[0] * plane.shape[1]
    labels, count = segment(plane, SCALE * pixels, pixels // REGIONS)
    sizes, boxes, colours, textures = describe(plane, labels, count)
    lengths, steps = boundaries(plane, labels, count)
    colours, textures = ((counts * (UNIT / (3 * sizes[:, None]))).astype(np.int32) for counts in (colours, textures))
    nothing = np.empty((count, 0), np.int32)
    cues = ((colours, False), (textures, False), (nothing, True), (nothing, False))
    return [group(sizes, boxes, histograms, lengths, steps, contrast) for histograms, contrast in cues]
