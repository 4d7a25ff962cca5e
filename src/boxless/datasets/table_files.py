"""Files of tables, as spreadsheets, data frames and labelling tools write them: rows, and what the columns are."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from boxless.datasets.common import find_splits, first_path, is_split_name
from boxless.datasets.problems import Problems
from boxless.datasets.table_cells import are_flags, is_empty
from boxless.errors import BoxlessError, in_one_line
from boxless.image_files import suffixes

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables, and the usual delimiter of their columns."""
_OTHERS = (",", ";", "\t", "|")

_IMAGE = (
    *("image", "file", "filename", "path", "file_name", "image_path", "file_path", "filepath", "image_name", "img"),
    *("images", "filenames", "filepaths", "fname"),
)
_ID = ("image_id", "imageid")
_TAGS = (
    *("tags", "labels", "tag", "label", "label_name", "labelname", "class", "classes", "class_name", "category"),
    *("choice", "choices"),
)
_SPLIT = ("split",)
_SPLITS = ("set", "subset", "partition", "phase", "usage", "dataset", "data_set", "data set")
"""Other names of a column of splits, if its cells are such."""
_FOLDS = ("fold", "kfold", "k_fold")
_CONFIDENCE = ("confidence", "score")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
_SIZED = (("bbox_x", "bbox_y", "bbox_width", "bbox_height"), ("bbox_left", "bbox_top", "bbox_width", "bbox_height"))
_SIZES = (("image_width", "image_height"), ("width", "height"))
_LABEL_STUDIO = frozenset({"annotation_id", "annotator", "created_at", "updated_at", "lead_time"})
_NO_CLASS = _LABEL_STUDIO | {"", "id", "index", "idx", "score", "confidence"}
_NO_IMAGE = re.compile("mask|segment|label|annot|truth|depth|thumb|overlay|origin|source|url|link", re.IGNORECASE)
"""In the names of columns of files that are not the images, or not where these are now."""
_NO_NAME = re.compile(r"(unnamed: \d+)?", re.IGNORECASE)
"""What a data frame calls a column without a name."""


class Boxes(NamedTuple):
    """The columns of boxes.

    Args:
        sides: of x1, y1, x2, y2, or of x, y, width, height.
        is_sized: whether the last two are width and height.
        size: columns of width and height of the image, if there are.
    """

    sides: tuple[str, ...]
    is_sized: bool
    size: tuple[str, ...] | None


class Table(NamedTuple):
    """The rows of a file, all cells as stripped text.

    Args:
        file: the file.
        header: names of the columns; no two are the same.
        rows: column -> cell.
        image: the column that names the images.
        tags: the columns that hold tags; none if there is a column for each class.
        split: the column that names the splits, if there is one.
        boxes: the columns that hold boxes, if there are.
    """

    file: Path
    header: list[str]
    rows: list[dict[str, str]]
    image: str
    tags: list[str]
    split: str | None
    boxes: Boxes | None


def read_table(file: Path, problems: Problems) -> Table:
    """Read a .csv or .tsv file.

    Columns may also be separated by semicolons, as in spreadsheets where the comma is the decimal separator, by tabs or
    by `|`, which a line `sep=;` of Excel may say. Names of splits that differ in case only are one.

    Raises:
        BoxlessError: it cannot be read, is not UTF-8 (but for the names of images), or has no row or column names.
    """
    try:
        text = _text(file)
        delimiter = find_delimiter(text, file.suffix.lower())
        lines = _lines(text, delimiter)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise BoxlessError(
            f"{file}: cannot be read as a table ({in_one_line(error)}); save it as CSV in UTF-8"
        ) from error
    if len(lines) < 2:
        raise BoxlessError(f"{file}: a table needs a row of column names and a row for each image")
    header = _header(lines)
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise BoxlessError(f"{file}: two columns are called {', '.join(sorted(twice))}; rename one")
    if header[0] and first_path([file.parent / header[0]]):
        raise BoxlessError(f"{file}: the first row must name the columns, such as `image,tags`, but names an image")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(header):
            problems.add("rows with more cells than columns, the extra cells ignored", f"row {number}")
        cells = [cell.strip() for cell in line] + [""] * len(header)
        rows.append(dict(zip(header, cells, strict=False)))
    header = [column for column in header if not is_unnamed(column) or any(row[column] for row in rows)]
    table = _recognised(file, header, rows, problems)
    if delimiter == ";" and table.boxes:
        # Where semicolons part the columns the comma is the decimal separator.
        sides = table.boxes.sides
        table = table._replace(rows=[row | {side: row[side].replace(",", ".") for side in sides} for row in rows])
    _check_encoding(table)
    _merge_splits(table, problems)
    return table


