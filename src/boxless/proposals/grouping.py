"""Grouping: a compiled variant of Selective Search (Uijlings et al., IJCV 2013).

A segmentation (Felzenszwalb and Huttenlocher, IJCV 2004) takes ten times as long as a hierarchy of its regions.
Therefore the image is segmented once per colour space, and each segmentation is grouped four times, each time with
another similarity measure. Boxes that nearly duplicate a box of a coarser level are dropped.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.proposals.scaling import scale_boxes, shrink
from boxless.structures import FloatArray

REVISION = 2
"""Part of the cache key; increment it with every change to the boxes."""
SMOOTHING = 0.8
"""Standard deviation in pixels of the blur before segmentation."""
SCALE = 1 / 800
"""Felzenszwalb and Huttenlocher's k over the number of pixels: 150 for 400 x 300, with colours from 0 to 255."""
MAX_REGIONS = 1600
"""Regions of a segmentation: those with less than this fraction of the pixels are merged into a neighbour."""
DUPLICATE_IOU = 0.92
"""A box whose IoU with an earlier one is higher than this is dropped."""
MAX_BOXES = 1390
"""Boxes of an image."""


def grouping(image: NDArray[np.uint8], size: int) -> FloatArray:
    """Proposals from hierarchies of regions: three colour spaces, four similarity measures.

    Args:
        image: (h, w, 3) uint8, RGB.
        size: longest side in pixels at which regions are grouped; smaller images are not enlarged.

    Returns:
        (N, 4) float32, xyxy pixels of the image, N <= MAX_BOXES; those of coarse levels of the hierarchies first.
    """
    # Numba takes a quarter of a second to import, and some seconds to compile.
    from boxless.proposals.compiled import suppress

    small = shrink(image, size)
    hierarchies = [hierarchy for plane in _colour_spaces(small) for hierarchy in _hierarchies(plane)]
    boxes, levels = (np.concatenate(parts) for parts in zip(*hierarchies, strict=True))
    boxes = boxes[np.argsort(levels, kind="stable")]
    kept = boxes[suppress(boxes, DUPLICATE_IOU, MAX_BOXES)].astype(np.float64)
    return scale_boxes(kept, small, image)


def _colour_spaces(image: NDArray[np.uint8]) -> list[FloatArray]:
    """HSV, Lab and RGB: (h, w, 3) float32 from 0 to 255, blurred; a* and b* around 128 may go beyond."""
    rgb = image.astype(np.float32) / 255
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV) * np.array([255 / 360, 255, 255], np.float32)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab) * np.float32(2.55) + np.array([0, 128, 128], np.float32)
    return [np.asarray(cv2.GaussianBlur(plane, (0, 0), SMOOTHING), np.float32) for plane in (hsv, lab, rgb * 255)]


def _hierarchies(plane: FloatArray) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Boxes and levels by colour, by texture, by contrast, and by size and fill alone."""
    from boxless.proposals.compiled import UNIT, boundaries, describe, group, segment

    pixels = plane.shape[0] * plane.shape[1]
    labels, count = segment(plane, SCALE * pixels, pixels // MAX_REGIONS)
    sizes, boxes, colours, textures = describe(plane, labels, count)
    lengths, steps = boundaries(plane, labels, count)
    colours, textures = ((counts * (UNIT / (3 * sizes[:, None]))).astype(np.int32) for counts in (colours, textures))
    nothing = np.empty((count, 0), np.int32)
    measures = ((colours, False), (textures, False), (nothing, True), (nothing, False))
    return [group(sizes, boxes, histograms, lengths, steps, contrast) for histograms, contrast in measures]
