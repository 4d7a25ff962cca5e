"""Which images are the same to the eye, and which are of one scene: a perceptual hash and a closer look.

Mirrored, turned and much cropped copies are not found.
"""

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import BoolArray, FloatArray, IntArray

BITS = 255
"""Length of a hash."""
ALIKE = 32
"""Most bits in which images of one scene differ.

Measured on the animals benchmark and the playing cards, 70 images each: copies that were re-encoded, scaled or
blurred differ in at most 14 bits; those brightened, or cropped by 1 % on each side, in 8 and 14 at the median and 34 at
most; cards photographed twice, a moment apart, in 10 to 20. The likest of all 4 million pairs of different VOC
photographs differ in 86, another card laid on the same spot of the same carpet in 52.
"""
SAME = 12
"""Most grey levels by which copies differ anywhere.

19 of 20 copies of those images differ by less than 3 if re-encoded or blurred, 7 at half and 11 at a quarter of the
size; the cards photographed twice by 16 and more; a disk a twentieth of the image wide, in two places, by 17.
"""
SCENE = 10
"""Most files of a scene that are compared for copies.

Where more look alike it is a fixed camera's scene, whose images differ in small things that matter.
"""
_BLOCK = 1024


def thumbnail(image: NDArray[np.uint8]) -> FloatArray:
    """The image in grey, blurred against aliasing and scaled to (32, 32) float32, 0 to 255.

    Args:
        image: (h, w, 3) uint8, RGB.
    """
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 4)
    return np.asarray(cv2.resize(blurred, (32, 32), interpolation=cv2.INTER_AREA), np.float32)


def image_hash(thumb: FloatArray) -> BoolArray:
    """Which of the 255 lowest frequencies of a thumbnail, without its mean, are above their median: (255,) bool.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1 (DCT),
    with four times the bits.
    """
    low = cv2.dct(thumb)[:16, :16].ravel()[1:]
    return np.asarray(low > np.median(low), np.bool_)


def group_alike(hashes: BoolArray) -> IntArray:
    """Put images whose hashes differ in at most `ALIKE` bits into one group.

    All pairs are compared, in blocks of a matrix product: of 10,000 images in a second or two, a small part of the
    time it takes to read them.

    Args:
        hashes: (N, 255) bool.

    Returns:
        (N,) int64: for each image the row of its group's first one, which is its own row where it is alone.
    """
    groups = np.arange(len(hashes))
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    for start in range(0, len(hashes), _BLOCK):
        rows = signs[start : start + _BLOCK]
        distances = (BITS - rows @ signs[: start + _BLOCK].T) / 2
        # The first image that is alike comes at the latest with the row itself, so its group is known by then.
        for row, first in enumerate((distances <= ALIKE).argmax(axis=1), start):
            groups[row] = groups[first]
    return groups


def group_same(alike: IntArray, thumbs: Sequence[FloatArray]) -> IntArray:
    """Split groups of images that look alike into those that show the same, but for a change of light.

    Args:
        alike: (N,) int64, from `group_alike`.
        thumbs: N thumbnails.

    Returns:
        (N,) int64, as `alike`; in a group of more than `SCENE` each is alone.
    """
    same = np.arange(len(alike))
    scenes = defaultdict(list)
    for row, group in enumerate(alike.tolist()):
        scenes[group].append(row)
    for rows in scenes.values():
        if len(rows) <= SCENE:
            for number, row in enumerate(rows):
                same[row] = next(
                    (same[one] for one in rows[:number] if _difference(thumbs[row], thumbs[one]) <= SAME), row
                )
    return same


def _difference(one: FloatArray, other: FloatArray) -> float:
    """Where they differ most, in grey levels, once brightness and contrast of `one` are fitted to `other`."""
    x, y = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    contrast = np.cov(x, y)[0, 1] / max(x.var(ddof=1), 1e-9)
    return float(np.abs(contrast * (x - x.mean()) + y.mean() - y).max())
