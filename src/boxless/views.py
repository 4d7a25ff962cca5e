"""Views: the sizes and mirrorings in which an image is given to a network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import FloatArray

if TYPE_CHECKING:
    from boxless.config import ViewConfig


@dataclass(frozen=True)
class View:
    """One way to give an image to the network.

    Args:
        scale: longest side in pixels.
        flipped: whether it is mirrored left to right.
    """

    scale: int
    flipped: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in this view of an image of `width` x `height` pixels."""
        factor = self.scale / max(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This view of an image (h, w, 3) uint8: resized and mirrored, (h', w', 3) uint8."""
        size = self.size(image.shape[1], image.shape[0])
        shrinks = size[0] < image.shape[1]
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.ascontiguousarray(resized[:, ::-1] if self.flipped else resized, np.uint8)

    def boxes(self, boxes: FloatArray, width: int, height: int) -> FloatArray:
        """Move boxes (N, 4), xyxy pixels of an image of `width` x `height`, into the pixels of this view."""
        view_width, view_height = self.size(width, height)
        moved = boxes * np.array([view_width / width, view_height / height] * 2, np.float32)
        if self.flipped:
            # Rounding may have moved the right edge of the image beyond that of the view.
            moved[:, [0, 2]] = np.maximum(view_width - moved[:, [2, 0]], 0)
        return moved

    def restore(self, boxes: FloatArray, width: int, height: int) -> FloatArray:
        """Move boxes (N, 4), xyxy pixels of this view, back into the pixels of the image: the inverse of `boxes`."""
        view_width, view_height = self.size(width, height)
        moved = boxes.copy()
        if self.flipped:
            moved[:, [0, 2]] = view_width - moved[:, [2, 0]]
        return np.asarray(moved * np.array([width / view_width, height / view_height] * 2, np.float32), np.float32)


def views_of(config: "ViewConfig") -> tuple[View, ...]:
    """Every view of a configuration, mirrored ones after plain ones."""
    flips = (False, True) if config.flips else (False,)
    return tuple(View(scale, flipped) for flipped in flips for scale in config.scales)
