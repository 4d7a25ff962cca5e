"""Near duplicates by a perceptual hash, duplicates among them by comparing thumbnails, and details that differ.

Copies turned by quarters and mirrored ones are found, too; others, and strongly cropped ones, are not.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.structures import BoolArray, FloatArray, IntArray

BITS = 255
"""Length of a hash."""
MAX_SCENE_BITS = 32
"""Bits in which hashes of one scene may differ.

Measured on the animals benchmark and the playing cards, 70 images each: copies that were re-encoded, scaled or
blurred differ in at most 14 bits; those brightened, or cropped by 1 % on each side, in 8 and 14 at the median and 34 at
most; cards photographed twice, a moment apart, in 10 to 20. The most similar of all 4 million pairs of different VOC
photographs differ in 86, in the best of eight orientations in 74, another card on the same spot of the same carpet
in 52.
"""
MAX_DUPLICATE_DIFFERENCE = 12
"""Grey levels by which thumbnails of duplicates may differ at any pixel.

19 of 20 copies of those images differ by less than 3 if re-encoded or blurred, 7 at half and 11 at a quarter of the
size; the cards photographed twice by 16 and more; a disk of 5 % of the image width at two positions, by 17.
"""
TURNS = 8
"""Orientations in which images are compared: four quarter turns, each mirrored and not."""
MIN_DETAIL = 18
"""Grey levels by which the mean of a small block differs where a detail does.

Of 150 images of the five development sets, scaled to 512 px: copies that were re-encoded or scaled differ by 15 at
most, those with a square of 2 % of the longest side made 40 levels brighter or darker by 40 at the median.
"""
MIN_DETAIL_RATIO = 8
"""How often that must be the difference that 95 % of the blocks stay below.

Of those images this holds for none of the blurred ones, 1 % of those cropped by 1 % on each side and 4 % of those
cropped by a pixel, and for all with a square of 3 % made 60 levels brighter or darker, also beneath noise of 6 levels.
"""
_DETAIL_SIDE, _DETAIL_BLOCK = 512, 8
"""Pixels of the longest side and of a block for these comparisons."""
MAX_SCENE_FILES = 10
"""Larger groups come from a fixed camera, and small differences between their images matter, or are many copies.

