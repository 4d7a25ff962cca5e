"""One door to all proposal generators, and the filters they share."""

import numpy as np
from numpy.typing import NDArray

from boxless.config import ProposalConfig
from boxless.proposals.grid import grid
from boxless.proposals.grouping import grouping
from boxless.proposals.selective_search import selective_search
from boxless.structures import FloatArray


def generate(image: NDArray[np.uint8], config: ProposalConfig) -> FloatArray:
    """All boxes of a generator and the whole image, unfiltered, the same at every call.

    Args:
        image: (h, w, 3) uint8, RGB.
        config: which generator, and its settings.

    Returns:
        (N, 4) float32, xyxy pixels, N >= 1, no two the same.
    """
    height, width = image.shape[:2]
    match config.generator:
        case "grouping":
            boxes = grouping(image, config.size)
        case "selective_search":
            boxes = selective_search(image, config.size, config.mode)
        case "grid":
            boxes = grid(width, height)
    whole = np.array([[0, 0, width, height]], np.float32)
    return np.unique(np.concatenate([boxes, whole]), axis=0)


def select(boxes: FloatArray, config: ProposalConfig) -> FloatArray:
    """The boxes that are large enough: WSDDN drops sides under 20 px; tiny areas feed part detectors.

    The whole image always stays, so that no image is without a proposal.

    Args:
        boxes: (N, 4) float32, xyxy pixels, as `generate` gives them.
        config: `min_side` in pixels, `min_area` as a fraction of the image.
    """
    size = boxes[:, 2:].max(axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides.min(axis=1) >= config.min_side) & (sides.prod(axis=1) >= config.min_area * size.prod())
    kept: FloatArray = boxes[keep | (sides == size).all(axis=1)]
    return kept


def propose(image: NDArray[np.uint8], config: ProposalConfig) -> FloatArray:
    """Proposals of one image: `generate`, then `select`."""
    return select(generate(image, config), config)
