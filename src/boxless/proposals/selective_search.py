"""Selective Search: hierarchical grouping of regions (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013)."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.proposals.scaling import scale_boxes, shrink
from boxless.structures import FloatArray


def selective_search(image: NDArray[np.uint8], size: int, mode: Literal["fast", "quality"] = "fast") -> FloatArray:
    """Proposals of OpenCV's Selective Search, sorted, since OpenCV returns the same boxes in random order.

    Args:
        image: (h, w, 3) uint8, RGB.
        size: longest side in pixels at which regions are grouped; smaller images are not enlarged.
        mode: the paper's `fast` or `quality` set of similarity measures and segmentations.

    Returns:
        (N, 4) float32, xyxy pixels of the image.

    Raises:
        BoxlessError: the installed OpenCV has no contrib modules.
    """
    small = shrink(image, size)
    if not hasattr(cv2, "ximgproc"):
        raise BoxlessError(
            "the installed OpenCV has no contrib modules, because another OpenCV package replaced it: "
            "pip uninstall opencv-python opencv-python-headless, then pip install --force-reinstall "
            "opencv-contrib-python-headless; or set proposals.generator=grid"
        )
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    x, y, w, h = np.unique(search.process(), axis=0).astype(np.float64).T
    return scale_boxes(np.stack([x, y, x + w, y + h], axis=1), small, image)
