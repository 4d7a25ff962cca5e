"""Boxes in the rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from boxless.datasets.common import Box, Object, to_floats
from boxless.datasets.table_files import Boxes


def is_boxed(row: Mapping[str, str], columns: Boxes) -> bool:
    """Whether a row says anything in the columns of the box."""
    return any(row[side] for side in columns.sides)


def read_box(row: Mapping[str, str], items: Sequence[Object], columns: Boxes) -> list[Object]:
    """The tags of a row as objects with its box; without any number in the columns they stay tags."""
    if not is_boxed(row, columns):
        return list(items)
    cells = [row[side] for side in columns.sides]
    numbers = to_floats(cells)
    box: Box | None = None
    if numbers is not None:
        x1, y1, x2, y2 = numbers
        box = (x1, y1, x1 + x2, y1 + y2) if columns.is_sized else (x1, y1, x2, y2)
    return [replace(item, box=box, has_box=True) for item in items]
