"""Many pictures as one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxless.errors import BoxlessError


def contact_sheet(
    pictures: Sequence[NDArray[np.uint8]], columns: int = 4, width: int = 1200, gap: int = 6
) -> NDArray[np.uint8]:
    """Lay pictures in rows that fill the sheet's width, those of one row equally high, none distorted or cut.

    Args:
        pictures: each (h, w, 3) uint8, RGB, in reading order.
        columns: pictures a row; the last row may have fewer and then ends early.
        width: of the sheet in pixels.
        gap: white between pictures, in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        BoxlessError: there is no picture, or the sheet is too narrow for its columns.
    """
    if not pictures:
        raise BoxlessError("a contact sheet needs a picture: give one or more")
    if columns < 1 or width < columns * (gap + 8):
        raise BoxlessError(f"a sheet {width} pixels wide has no room for {columns} columns: make it wider")
    rows = [_row(pictures[first : first + columns], columns, width, gap) for first in range(0, len(pictures), columns)]
    space = np.full((gap, width, 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (space, row)][1:], axis=0)


def _row(pictures: Sequence[NDArray[np.uint8]], columns: int, width: int, gap: int) -> NDArray[np.uint8]:
    shapes = [picture.shape[1] / picture.shape[0] for picture in pictures]
    # A row with fewer pictures is as high as if the missing ones were like those there.
    height = (width - gap * (columns - 1)) / (sum(shapes) * columns / len(shapes))
    sheet = Image.new("RGB", (width, max(1, round(height))), "white")
    left = 0.0
    for picture, shape in zip(pictures, shapes, strict=True):
        right = left + height * shape
        size = max(1, round(right) - round(left)), sheet.height
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (round(left), 0))
        left = right + gap
    return np.asarray(sheet).copy()
