"""The proposal generators by name, and the size filters applied to the boxes of all of them."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from boxless.proposals.grid import grid
from boxless.proposals.grouping import grouping
from boxless.proposals.selective_search import selective_search
from boxless.registry import Registry
from boxless.structures import FloatArray

Generator = Callable[[NDArray[np.uint8], int], FloatArray]
"""Takes an image (h, w, 3) uint8, RGB, and `ProposalConfig.size`, the longest side in pixels at which to segment it.
Returns (N, 4) float32, xyxy pixels of the image, deterministic. It runs in threads, so it should release the GIL."""


class Proposing(Protocol):
    """How proposals are made; `config.ProposalConfig` describes it."""

    @property
    def generator(self) -> str:
        """A name in `GENERATORS`."""

    @property
    def size(self) -> int:
        """Longest side in pixels at which regions are grouped."""

    @property
    def min_side(self) -> int:
        """Shortest side of a proposal, in pixels of the image."""

    @property
    def min_area(self) -> float:
        """Smallest area of a proposal, as a fraction of the image."""


GENERATORS: Registry[Generator] = Registry("proposal generator")
GENERATORS.update({"grouping": grouping, "selective_search": selective_search, "grid": grid})


def generate(image: NDArray[np.uint8], config: Proposing) -> FloatArray:
    """All boxes of a generator and the whole image, unfiltered.

    Args:
        image: (h, w, 3) uint8, RGB.
        config: the generator and its size.

    Returns:
        (N, 4) float32, xyxy pixels, N >= 1, sorted, without duplicates.

    Raises:
        BoxlessError: no generator has this name.
    """
    height, width = image.shape[:2]
    boxes = GENERATORS.find(config.generator)(image, config.size)
    whole = np.array([[0, 0, width, height]], np.float32)
    return np.unique(np.concatenate([boxes, whole]), axis=0)


def select(boxes: FloatArray, config: Proposing) -> FloatArray:
    """Keep the boxes that are large enough, and the whole image, so that every image has a proposal.

    WSDDN (Bilen and Vedaldi, CVPR 2016) drops sides under 20 pixels. Boxes of small area lead to detections of parts.

    Args:
        boxes: (N, 4) float32, xyxy pixels, from `generate`.
        config: `min_side` in pixels, `min_area` as a fraction of the image.
    """
    size = boxes[:, 2:].max(axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides.min(axis=1) >= config.min_side) & (sides.prod(axis=1) >= config.min_area * size.prod())
    kept: FloatArray = boxes[keep | (sides == size).all(axis=1)]
    return kept


def propose(image: NDArray[np.uint8], config: Proposing) -> FloatArray:
    """Proposals of one image: `generate`, then `select`."""
    return select(generate(image, config), config)
