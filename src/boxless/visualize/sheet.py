"""Many images as one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxless.errors import BoxlessError


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], columns: int = 4, width: int = 1200, gap: int = 6
) -> NDArray[np.uint8]:
    """Lay images in rows that fill the sheet's width, those of one row equally high, none distorted or cut.

    Args:
        images: each (h, w, 3) uint8, RGB, in reading order.
        columns: images a row; the last row may have fewer and then ends early.
        width: of the sheet in pixels.
        gap: white between images, in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        BoxlessError: there is no image, or the sheet is too narrow for its columns.
    """
    if not images:
        raise BoxlessError("a contact sheet needs an image: give one or more")
    if columns < 1 or width < columns * (gap + 8):
        raise BoxlessError(f"a sheet {width} pixels wide has no room for {columns} columns: make it wider")
    rows = [_row(images[first : first + columns], columns, width, gap) for first in range(0, len(images), columns)]
    space = np.full((gap, width, 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (space, row)][1:], axis=0)


def _row(images: Sequence[NDArray[np.uint8]], columns: int, width: int, gap: int) -> NDArray[np.uint8]:
    shapes = [image.shape[1] / image.shape[0] for image in images]
    # A row with fewer images is as high as if the missing ones were like those there.
    height = (width - gap * (columns - 1)) / (sum(shapes) * columns / len(shapes))
    sheet = Image.new("RGB", (width, max(1, round(height))), "white")
    left = 0.0
    for image, shape in zip(images, shapes, strict=True):
        right = left + height * shape
        size = max(1, round(right) - round(left)), sheet.height
        sheet.paste(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), (round(left), 0))
        left = right + gap
    return np.asarray(sheet).copy()
