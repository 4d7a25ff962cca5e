"""Images put together from pieces of others (mosaic; Bochkovskiy et al., YOLOv4, 2020, section 3.3).

Boxes that are sure without anybody having drawn them are those of large single objects. Pieces with one such object
each, side by side, show what is missing: small objects, several of a class, and that a box around a group is no object.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.cache import write_whole
from boxless.features import View
from boxless.images import image_size, read_image
from boxless.progress import track
from boxless.structures import Annotations, FloatArray, Sample

SHARE = 4
"""One mosaic at most for so many images that pieces can be cut from."""
MOSAICS_PER_IMAGE = 2
"""At most so many mosaics of a class for each of its images: those of one image alone would teach its mistakes."""
ATTEMPTS = 8
"""How often a piece is drawn for a cell, and a mosaic begun anew: a long object fits no narrow cell."""
GRID = 4
"""Most rows of a mosaic, and most pieces in a row: the smaller they are, the smaller the objects that are learned."""
SHIFT = 0.2
"""Most that an edge between pieces is moved, over the side of a piece if all were alike."""
FILLED = (0.5, 0.95)
"""Share of a cell's width or height that its object fills, drawn at random."""
LARGEST = 2.5
"""Pieces are not enlarged more than this."""


class Piece(NamedTuple):
    """A part of an image.

    Args:
        path: of the image.
        box: (4,), xyxy pixels of the image, of the object in it.
        window: left, top, right and bottom of the part.
        mirrored: whether it is to be mirrored left to right.
    """

    path: Path
    box: FloatArray
    window: tuple[int, int, int, int]
    mirrored: bool


def mosaics(samples: Sequence[Sample], most: int, seed: int, scale: int, folder: Path) -> tuple[Sample, ...]:
    """Compose images of two to sixteen pieces, all of one class, each class as often as any other.

    Args:
        samples: pieces are cut from those with one tag, none unsure, and one box, which is not difficult.
        most: how many are made at most; one for every `SHARE` images that pieces can be cut from, if that is less.
        seed: decides on everything that is random; the same seed gives the same images.
        scale: longest side of a mosaic in pixels.
        folder: takes the images, as JPEG.

    Returns:
        With tags and boxes.

    Raises:
        BoxlessError: the folder cannot be written.
        ImageError: an image can no longer be read.
    """
    pools: dict[int, list[Sample]] = {}
    for sample in samples:
        boxes = sample.annotations
        if boxes is None or sample.unsure:
            continue
        if len(boxes.labels) == len(sample.tags) == 1 and not boxes.ignore[0]:
            pools.setdefault(int(boxes.labels[0]), []).append(sample)
    number = min(most, sum(map(len, pools.values())) // SHARE)
    composed = []
    for row in track(range(number), "Mosaics", number, transient=True):
        random = np.random.default_rng((seed, row))
        label = sorted(pools)[row % len(pools)]
        if row // len(pools) >= MOSAICS_PER_IMAGE * len(pools[label]):
            continue
        attempts = (_compose(random, pools[label], scale) for _ in range(ATTEMPTS))
        mosaic = next((found for found in attempts if found is not None), None)
        if mosaic is not None:
            composed.append(_saved(*mosaic, label, folder / f"{row:05d}.jpg"))
    return tuple(composed)


def _compose(
    random: np.random.Generator, pool: Sequence[Sample], scale: int
) -> tuple[NDArray[np.uint8], FloatArray] | None:
    """A mosaic of pieces of these images, in the format of one of them, and its boxes; None where they do not fit."""
    width, height = View(scale).size(*image_size(_drawn(random, pool).path))
    cells = _cells(random, width, height)
    pieces = []
    for left, top, right, bottom in cells:
        piece = _fitting(random, pool, (right - left, bottom - top))
        if piece is None:
            return None
        pieces.append(piece)
    canvas: NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for (left, top, right, bottom), piece in zip(cells, pieces, strict=True):
        canvas[top:bottom, left:right], box = _cut(read_image(piece.path), piece, (right - left, bottom - top))
        boxes.append(box + np.array([left, top, left, top]))
    return canvas, np.array(boxes, np.float32)


def _fitting(random: np.random.Generator, pool: Sequence[Sample], cell: tuple[int, int]) -> Piece | None:
    """A piece of one of these images for a cell of this width and height; None where none that is drawn fits."""
    for _ in range(ATTEMPTS):
        sample = _drawn(random, pool)
        assert sample.annotations is not None
        box = sample.annotations.boxes[0]
        window = _window(random, image_size(sample.path), box, cell)
        if window is not None:
            return Piece(sample.path, box, window, bool(random.random() < 0.5))
    return None


def _drawn(random: np.random.Generator, pool: Sequence[Sample]) -> Sample:
    return pool[int(random.integers(len(pool)))]


def _cells(random: np.random.Generator, width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Rectangles that fill a canvas, row by row, two at least: (left, top, right, bottom) each."""
    cells = []
    rows = int(random.integers(1, GRID + 1))
    for top, bottom in pairwise(_edges(random, height, rows)):
        columns = int(random.integers(2 if rows == 1 else 1, GRID + 1))
        cells += [(left, top, right, bottom) for left, right in pairwise(_edges(random, width, columns))]
    return cells


def _edges(random: np.random.Generator, side: int, parts: int) -> list[int]:
    """Where the parts of a side begin and end."""
    inner = (side * (part + random.uniform(-SHIFT, SHIFT)) / parts for part in range(1, parts))
    return [0, *map(round, inner), side]


def _window(
    random: np.random.Generator, size: tuple[int, int], box: FloatArray, cell: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """A part of an image of `size` that holds a box and has the format of a cell: left, top, right and bottom.

    None where there is no such part, it would have to be enlarged too much, or the box reaches beyond the image.
    """
    whole, corner, sides = np.array(size), box[:2], box[2:] - box[:2]
    factor = max(random.uniform(*FILLED) * (cell / sides).min(), (cell / whole).max())
    window = cell / factor
    if factor > LARGEST or (window < sides).any() or (box[2:] > whole + 1).any():
        return None
    lowest, highest = np.maximum(corner + sides - window, 0), np.minimum(corner, whole - window)
    start = np.floor(lowest + random.uniform(size=2) * np.maximum(highest - lowest, 0)).astype(int)
    end = np.minimum(np.ceil(start + window).astype(int), whole)
    return int(start[0]), int(start[1]), int(end[0]), int(end[1])


def _cut(image: NDArray[np.uint8], piece: Piece, cell: tuple[int, int]) -> tuple[NDArray[np.uint8], FloatArray]:
    """The pixels of a piece in the size of a cell, and where its box is in it."""
    left, top, right, bottom = piece.window
    smooth = cv2.INTER_AREA if right - left > cell[0] else cv2.INTER_LINEAR
    pixels = cv2.resize(image[top:bottom, left:right], cell, interpolation=smooth)
    factors = np.array(cell) / (right - left, bottom - top)
    box = np.clip((piece.box.reshape(2, 2) - (left, top)) * factors, 0, cell).ravel()
    if piece.mirrored:
        pixels, box = pixels[:, ::-1], np.array([cell[0] - box[2], box[1], cell[0] - box[0], box[3]])
    return np.asarray(pixels, np.uint8), np.asarray(box, np.float32)


def _saved(image: NDArray[np.uint8], boxes: FloatArray, label: int, path: Path) -> Sample:
    with write_whole(path) as file:
        file.write(cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    found = Annotations(boxes, np.full(len(boxes), label, np.int64), np.zeros(len(boxes), np.bool_))
    return Sample(f"mosaic {path.stem}", path, frozenset([label]), annotations=found)