Of 125 images of the five sets, copies that were re-encoded, scaled to half or beneath noise of 5 levels: 98 % differ by
at most `MAX_COPY_DIFFERENCE`, and that is `MIN_COPY_DIFFERENCE` or at most `MAX_COPY_RATIO` times the difference that
95 % of the pixels stay below. This holds for 2 % of those with a square of 2 % of the longest side made 40 levels
brighter or darker beneath such noise, and for none with a larger one.
"""
MAX_COPY_DIFFERENCE, MIN_COPY_DIFFERENCE, MAX_COPY_RATIO = 3, 0.3, 5
_CANDIDATES = 5
"""Images of a large group, the most similar ones, that each is compared with."""
_BLOCK = 1024


def thumbnail(image: NDArray[np.uint8]) -> FloatArray:
    """The image in grey, blurred against aliasing and scaled to (32, 32) float32, values 0 to 255.

    Args:
        image: (h, w, 3) uint8, RGB.
    """
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 4)
    return np.asarray(cv2.resize(blurred, (32, 32), interpolation=cv2.INTER_AREA), np.float32)


def image_hash(thumb: FloatArray) -> BoolArray:
    """Whether each of the 255 lowest DCT coefficients of a thumbnail, without its mean, exceeds their median: (255,).

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1 (DCT),
    with four times the bits.
    """
    low = cv2.dct(thumb)[:16, :16].ravel()[1:]
    return np.asarray(low > np.median(low), np.bool_)


def turned(image: FloatArray) -> Iterator[FloatArray]:
    """A square image in its eight orientations, the first as it is."""
    for quarter in range(TURNS // 2):
        turn = np.rot90(image, quarter)
        yield from (np.ascontiguousarray(turn), np.ascontiguousarray(turn[:, ::-1]))


def turned_hashes(thumbs: Sequence[FloatArray]) -> BoolArray:
    """Hashes of thumbnails in their eight orientations: (8, N, 255)."""
    hashes = [[image_hash(turn) for turn in turned(thumb)] for thumb in thumbs]
    return np.array(hashes, np.bool_).reshape(-1, TURNS, BITS).swapaxes(0, 1)


def group_scenes(hashes: BoolArray) -> IntArray:
    """Group images whose hashes differ in at most `MAX_SCENE_BITS` bits in one of their orientations.

    All pairs are compared by matrix products of blocks: about five seconds for 10,000 images.

    Args:
        hashes: (orientations, N, 255) bool; the first orientation is that of the image.

    Returns:
        (N,) int64: for each image the row of the first image of its group, its own row if it is alone.
    """
    groups = np.arange(hashes.shape[1])
    upright = np.where(hashes[0], np.float32(1), np.float32(-1))
    for start in range(0, len(groups), _BLOCK):
        stop = start + _BLOCK
        others = upright[:stop].T
        near = np.zeros((len(groups[start:stop]), others.shape[1]), np.bool_)
        for turn in hashes[:, start:stop]:
            rows = np.where(turn, np.float32(1), np.float32(-1))
            # A product counts the equal bits less the others.
            near |= rows @ others >= BITS - 2 * MAX_SCENE_BITS
        # The first similar image is the row itself at the latest, so its group is known.
        for row, first in enumerate(near.argmax(axis=1), start):
            groups[row] = groups[first]
    return groups


def group_duplicates(scenes: IntArray, thumbs: Sequence[FloatArray], orientations: int = TURNS) -> IntArray:
    """Split the groups of `group_scenes` into groups of duplicates, which differ in brightness and contrast only.

    Args:
        scenes: (N,) int64, from `group_scenes`.
        thumbs: N thumbnails.
        orientations: how many of them are compared; 1 finds duplicates that are neither turned nor mirrored.

    Returns:
        (N,) int64, like `scenes`; in groups of more than `MAX_SCENE_FILES` less may differ.
    """
    duplicates = np.arange(len(scenes))
    groups = defaultdict(list)
    for row, group in enumerate(scenes.tolist()):
        groups[group].append(row)
    for rows in groups.values():
        if len(rows) > MAX_SCENE_FILES:
            duplicates[rows] = np.array(rows)[_group_copies([thumbs[row] for row in rows], orientations)]
            continue
        for number, row in enumerate(rows):
            turns = list(islice(turned(thumbs[row]), orientations))
            found = (one for one in rows[:number] if any(_is_same(turn, thumbs[one]) for turn in turns))
            duplicates[row] = duplicates[next(found, row)]
    return duplicates


def _group_copies(thumbs: Sequence[FloatArray], orientations: int) -> IntArray:
    """For each image of a large scene the row of the first of its copies.

    An image is compared with the first of the copies of those that are most similar to it, so that no group drifts.
    These are found by matrix products of blocks, as in `group_scenes`: a minute or two for 10,000 images of one scene.
    """
    copies = np.arange(len(thumbs))
    upright = _normalised(np.array(thumbs))
    for start in range(0, len(thumbs), _BLOCK):
        turns = np.array([list(islice(turned(thumb), orientations)) for thumb in thumbs[start : start + _BLOCK]])
        others = upright[: start + _BLOCK].T
        likeness = np.max([_normalised(turn) @ others for turn in turns.swapaxes(0, 1)], axis=0)
        for row, (own, like) in enumerate(zip(turns, likeness, strict=True), start):
            nearest = np.argsort(-like[:row], kind="stable")[:_CANDIDATES]
            firsts = dict.fromkeys(copies[nearest].tolist())
            found = (first for first in firsts if any(_is_copy(turn, thumbs[first]) for turn in own))
            copies[row] = next(found, row)
    return copies


def _normalised(thumbs: FloatArray) -> FloatArray:
    """Each thumbnail as a vector without mean, of unit length: (N, 1024)."""
    rows = thumbs.reshape(len(thumbs), -1) - thumbs.mean(axis=(1, 2))[:, None]
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def _is_same(one: FloatArray, other: FloatArray) -> bool:
    return float(np.abs(_difference(one, other)).max()) <= MAX_DUPLICATE_DIFFERENCE


def _is_copy(one: FloatArray, other: FloatArray) -> bool:
    """Whether two images differ by little, and nowhere by much more than elsewhere."""
    difference = np.abs(_difference(one, other))
    peak = float(difference.max())
    limit = max(MIN_COPY_DIFFERENCE, MAX_COPY_RATIO * float(np.percentile(difference, 95)))
    return peak <= min(MAX_COPY_DIFFERENCE, limit)


def _difference(one: FloatArray, other: FloatArray) -> NDArray[np.float64]:
    """The difference of two images in grey levels, after fitting brightness and contrast of `one` to `other`."""
    x, y = one.astype(np.float64), other.astype(np.float64)
    contrast = np.cov(x.ravel(), y.ravel())[0, 1] / max(x.var(ddof=1), 1e-9)
    return np.asarray(contrast * (x - x.mean()) + y.mean() - y)


def differ_in_detail(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two images of one scene differ in a small part, as an image with a defect from one without.

    Copies that were encoded, scaled, blurred or cropped differ a little in many places instead.

    Args:
        one, other: (h, w, 3) uint8, RGB; sizes may differ.
    """
    height, width = (min(sides) for sides in zip(one.shape[:2], other.shape[:2], strict=True))
    factor = min(1.0, _DETAIL_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (one, other)]
    x, y = (np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32) for grey in greys)
    blocks = np.abs(cv2.blur(_difference(x, y), (_DETAIL_BLOCK, _DETAIL_BLOCK)))
    peak = float(blocks.max())
    return peak > MIN_DETAIL and peak > MIN_DETAIL_RATIO * float(np.percentile(blocks, 95))
