"""Mosaics: images composed of crops of others (Bochkovskiy et al., YOLOv4, 2020, section 3.3).

Pseudo labels that consensus keeps are mostly those of large single objects. Crops with one such object each, side by
side, add what is missing: small objects, several of a class, and groups whose common box is not an object.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.cached_dataset import CachedDataset, cache_together
from boxless.distributed import on_main_process
from boxless.errors import BoxlessError
from boxless.files import write_whole
from boxless.images import MIN_SIDE, image_size, read_image
from boxless.progress import track
from boxless.pseudo_labels.given import is_negative
from boxless.structures import Annotations, FloatArray, Sample
from boxless.training.fit import Run
from boxless.views import View, views_of

MOSAICS = "mosaics"
"""The folder within a run folder that takes them."""
IMAGES_PER_MOSAIC = 4
"""At most one mosaic for so many images that crops can be cut from; copies of an image, with other boxes, count."""
MOSAICS_PER_IMAGE = 2
"""At most so many mosaics of a class for each of these images: a few images repeated would be overfitted."""
ATTEMPTS = 8
"""How often a crop is drawn for a cell, and a mosaic started anew: a long object fits no narrow cell."""
MAX_GRID = 4
"""Most rows of a mosaic, and most crops in a row: they decide how small the objects become."""
EDGE_SHIFT = 0.2
"""Most that an edge between cells is moved, over the side of a cell if all were alike."""
FILLED = (0.5, 0.95)
"""Share of a cell's width or height that its object fills, drawn at random."""
MAX_ENLARGEMENT = 2.5
"""Crops are not enlarged by more."""


class Crop(NamedTuple):
    """A part of an image.

    Args:
        path: of the image.
        box: (4,), xyxy pixels of the image, of the object in it.
        window: left, top, right and bottom of the part.
        mirrored: whether it is mirrored left to right.
        unsure: classes that the image may show.
    """

    path: Path
    box: FloatArray
    window: tuple[int, int, int, int]
    mirrored: bool
    unsure: frozenset[int] = frozenset()


def training_set(data: CachedDataset, run: Run) -> CachedDataset:
    """What a network is trained on: the images with a kept label or that are negatives, and mosaics of them.

    The mosaics are written into the run folder. Without `pseudo_labels.mosaics` there are none.

    Raises:
        BoxlessError: no image has a label or is a negative, or the folder cannot be written.
    """
    config, detector = run.detector.config, run.detector
    data = trainable(data)
    # Pseudo labels are snapped to proposals; the detector itself may not need them.
    data = replace(data, proposals=data.proposals if detector.proposals else None)
    most, scale = config.pseudo_labels.mosaics, max(config.views.scales)
    images, folder = data.dataset.samples, run.folder / MOSAICS
    with run.timed("mosaics"):
        samples = on_main_process(lambda: compose_mosaics(images, most, config.seed, scale, folder))
        if samples:
            composed = replace(data.dataset, samples=samples)
            data = data.joined(cache_together(composed, detector.features, views_of(config.views), detector.proposals))
    return data


def trainable(data: CachedDataset) -> CachedDataset:
    """Only the images with a box that is not ignored, and the negatives: without a tag, and some class is not there.

    Raises:
        BoxlessError: there is no such image.
    """
    rows = []
    for row, sample in enumerate(data.dataset.samples):
        boxes = sample.annotations
        if boxes is not None and (not boxes.ignore.all() or is_negative(sample, data.dataset)):
            rows.append(row)
    if not rows:
        raise BoxlessError(f"{data.dataset.name}: no image that can be read has a tag or box to train on")
    return data.subset(rows)


def compose_mosaics(samples: Sequence[Sample], most: int, seed: int, scale: int, folder: Path) -> tuple[Sample, ...]:
    """Compose images of two to sixteen crops, all of one class, the classes in turn.

    Args:
        samples: crops are cut from those with one tag and one box, which is not ignored.
        most: largest number of mosaics; see also `IMAGES_PER_MOSAIC`.
        seed: of all random choices; the same seed gives the same images.
        scale: longest side of a mosaic in pixels.
        folder: takes the images, as JPEG.

    Returns:
        With tags and boxes; what is unsure of an image is unsure of a mosaic with a crop of it.

    Raises:
        BoxlessError: the folder cannot be written.
        ImageError: an image can no longer be read.
    """
    pools: dict[int, list[Sample]] = {}
    for sample in samples:
        boxes = sample.annotations
        if boxes is not None and len(boxes.labels) == len(sample.tags) == 1 and not boxes.ignore[0]:
            pools.setdefault(int(boxes.labels[0]), []).append(sample)
    number = min(most, sum(map(len, pools.values())) // IMAGES_PER_MOSAIC)
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
) -> tuple[NDArray[np.uint8], FloatArray, frozenset[int]] | None:
    """A mosaic of crops, in the aspect ratio of one of the images, its boxes, and the classes that it may show.

    None where crops do not fit.
    """
    width, height = View(scale).size(*image_size(_choose(random, pool).path))
    if min(width, height) < MIN_SIDE:
        return None
    cells = _cells(random, width, height)
    crops = []
    for left, top, right, bottom in cells:
        crop = _draw_crop(random, pool, (right - left, bottom - top))
        if crop is None:
            return None
        crops.append(crop)
    canvas: NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for (left, top, right, bottom), crop in zip(cells, crops, strict=True):
        canvas[top:bottom, left:right], box = _crop_pixels(read_image(crop.path), crop, (right - left, bottom - top))
        boxes.append(box + np.array([left, top, left, top]))
    return canvas, np.array(boxes, np.float32), frozenset[int]().union(*(crop.unsure for crop in crops))


