"""Segmentation at a limited size, and its boxes scaled back to the image."""

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import FloatArray


def shrink(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale an image (h, w, 3) down to a longest side of at most `size` pixels; smaller images are not enlarged."""
    height, width = image.shape[:2]
    factor = min(1.0, size / max(height, width))
    shrunk = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)


def scale_boxes(boxes: NDArray[np.float64], source: NDArray[np.uint8], target: NDArray[np.uint8]) -> FloatArray:
    """Scale boxes (N, 4) from pixels of one image to pixels of the same image in another size."""
    (height, width), (new_height, new_width) = source.shape[:2], target.shape[:2]
    # Multiplied first and in double precision, a box that ends at the edge ends exactly there afterwards.
    return np.asarray(boxes * ([new_width, new_height] * 2) / ([width, height] * 2), np.float32)
