"""Selective Search: hierarchical grouping of regions (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.structures import FloatArray

# The caller spreads images over the cores; OpenCV's own threads would only get in their way.
cv2.setNumThreads(1)


def selective_search(image: NDArray[np.uint8], size: int, mode: str) -> FloatArray:
    """Proposals of OpenCV's Selective Search, in a fixed order.

    OpenCV draws the order of its proposals at random; the set is the same at every call, so it is sorted.

    Args:
        image: (h, w, 3) uint8, RGB.
        size: longest side in pixels at which regions are grouped; smaller images are not enlarged.
        mode: `fast` or `quality`.

    Returns:
        (N, 4) float32, xyxy pixels of the image.
    """
    height, width = image.shape[:2]
    factor = min(1.0, size / max(height, width))
    small_width, small_height = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    if not hasattr(cv2, "ximgproc"):
        raise BoxlessError(
            "OpenCV came without its contrib modules, as another OpenCV package took its place: "
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
    # Multiplied first and in double precision, a box that ends at the edge ends there to the bit.
    scaled = np.stack([x, y, x + w, y + h], axis=1) * ([width, height] * 2) / ([small_width, small_height] * 2)
    return np.asarray(scaled, np.float32)