def _draw_crop(random: np.random.Generator, pool: Sequence[Sample], cell: tuple[int, int]) -> Crop | None:
    """A crop of one of these images for a cell of this width and height; None where no drawn one fits."""
    for _ in range(ATTEMPTS):
        sample = _choose(random, pool)
        assert sample.annotations is not None
        box = sample.annotations.boxes[0]
        window = _window(random, image_size(sample.path), box, cell)
        if window is not None:
            return Crop(sample.path, box, window, bool(random.random() < 0.5), sample.unsure)
    return None


def _choose(random: np.random.Generator, pool: Sequence[Sample]) -> Sample:
    return pool[int(random.integers(len(pool)))]


def _cells(random: np.random.Generator, width: int, height: int) -> list[tuple[int, int, int, int]]:
    """At least two rectangles that fill a canvas, row by row: (left, top, right, bottom) each."""
    cells = []
    rows = int(random.integers(1, MAX_GRID + 1))
    for top, bottom in pairwise(_edges(random, height, rows)):
        columns = int(random.integers(2 if rows == 1 else 1, MAX_GRID + 1))
        cells += [(left, top, right, bottom) for left, right in pairwise(_edges(random, width, columns))]
    return cells


def _edges(random: np.random.Generator, side: int, parts: int) -> list[int]:
    """Where the parts of a side begin and end."""
    inner = (side * (part + random.uniform(-EDGE_SHIFT, EDGE_SHIFT)) / parts for part in range(1, parts))
    return [0, *map(round, inner), side]


def _window(
    random: np.random.Generator, size: tuple[int, int], box: FloatArray, cell: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """A part of an image of `size` that holds a box and has the aspect ratio of a cell: left, top, right and bottom.

    None where there is no such part, it would have to be enlarged too much, or the box reaches beyond the image.
    """
    whole, corner, sides = np.array(size), box[:2], box[2:] - box[:2]
    factor = max(random.uniform(*FILLED) * (cell / sides).min(), (cell / whole).max())
    window = cell / factor
    if factor > MAX_ENLARGEMENT or (window < sides).any() or (box[2:] > whole + 1).any():
        return None
    lowest, highest = np.maximum(corner + sides - window, 0), np.minimum(corner, whole - window)
    start = np.floor(lowest + random.uniform(size=2) * np.maximum(highest - lowest, 0)).astype(int)
    end = np.minimum(np.ceil(start + window).astype(int), whole)
    return int(start[0]), int(start[1]), int(end[0]), int(end[1])


def _crop_pixels(image: NDArray[np.uint8], crop: Crop, cell: tuple[int, int]) -> tuple[NDArray[np.uint8], FloatArray]:
    """The pixels of a crop in the size of a cell, and where its box is in it."""
    left, top, right, bottom = crop.window
    smooth = cv2.INTER_AREA if right - left > cell[0] else cv2.INTER_LINEAR
    pixels = cv2.resize(image[top:bottom, left:right], cell, interpolation=smooth)
    factors = np.array(cell) / (right - left, bottom - top)
    box = np.clip((crop.box.reshape(2, 2) - (left, top)) * factors, 0, cell).ravel()
    if crop.mirrored:
        pixels, box = pixels[:, ::-1], np.array([cell[0] - box[2], box[1], cell[0] - box[0], box[3]])
    return np.asarray(pixels, np.uint8), np.asarray(box, np.float32)


def _saved(image: NDArray[np.uint8], boxes: FloatArray, unsure: frozenset[int], label: int, path: Path) -> Sample:
    with write_whole(path) as file:
        file.write(cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    found = Annotations.of(boxes, np.full(len(boxes), label, np.int64))
    return Sample(f"mosaic {path.stem}", path, frozenset([label]), unsure, annotations=found)
