"""What the rows of a table say: objects with classes, of a column of tags or of columns of 0 and 1."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from boxless.datasets.common import Box, Object, to_floats
from boxless.datasets.problems import Problems
from boxless.datasets.table_cells import (
    are_vectors,
    has_no_zero,
    is_class,
    is_name,
    parse_classes,
    parse_number,
    parse_tags,
    tag,
)
from boxless.datasets.table_files import (
    Boxes,
    Table,
    confidence_column,
    is_unnamed,
    may_be_class,
    may_be_split,
)
from boxless.errors import BoxlessError

_UNREAD = "rows whose tags cannot be read, their images left out"
_MAY_BE_SPLIT = "columns that may say the split, not used; a column `split` would be"
_TAG_WORDS = 2
"""Words up to which a text may be a tag; longer ones are remarks."""


def read_objects(found: Table, problems: Problems) -> tuple[Table, list[str], list[list[Object]]]:
    """The rows of which it is known what they say, the classes, and the objects of each row.

    Args:
        found: the table.
        problems: receives what is wrong with it.

    Raises:
        BoxlessError: its tags are not written in a way that is read.
    """
    if found.tags:
        found, objects = _of_tags(found, problems)
        return found, sorted({item.name for items in objects for item in items}), objects
    if found.boxes is not None:
        raise BoxlessError(f"{found.file} has boxes, but no column `class`: add one")
    if "region_shape_attributes" in found.header:
        raise BoxlessError(f"{found.file}: VGG Image Annotator's own CSV is not read; export COCO there")
    classes = _classes(found, problems)
    return found, classes, [parse_classes(row, classes, row[found.image], problems) for row in found.rows]


def _of_tags(found: Table, problems: Problems) -> tuple[Table, list[list[Object]]]:
    """The rows with tags that can be read, and the objects of each.

    Raises:
        BoxlessError: there are tags in other columns, or no names in these, or most cannot be read.
    """
    _refuse_more_tags(found, problems)
    parsed = [_parse_column(found, column, problems) for column in found.tags]
    if any(map(are_vectors, parsed)):
        raise BoxlessError(
            f"{found.file}: the tags are 0 and 1 without the names of their classes; write the names, or a column of 0 "
            "and 1 for each class"
        )
    _name_numbers(found, problems)
    image, boxes = found.image, found.boxes
    objects, unread = [], set()
    for row, cells in zip(found.rows, zip(*parsed, strict=True), strict=True):
        items = [item for cell in cells for item in cell or ()]
        if not items and None in cells:
            problems.add(_UNREAD, next(row[column] for column in found.tags if row[column]))
            unread.add(row[image])
        elif not items and boxes is not None and _has_box(row, boxes):
            problems.add("boxes without a class, their images left out", row[image])
            unread.add(row[image])
        objects.append(items if boxes is None else _with_box(row, items, boxes))
    problems.refuse_most(_UNREAD, len(found.rows), found.file, "write the names of classes, separated by `;`")
    _name_unused(found, problems)
    objects = _without_absent(found, objects, problems)
    kept = [number for number, row in enumerate(found.rows) if row[image] not in unread]
    return found._replace(rows=[found.rows[number] for number in kept]), [objects[number] for number in kept]


def _parse_column(found: Table, column: str, problems: Problems) -> list[list[Object] | None]:
    """The objects of each cell of a column; what stands beside a box in any row is the name of one class."""
    cells, boxes = [row[column] for row in found.rows], found.boxes
    boxed = [] if boxes is None else [row for row in found.rows if is_name(row[column]) and _has_box(row, boxes)]
    names = {row[column] for row in boxed}
    tags = parse_tags(["" if cell in names else cell for cell in cells], problems)
    return [[tag(cell)] if cell in names else own for cell, own in zip(cells, tags, strict=True)]


def _with_box(row: Mapping[str, str], items: Sequence[Object], columns: Boxes) -> list[Object]:
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


def _has_box(row: Mapping[str, str], boxes: Boxes) -> bool:
    """Whether the box of a row has an area; where an image has no object, some tools write zeros."""
    box = _with_box(row, [tag("")], boxes)[0].box
    return box is not None and box[0] < box[2] and box[1] < box[3]


def _name_numbers(found: Table, problems: Problems) -> None:
    """Name columns of tags that are 0 and 1: these may be two classes, or mean that one is absent and present."""
    for column in found.tags if found.boxes is None else ():
        if {row[column].removesuffix(".0") for row in found.rows} - {""} == {"0", "1"}:
            kind = "columns of the tags 0 and 1, two classes; if 0 means absent, call the column as the class"
            problems.add(kind, column)


def _refuse_more_tags(found: Table, problems: Problems) -> None:
    """Raise BoxlessError if there are tags to the right of the tags in columns without a name; remarks are counted."""
    for column in found.tags:
        beside = list(takewhile(is_unnamed, found.header[found.header.index(column) + 1 :]))
        cells = [row[one] for row in found.rows for one in beside if row[one]]
        names = {name.strip() for row in found.rows for name in re.split("[;|,]", row[column])}
        if any(cell in names for cell in cells) or 2 * sum(map(_is_short, cells)) > len(cells):
            shown = ", ".join(map(repr, list(dict.fromkeys(cells))[:3]))
            raise BoxlessError(
                f"{found.file}: columns without a name beside {column!r} hold {shown}; if these are tags, write all of "
                f"an image into {column!r}, separated by `;`, else name the columns"
            )
        for one in beside:
            problems.add("columns without a name, not used", next(row[one] for row in found.rows if row[one]))


def _is_short(cell: str) -> bool:
    return len(cell.split()) <= _TAG_WORDS


def _classes(found: Table, problems: Problems) -> list[str]:
    """The columns of 0 and 1.

    Raises:
        BoxlessError: one of them has no name.
    """
    image = found.image
    others = [column for column in found.header if column not in (image, found.split)]
    classes = []
    for column in others:
        cells = [row[column] for row in found.rows]
        if is_unnamed(column) and found.header.index(column) > found.header.index(image) and is_class(cells):
            raise BoxlessError(f"{found.file}: a column of 0 and 1 has no name; name its class in the first row")
        if may_be_split(column, cells):
            problems.add(_MAY_BE_SPLIT, column)
        elif may_be_class(column) and is_class(cells):
            classes.append(column)
        elif column:
            problems.add("columns that are not mostly 0 and 1, not taken as classes", column)
    for column in classes:
        if has_no_zero([row[column] for row in found.rows]):
            problems.add("columns of 1 and -1 without 0: -1 is read as unknown, write 0 if it means absent", column)
    return classes


def _name_unused(found: Table, problems: Problems) -> None:
    """Name the columns that are not used; boxes may be in them, in a way that is not read."""
    boxes = found.boxes
    used = {found.image, found.split, confidence_column(found.header), *found.tags}
    used |= {*boxes.sides, *(boxes.size or ())} if boxes else set()
    for column in found.header:
        if column not in used and may_be_class(column):
            is_split = may_be_split(column, [row[column] for row in found.rows])
            problems.add(_MAY_BE_SPLIT if is_split else "columns that are not used", column)


def _without_absent(found: Table, objects: list[list[Object]], problems: Problems) -> list[list[Object]]:
    """The objects of each row; none of those of confidence 0, with which Open Images says that a class is absent."""
    column, image = confidence_column(found.header), found.image
    if column is None:
        return objects
    kept = []
    for row, items in zip(found.rows, objects, strict=True):
        confidence = parse_number(row[column]) if row[column] else 1.0
        if items and confidence is None:
            problems.add(f"rows whose {column} is no number, their tags taken as present", row[image])
        elif items and confidence == 0:
            problems.add(f"rows whose {column} is 0, their tags taken as absent", row[image])
        elif items and confidence is not None and confidence < 1:
            problems.add(f"rows whose {column} is below 1, their tags taken as present", row[image])
        kept.append([] if confidence == 0 else items)
    return kept
