"""Shared by the writers: rounded numbers, unique file names, and the images that a file is tried on."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxless.errors import ImageError
from boxless.images import read_image
from boxless.progress import track
from boxless.structures import Detections

logger = logging.getLogger(__name__)


def rows(detections: Detections) -> Iterator[tuple[int, float, tuple[float, float, float, float]]]:
    """Label, score and xyxy box in pixels of every detection; scores to 6 significant digits, boxes to 0.01 pixels."""
    for label, score, box in zip(
        detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
    ):
        x1, y1, x2, y2 = (round(side, 2) for side in box)
        yield label, float(f"{score:.6g}"), (x1, y1, x2, y2)


class Names:
    """File names for the results of images, each returned once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def name(self, image: Path) -> str:
        """The stem of `image`; if taken, `<folder>-<stem>`; if taken, numbered.

        Names differ by more than case, since some file systems ignore it.
        """
        name = image.stem
        if name.casefold() in self._taken and image.parent.name:
            name = f"{image.parent.name}-{image.stem}"
        base = name
        number = self._numbers.get(base.casefold(), 1)
        while name.casefold() in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._numbers[base.casefold()] = number
        self._taken.add(name.casefold())
        return name


def readable_images(files: Sequence[Path], description: str, use: str) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """The files that can be read and their pixels (h, w, 3) uint8, RGB, behind a progress bar; others are reported.

    Args:
        files: the images.
        description: of the bar.
        use: what an image that cannot be read is left out of.
    """
    for file in track(files, description, len(files)):
        try:
            pixels = read_image(file)
        except ImageError as error:
            logger.warning("Left out of the %s: %s", use, error)
            continue
        yield file, pixels