def _text(file: Path) -> str:
    content = file.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16") if is_utf16 else content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise ValueError("it contains NUL")
    if "\n" not in text:  # As on the old Macintosh.
        text = text.replace("\r", "\n")
    return re.sub(r'\A"?sep=."?\r?\n', "", text, flags=re.IGNORECASE)


def _lines(text: str, delimiter: str) -> list[list[str]]:
    """The cells of the rows that are not empty.

    Raises:
        ValueError: a quotation mark that is not closed takes in the rows up to the next one.
    """
    lines = [line for line in table_cells(text, delimiter) if any(map(str.strip, line))]
    columns = len(lines[0]) if lines else 0
    long = [
        number
        for number, line in enumerate(lines, 1)
        if any(_may_be_row(part, delimiter, columns) for cell in line for part in cell.split("\n")[1:])
    ]
    if long:  # Else the quotation marks that are not doubled are in the text of a cell.
        try:
            table_cells(text, delimiter, strict=True)
        except csv.Error as error:
            raise ValueError(f"a quotation mark is not closed, perhaps in row {long[0]}") from error
    return lines


def table_cells(text: str, delimiter: str, *, strict: bool = False) -> list[list[str]]:
    """The cells of every row; quotation marks may follow a space, and cells be as long as run-length encoded masks."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        return list(
            csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
        )
    finally:
        csv.field_size_limit(limit)


def _may_be_row(line: str, delimiter: str, columns: int) -> bool:
    """Whether a line of a cell may be a row of the table: it has as many cells, or some, one of which is an image."""
    cells = [cell.strip(' "\r') for cell in line.split(delimiter)]
    return len(cells) > 1 and (
        len(cells) >= columns or any(PurePath(cell).suffix.lower() in suffixes() for cell in cells)
    )


def _header(lines: Sequence[Sequence[str]]) -> list[str]:
    """The names of the columns; one without a name, but not the first, is called as data frames do."""
    names = [cell.strip() for cell in lines[0]]
    return [name or f"Unnamed: {number}" * (number > 0) for number, name in enumerate(names)]


def find_delimiter(text: str, suffix: str) -> str:
    """The delimiter that gives the first row the most columns; that which is usual for the suffix if several do."""
    usual = DELIMITERS[suffix]
    first = text.lstrip("\r\n").partition("\n")[0]
    counts = {one: len(next(iter(table_cells(first, one)), [])) for one in (usual, *_OTHERS)}
    return max(counts, key=lambda one: counts[one])


def _check_encoding(found: Table) -> None:
    # Names of files need not be UTF-8.
    cells = [*found.header, *(cell for row in found.rows for column, cell in row.items() if column != found.image)]
    for cell in cells:
        if re.search("[\udc80-\udcff]", cell):
            raise BoxlessError(
                f"{found.file}: cannot be read as a table (not UTF-8: {cell!a}); save it as CSV in UTF-8"
            )


def _merge_splits(found: Table, problems: Problems) -> None:
    column = found.split
    if column is None:
        return
    spellings: dict[str, str] = {}
    for row in found.rows:
        if is_empty(row[column]):
            row[column] = ""
        first = spellings.setdefault(row[column].casefold(), row[column])
        if row[column] != first:
            problems.add(f"names of splits that differ from {first!r} in case only, taken as it", row[column])
            row[column] = first


def _recognised(file: Path, header: list[str], rows: list[dict[str, str]], problems: Problems) -> Table:
    """The table, with what its columns are: by their names, but where their cells say otherwise."""
    image = _image_column(header, rows, problems)
    tags, split, boxes = _tags_columns(header, image), _split_column(header, rows, problems), _box_columns(header)
    flags = [column for column in header if column != image and are_flags([row[column] for row in rows])]
    if boxes and not tags and set(boxes.sides) <= set(flags):
        boxes = None  # `left` is a class there.
    others = [column for column in header if column not in flags]
    # One other column may be a remark, such as whether the object is occluded.
    several = sum(_is_class(column, rows) for column in flags) > 1
    if several and boxes is None and not _is_of_label_studio(header) and not _tags_columns(others, image):
        tags = []
        for column in flags:
            if column.lower() in _TAGS:
                problems.add("columns called as those of tags, classes as they hold 0 and 1 as others do", column)
    return Table(file, header, rows, image, tags, split, boxes)


def _is_class(flag: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a column of 0 and 1 is a class by its name, and not 1 throughout, as a number of something may be."""
    is_ordinary = flag.lower() not in {*_TAGS, *_SPLIT, *_FOLDS} and not may_be_split(flag, ())
    return is_ordinary and may_be_class(flag) and bool({row[flag] for row in rows} - {"1", "1.0"})


