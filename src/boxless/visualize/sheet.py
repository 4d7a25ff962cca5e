"""Contact sheets: many images in one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxless.errors import BoxlessError


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], columns: int = 4, width: int = 1200, gap: int = 6
) -> NDArray[np.uint8]:
    """Arrange images in rows that fill the sheet's width; images of a row have equal heights, none is cropped.

    Args:
        images: each (h, w, 3) uint8, RGB, in reading order.
        columns: images per row; the last row may have fewer and then is narrower.
        width: of the sheet in pixels.
        gap: white space between images, in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        BoxlessError: there is no image, or the sheet is too narrow for its columns.
    """
    if not images:
        raise BoxlessError("a contact sheet needs at least one image")
    if columns < 1 or width < columns * (gap + 8):
        raise BoxlessError(f"a sheet {width} pixels wide is too narrow for {columns} columns: make it wider")
    rows = [_row(images[first : first + columns], columns, width, gap) for first in range(0, len(images), columns)]
    space = np.full((gap, width, 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (space, row)][1:], axis=0)


def _row(images: Sequence[NDArray[np.uint8]], columns: int, width: int, gap: int) -> NDArray[np.uint8]:
    shapes = [image.shape[1] / image.shape[0] for image in images]
    # A row with fewer images is as high as if images of their mean aspect ratio filled it.
    # Tall ones do not fill it, as the sheet would be many times as high as wide.
    height = min((width - gap * (columns - 1)) / (sum(shapes) * columns / len(shapes)), width)
    sheet = Image.new("RGB", (width, max(1, round(height))), "white")
    left = 0.0
    for image, shape in zip(images, shapes, strict=True):
        right = left + height * shape
        size = max(1, round(right) - round(left)), sheet.height
        sheet.paste(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), (round(left), 0))
        left = right + gap
    return np.asarray(sheet).copy()
