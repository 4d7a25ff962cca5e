"""Files of tables, as spreadsheets, data frames and labelling tools write them: rows, and what the columns are."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boxless.datasets.common import first_path
from boxless.datasets.problems import Problems
from boxless.errors import BoxlessError, in_one_line

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables, and the usual delimiter of their columns."""
_OTHERS = (",", ";", "\t", "|")

_IMAGE = ("image", "file", "filename", "path", "file_name", "image_path", "file_path", "filepath", "image_name", "img")
_ID = ("image_id", "imageid")
_TAGS = ("tags", "labels", "tag", "label", "label_name", "labelname", "class", "classes", "class_name", "category")
_CHOICES = ("choice", "choices")
_SPLIT = ("split",)
_CONFIDENCE = ("confidence", "score")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
_SIZED = (("bbox_x", "bbox_y", "bbox_width", "bbox_height"), ("bbox_left", "bbox_top", "bbox_width", "bbox_height"))
_SIZES = (("width", "height"), ("image_width", "image_height"))
_LABEL_STUDIO = frozenset({"annotation_id", "annotator", "created_at", "updated_at", "lead_time"})
_NO_CLASS = _LABEL_STUDIO | {"", "id", "index", "idx", "score", "confidence"}


class Table(NamedTuple):
    """The rows of a file, all cells as stripped text.

    Args:
        file: the file.
        header: names of the columns; no two are the same.
        rows: column -> cell.
    """

    file: Path
    header: list[str]
    rows: list[dict[str, str]]


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


def read_table(file: Path, problems: Problems) -> Table:
    """Read a .csv or .tsv file.

    Columns may also be parted by semicolons, as spreadsheets do where the comma is the decimal separator, tabs or `|`,
    which a line `sep=;` of Excel may say. Names of splits that differ in case only are one.

    Raises:
        BoxlessError: it cannot be read, is not UTF-8 (but for the names of images), or has no row or column names.
    """
    try:
        text = _text(file)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, file))
        lines = [line for line in reader if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise BoxlessError(
            f"{file}: cannot be read as a table ({in_one_line(error)}); save it as CSV in UTF-8"
        ) from error
    if len(lines) < 2:
        raise BoxlessError(f"{file}: a table needs a row of column names and a row for each image")
    header = [cell.strip() for cell in lines[0]]
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
    _check_encoding(file, header, rows)
    _merge_splits(header, rows, problems)
    return Table(file, header, rows)


def _text(file: Path) -> str:
    content = file.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16") if is_utf16 else content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise ValueError("it contains NUL")
    return re.sub(r'\A"?sep=."?\r?\n', "", text, flags=re.IGNORECASE)


def _delimiter(text: str, file: Path) -> str:
    """The delimiter that gives the first row the most columns; the usual one if several do."""
    usual = DELIMITERS[file.suffix.lower()]
    first = text.partition("\n")[0]
    counts = {one: len(next(csv.reader([first], delimiter=one), [])) for one in (usual, *_OTHERS)}
    return max(counts, key=lambda one: counts[one])


def _check_encoding(file: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    # Names of files need not be UTF-8.
    image = image_column(header)
    cells = [*header, *(cell for row in rows for column, cell in row.items() if column != image)]
    for cell in cells:
        if re.search("[\udc80-\udcff]", cell):
            raise BoxlessError(f"{file}: cannot be read as a table (not UTF-8: {cell!a}); save it as CSV in UTF-8")


def _merge_splits(header: Sequence[str], rows: Sequence[dict[str, str]], problems: Problems) -> None:
    column = split_column(header)
    if column is None:
        return
    spellings: dict[str, str] = {}
    for row in rows:
        first = spellings.setdefault(row[column].casefold(), row[column])
        if row[column] != first:
            problems.add(f"names of splits that differ from {first!r} in case only, taken as it", row[column])
            row[column] = first


def _find_column(header: Sequence[str], names: Iterable[str]) -> str | None:
    return next((column for column in header if column.lower() in names), None)


def image_column(header: Sequence[str]) -> str:
    """The column that names the images; the first one if none is called so, but not the index of a data frame."""
    index = r"(unnamed: \d+)?"
    first = next((column for column in header if not re.fullmatch(index, column.lower())), header[0])
    return _find_column(header, _IMAGE) or _find_column(header, _ID) or first


def split_column(header: Sequence[str]) -> str | None:
    """The column that names the splits."""
    return _find_column(header, _SPLIT)


def confidence_column(header: Sequence[str]) -> str | None:
    """The column that says how certain a row is."""
    return _find_column(header, _CONFIDENCE)


def tags_columns(header: Sequence[str]) -> list[str]:
    """The columns that hold tags: the first that is called so; for Label Studio all that it does not write itself."""
    if {column.lower() for column in header} | {"updated_at"} >= _LABEL_STUDIO:
        own = {*_LABEL_STUDIO, "id", image_column(header).lower()}
        named = [column for column in header if column.lower() in {*_TAGS, *_CHOICES}]
        return named or [column for column in header if column.lower() not in own]
    column = _find_column(header, (*_TAGS, *_CHOICES))
    return [] if column is None else [column]


def box_columns(header: Sequence[str]) -> Boxes | None:
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
    return name not in _NO_CLASS and not name.endswith("_id") and not re.fullmatch(r"unnamed: \d+", name)