def _find_column(header: Sequence[str], names: Collection[str]) -> str | None:
    return next((column for column in header if column.lower() in names), None)


def _image_column(header: Sequence[str], rows: Sequence[Mapping[str, str]], problems: Problems) -> str:
    """The column that names the images; the first one if none is called so, but not the index of a data frame.

    A column of names of files precedes one in which none is the name of a file: one that is called so, if it holds mere
    numbers.
    """
    known = [column for names in (_IMAGE, _ID) for column in header if column.lower() in names]
    unnamed = [column for column in header if is_unnamed(column)]
    special = {*_TAGS, *_SPLIT, *_SPLITS}
    others = [column for column in header if column not in unnamed and column.lower() not in special]
    columns = [*known, *others, *unnamed]
    first = next(iter(columns), header[0])
    if _names_of_images(rows, first) or (first in known and not all(row[first].isdigit() for row in rows)):
        return first
    for column in columns:
        if not _NO_IMAGE.search(column) and 2 * _names_of_images(rows, column) > len(rows):
            problems.add(f"columns of names of image files, taken as the images, not {first!r}", column)
            return column
    return first


def _names_of_images(rows: Sequence[Mapping[str, str]], column: str) -> int:
    """How many cells of a column are names of image files, and no addresses."""
    ends = tuple(suffixes())
    return sum(row[column].lower().endswith(ends) and "://" not in row[column] for row in rows)


def _split_column(header: Sequence[str], rows: Sequence[Mapping[str, str]], problems: Problems) -> str | None:
    """The column that names the splits: called so, or in another usual way if all its cells are names of splits."""
    if column := _find_column(header, _SPLIT):
        return column
    for column in header:
        cells = {row[column] for row in rows} if column.lower() in _SPLITS else set()
        cells = {cell for cell in cells if cell and not is_empty(cell)}
        if cells and find_splits(cells) == cells:
            problems.add("columns read as `split`, as all their cells are names of splits", column)
            return column
    return None


def confidence_column(header: Sequence[str]) -> str | None:
    """The column that says how certain a row is."""
    return _find_column(header, _CONFIDENCE)


def _tags_columns(header: Sequence[str], image: str) -> list[str]:
    """The columns that hold tags: the first that is called so; for Label Studio all that it does not write itself."""
    named = [column for column in header if column.lower() in _TAGS and column != image]
    if not _is_of_label_studio(header):
        return named[:1]
    own = {*_LABEL_STUDIO, "id", image.lower()}
    return named or [column for column in header if column.lower() not in own]


def _is_of_label_studio(header: Sequence[str]) -> bool:
    return {column.lower() for column in header} | {"updated_at"} >= _LABEL_STUDIO


def _box_columns(header: Sequence[str]) -> Boxes | None:
    """The columns that hold boxes."""
    by_name = {column.lower(): column for column in header}
    sizes = [tuple(by_name[name] for name in names) for names in _SIZES if by_name.keys() >= set(names)]
    for kinds in (_CORNERS, _SIZED):
        for names in kinds:
            if by_name.keys() >= set(names):
                return Boxes(tuple(by_name[name] for name in names), kinds is _SIZED, next(iter(sizes), None))
    return None


def may_be_class(column: str) -> bool:
    """Whether a column may be a class by its name, unlike those that data frames and tools add."""
    name = column.lower()
    return name not in _NO_CLASS and not name.endswith("_id") and not is_unnamed(name)


def is_unnamed(column: str) -> bool:
    """Whether a column has no name, or that which a data frame gives it then."""
    return _NO_NAME.fullmatch(column) is not None


def may_be_split(column: str, cells: Iterable[str]) -> bool:
    """Whether a column says of each row if it is of a split, as fastai's `is_valid`, or of which fold it is."""
    name = column.lower()
    is_fold = name in _FOLDS and any(cell.isdecimal() and int(cell) > 1 for cell in cells)
    return is_fold or (name.startswith("is_") and is_split_name(name[3:]))
