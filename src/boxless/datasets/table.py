"""Tables: a .csv or .tsv file with a row per image, tag or box."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice, takewhile
from pathlib import Path, PurePath

from boxless.datasets.common import Object, choose_split, dataset_name, loaded, refuse_split, to_size
from boxless.datasets.layouts import Source
from boxless.datasets.lookup import FileFinder, Finder, unnamed_images
from boxless.datasets.problems import Problems
from boxless.datasets.sizes import AnnotatedImage, boxed_samples
from boxless.datasets.table_boxes import read_box
from boxless.datasets.table_cells import (
    are_vectors,
    has_no_zero,
    is_class,
    parse_classes,
    parse_number,
    parse_tags,
    tag,
)
from boxless.datasets.table_files import (
    DELIMITERS,
    Boxes,
    Table,
    box_columns,
    confidence_column,
    image_column,
    is_unnamed,
    may_be_class,
    may_be_split,
    read_table,
    split_column,
    tags_columns,
)
from boxless.errors import BoxlessError
from boxless.image_files import suffixes
from boxless.structures import Dataset

_MISSING = "rows whose image is missing, left out"
_UNREAD = "rows whose tags cannot be read, their images left out"


def table(path: Path) -> Source | None:
    """A .csv or .tsv file, or a folder with one: a column `image`, and one of `tags`, or of 0 and 1 for each class."""
    file = path if path.is_file() else _in_folder(path)
    if file is None or file.suffix.lower() not in DELIMITERS:
        return None
    return Source(partial(table_splits, file), partial(load_table, file))


def _in_folder(folder: Path) -> Path | None:
    """The table of a folder, which names images that there are.

    Raises:
        BoxlessError: there are several.
    """
    files = [file for file in sorted(folder.glob("*")) if file.suffix.lower() in DELIMITERS and _names_images(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise BoxlessError(f"{folder}: several tables name images, give the path of one of {names}")
    return files[0] if files else None


def _names_images(file: Path) -> bool:
    try:
        found = read_table(file, Problems())
    except BoxlessError:
        return False
    finder, column = FileFinder(_folders(found)), image_column(found.header)
    return any(row[column] and finder.find(row[column], Problems()) for row in islice(found.rows, 20))


def table_splits(file: Path) -> set[str]:
    """The values of a table's column `split`; none if it has no such column.

    Raises:
        BoxlessError: the file is not a table.
    """
    found = read_table(file, Problems())
    column = split_column(found.header)
    return set() if column is None else _values(found, column)


def _values(found: Table, column: str) -> set[str]:
    return {row[column] for row in found.rows} - {""}


def load_table(file: Path, split: str | None) -> Dataset:
    """Read a table, or the rows of one split.

    A column called image, file, filename, path or the like, else the first one, has the image's path relative to the
    table's folder. A column tags, labels, class or the like has tags, see `table_cells.parse_tags`, and with columns
    xmin, ymin, xmax, ymax or the like the class of a box; classes are sorted. Without such a column, each other column
    whose cells are mostly 0 and 1 is a class, in the order of the columns: 1 is present, 0 or empty is absent, -1 is
    unknown. Rows of the same image are merged: a tag present in one of them is present. Rows whose column confidence or
    score is 0 say that their tags are absent. Boxes are in pixels, or all in fractions of the image; right and bottom
    are exclusive.

    Args:
        file: .csv (commas or semicolons) or .tsv (tabs), UTF-8, quoted as Python's `csv` module does it.
        split: a value of the column `split`; None for trainval, else train, else the only one.

    Raises:
        BoxlessError: the file is not such a table, there is no such split, or most images are missing.
    """
    problems = Problems()
    whole = read_table(file, problems)
    found, split = _of_split(whole, split, problems)
    found, classes, objects = _objects(found, problems)
    if not classes:
        raise BoxlessError(
            f"{file} names no class: add a column `tags`, or a column of 0 and 1 for each class; its columns are "
            f"{', '.join(map(repr, found.header))}"
        )
    images = _merge(found, objects, FileFinder(_folders(found)), problems, _MISSING)
    column = image_column(found.header)
    fix = "give their paths relative to the table's folder"
    if all(re.fullmatch(r"\d+(\.0)?", row[column]) for row in found.rows):
        fix += "; where these were numbers, zeros in front may be lost, as of 0001, or .0 added: write them as text"
    problems.refuse_most(_MISSING, len(found.rows), file, fix)
    for path in unnamed_images((image.path for image in images), lambda: [row[column] for row in whole.rows]):
        problems.add_unmatched("image files that no row names, not used", path.name)
    layout = "table of boxes" if box_columns(found.header) else "table"
    samples = boxed_samples(images, classes, problems)
    return loaded(layout, dataset_name(file.with_suffix(""), split), classes, samples, problems)


def _of_split(found: Table, split: str | None, problems: Problems) -> tuple[Table, str | None]:
    column = split_column(found.header)
    if column is None:
        refuse_split(split, found.file)
        return found, None
    split = choose_split(split, _values(found, column), found.file)
    image = image_column(found.header)
    for row in found.rows:
        if not row[column]:
            problems.add("rows without a split, left out", row[image])
    return found._replace(rows=[row for row in found.rows if row[column] == split]), split


def _objects(found: Table, problems: Problems) -> tuple[Table, list[str], list[list[Object]]]:
    """The rows of which it is known what they say, the classes, and the objects of each row."""
    image, boxes = image_column(found.header), box_columns(found.header)
    columns = [column for column in tags_columns(found.header) if column != image]
    if columns:
        found, objects = _of_tags(found, columns, problems)
        return found, sorted({item.name for items in objects for item in items}), objects
    if boxes is not None:
        raise BoxlessError(f"{found.file} has boxes, but no column `class`: add one")
    if "region_shape_attributes" in found.header:
        raise BoxlessError(f"{found.file}: VGG Image Annotator's own CSV is not read; export COCO there")
    classes = _classes(found, problems)
    return found, classes, [parse_classes(row, classes, row[image], problems) for row in found.rows]


def _of_tags(found: Table, columns: Sequence[str], problems: Problems) -> tuple[Table, list[list[Object]]]:
    """The rows with tags that can be read, and the objects of each.

    Raises:
        BoxlessError: there are tags in other columns, or no names in these, or most cannot be read.
    """
    _refuse_more_tags(found, columns)
    parsed = [parse_tags([row[column] for row in found.rows], problems) for column in columns]
    if any(map(are_vectors, parsed)):
        raise BoxlessError(
            f"{found.file}: the tags are 0 and 1 without the names of their classes; write the names, or a column of 0 "
            "and 1 for each class"
        )
    image, boxes = image_column(found.header), box_columns(found.header)
    objects, unread = [], set()
    for row, cells in zip(found.rows, zip(*parsed, strict=True), strict=True):
        items = [item for cell in cells for item in cell or ()]
        if not items and None in cells:
            problems.add(_UNREAD, next(row[column] for column in columns if row[column]))
            unread.add(row[image])
        elif not items and boxes is not None and _has_box(row, boxes):
            problems.add("boxes without a class, their images left out", row[image])
            unread.add(row[image])
        objects.append(items if boxes is None else read_box(row, items, boxes))
    problems.refuse_most(_UNREAD, len(found.rows), found.file, "write the names of classes, parted by `;`")
    _name_unused(found, columns, problems)
    objects = _without_absent(found, objects, problems)
    kept = [number for number, row in enumerate(found.rows) if row[image] not in unread]
    return found._replace(rows=[found.rows[number] for number in kept]), [objects[number] for number in kept]


def _has_box(row: Mapping[str, str], boxes: Boxes) -> bool:
    """Whether the box of a row has an area; where an image has no object, some tools write zeros."""
    box = read_box(row, [tag("")], boxes)[0].box
    return box is not None and box[0] < box[2] and box[1] < box[3]


def _refuse_more_tags(found: Table, columns: Sequence[str]) -> None:
    """Raise BoxlessError if there are cells to the right of the tags in columns without a name, which may be tags."""
    for column in columns:
        beside = list(takewhile(is_unnamed, found.header[found.header.index(column) + 1 :]))
        cells = dict.fromkeys(row[one] for row in found.rows for one in beside if row[one])
        if cells:
            raise BoxlessError(
                f"{found.file}: columns without a name beside {column!r} hold {', '.join(map(repr, list(cells)[:3]))}; "
                f"if these are tags, write all of an image into {column!r}, parted by `;`, else name the columns"
            )


def _classes(found: Table, problems: Problems) -> list[str]:
    """The columns of 0 and 1.

    Raises:
        BoxlessError: one of them has no name.
    """
    image = image_column(found.header)
    others = [column for column in found.header if column not in (image, split_column(found.header))]
    classes = []
    for column in others:
        cells = [row[column] for row in found.rows]
        if is_unnamed(column) and found.header.index(column) > found.header.index(image) and is_class(cells):
            raise BoxlessError(f"{found.file}: a column of 0 and 1 has no name; name its class in the first row")
        if may_be_split(column, cells):
            problems.add("columns that may say the split, not used; a column `split` would be", column)
        elif may_be_class(column) and is_class(cells):
            classes.append(column)
        elif column:
            problems.add("columns that are not mostly 0 and 1, not taken as classes", column)
    for column in classes:
        if has_no_zero([row[column] for row in found.rows]):
            problems.add("columns of 1 and -1 without 0: -1 is read as unknown, write 0 if it means absent", column)
    return classes


def _name_unused(found: Table, tags: Sequence[str], problems: Problems) -> None:
    """Name the columns that are not used; boxes may be in them, in a way that is not read."""
    boxes = box_columns(found.header)
    used = {image_column(found.header), split_column(found.header), confidence_column(found.header), *tags}
    used |= {*boxes.sides, *(boxes.size or ())} if boxes else set()
    for column in found.header:
        if column not in used and may_be_class(column):
            problems.add("columns that are not used", column)


def _without_absent(found: Table, objects: list[list[Object]], problems: Problems) -> list[list[Object]]:
    """The objects of each row; none of those of confidence 0, with which Open Images says that a class is absent."""
    column, image = confidence_column(found.header), image_column(found.header)
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


def _folders(found: Table) -> list[Path]:
    """Where images may be: beside the table, or in the only folder beside it that holds images."""
    top = found.file.parent
    folders = [folder for folder in sorted(top.glob("*")) if folder.is_dir() and not folder.name.startswith(".")]
    holding = [folder for folder in folders if any(file.suffix.lower() in suffixes() for file in folder.iterdir())]
    return [top, *holding] if len(holding) == 1 else [top]


def read_table_images(file: Path, finder: Finder, problems: Problems, missing: str) -> tuple[list[AnnotatedImage], int]:
    """The images of a table, whatever their split, that a finder finds, and the number of its rows.

    Raises:
        BoxlessError: the file is not a table.
    """
    found, _, objects = _objects(read_table(file, problems), problems)
    return _merge(found, objects, finder, problems, missing), len(found.rows)


def _merge(
    found: Table, objects: Sequence[Sequence[Object]], finder: Finder, problems: Problems, missing: str
) -> list[AnnotatedImage]:
    """The images of all rows, each with the objects of its rows."""
    column, boxes = image_column(found.header), box_columns(found.header)
    merged: dict[Path, AnnotatedImage] = {}
    for row, items in zip(found.rows, objects, strict=True):
        name = row[column]
        if not name:
            problems.add(
                "rows that name no image, left out", ";".join(sorted(item.name for item in items)) or "no tags"
            )
            continue
        path = finder.find(name, problems)
        if path is None:
            problems.add_unmatched(missing, PurePath(name).as_posix())
        elif path in merged:
            if boxes is None:
                problems.add("images in more than one row, their tags merged", merged[path].id)
            merged[path] = merged[path]._replace(objects=[*merged[path].objects, *items])
        else:
            id_ = path.relative_to(found.file.parent) if path.is_relative_to(found.file.parent) else path
            size = None if boxes is None or boxes.size is None else to_size(row[side] for side in boxes.size)
            merged[path] = AnnotatedImage(id_.as_posix(), path, items, size)
    return list(merged.values())
