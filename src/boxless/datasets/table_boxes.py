"""Boxes in the rows of a table, in pixels or in fractions of the image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from boxless.datasets.common import Box, Object, to_floats
from boxless.datasets.problems import Problems
from boxless.datasets.sizes import AnnotatedImage
from boxless.datasets.table_files import Boxes
from boxless.errors import ImageError
from boxless.images import image_size

_LARGEST_FRACTION = 1.001
"""Rounded fractions may exceed 1."""


def read_box(row: Mapping[str, str], items: Sequence[Object], columns: Boxes) -> list[Object]:
    """The tags of a row as objects with its box; without any number in the columns they stay tags."""
    cells = [row[side] for side in columns.sides]
    if not any(cells):
        return list(items)
    numbers = to_floats(cells)
    box: Box | None = None
    if numbers is not None:
        x1, y1, x2, y2 = numbers
        box = (x1, y1, x1 + x2, y1 + y2) if columns.is_sized else (x1, y1, x2, y2)
    return [replace(item, box=box, has_box=True) for item in items]


def has_fractions(objects: Iterable[Iterable[Object]]) -> bool:
    """Whether all boxes lie between 0 and 1, and not all of their numbers are integers."""
    sides = [side for items in objects for item in items if item.box is not None for side in item.box]
    return all(0 <= side <= _LARGEST_FRACTION for side in sides) and any(not side.is_integer() for side in sides)


def to_pixels(image: AnnotatedImage, problems: Problems) -> AnnotatedImage:
    """An image with boxes in fractions as one with boxes in pixels."""
    if all(item.box is None for item in image.objects):
        return image
    try:
        width, height = image_size(image.path)
    except ImageError as error:
        problems.add("images whose size cannot be read, their boxes dropped (the tags stay)", str(error))
        return image._replace(objects=[replace(item, box=None, has_box=False) for item in image.objects], size=None)

    def scaled(box: Box | None) -> Box | None:
        if box is None:
            return None
        x1, y1, x2, y2 = (min(side, 1) for side in box)
        return (x1 * width, y1 * height, x2 * width, y2 * height)

    return image._replace(objects=[replace(item, box=scaled(item.box)) for item in image.objects], size=None)
