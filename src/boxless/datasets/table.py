"""Tables: a .csv or .tsv file with an image a row and its tags in one column, or a column of 0 and 1 a class."""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from boxless.datasets._shared import Problems, choose_split, dataset_name, first_path, refuse_split
from boxless.errors import BoxlessError
from boxless.structures import Dataset, Sample

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""The suffixes of tables, and what parts their columns."""

_IMAGE = {"image", "file", "filename", "path"}
_TAGS = {"tags", "labels", "tag", "label"}
_SPLIT = {"split"}

_PRESENT = {"1", "1.0", "true"}
_ABSENT = {"", "0", "0.0", "false"}
_UNSURE = {"-1", "-1.0"}


class _Tags(NamedTuple):
    present: set[str]
    unsure: set[str]


def table_splits(file: Path) -> set[str]:
    """The values of a table's column `split`; none where it has no such column.

    Raises:
        BoxlessError: the file is no table.
    """
    header, rows = _read(file, Problems())
    column = _find_column(header, _SPLIT)
    return set() if column is None else _values(rows, column)


def load_table(file: Path, split: str | None) -> Dataset:
    """Read a table, or the rows of one split.

    The image stands in the column image, file, filename or path, else in the first one, relative to the
    table's folder. Tags stand in the column tags or labels, parted by semicolons (classes: all that are named, sorted);
    without one, each other column is a class (in the order of the columns) that holds 1, 0 or nothing for absent, -1
    for unsure. Several rows of one image are joined: what one of them calls present is present.

    Args:
        file: .csv (commas) or .tsv (tabs), UTF-8, quoted as Python's `csv` module does it.
        split: a value of the column `split`; None for trainval, else train, else the only one.

    Raises:
        BoxlessError: the file is no such table, or there is no such split.
    """
    problems = Problems()
    header, rows = _read(file, problems)
    split_column = _find_column(header, _SPLIT)
    if split_column is None:
        refuse_split(split, file)
    else:
        split = choose_split(split, _values(rows, split_column), file)
        rows = [row for row in rows if row[split_column] == split]
    image_column = _find_column(header, _IMAGE) or header[0]
    tags_column = _find_column(header, _TAGS)
    if tags_column is not None:
        tags = [_Tags({tag.strip() for tag in row[tags_column].split(";")} - {""}, set()) for row in rows]
        classes = sorted({name for one in tags for name in one.present})
    else:
        others = [name for name in header if name not in (image_column, split_column, "")]
        classes = [name for name in others if _is_class(name, rows, problems)]
        tags = [_from_cells(row, classes, row[image_column], problems) for row in rows]
    if not classes:
        raise BoxlessError(f"{file} names no class: add a column `tags`, or one of 0 and 1 for each class")
    samples = _join([row[image_column] for row in rows], tags, file.parent, classes, problems)
    return Dataset(dataset_name(file.with_suffix(""), split), tuple(classes), tuple(samples), problems.lines())


def _read(file: Path, problems: Problems) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = [line for line in csv.reader(stream, delimiter=DELIMITERS[file.suffix.lower()]) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BoxlessError(f"{file}: cannot be read as a table ({error}); save it as CSV in UTF-8") from error
    if len(lines) < 2:
        raise BoxlessError(f"{file}: a table needs a row of column names and a row for each image")
    header = [cell.strip() for cell in lines[0]]
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise BoxlessError(f"{file}: two columns are called {', '.join(sorted(twice))}; rename one")
    if header[0] and first_path([file.parent / header[0]]):
        raise BoxlessError(f"{file}: the first row must name the columns, for one `image,tags`; it names an image")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(header):
            problems.add("rows with more cells than columns, the rest is not read", f"row {number}")
        cells = [cell.strip() for cell in line] + [""] * len(header)
        rows.append(dict(zip(header, cells, strict=False)))
    return header, rows


def _find_column(header: Sequence[str], names: set[str]) -> str | None:
    return next((column for column in header if column.lower() in names), None)


def _values(rows: Sequence[dict[str, str]], column: str) -> set[str]:
    return {row[column] for row in rows} - {""}


def _is_class(column: str, rows: Sequence[dict[str, str]], problems: Problems) -> bool:
    cells = {row[column].lower() for row in rows} - {""}
    if not cells or cells & (_PRESENT | _ABSENT | _UNSURE):
        return True
    problems.add("columns that hold no 0 or 1, not taken as classes", column)
    return False


def _from_cells(row: dict[str, str], classes: Sequence[str], image: str, problems: Problems) -> _Tags:
    present = {name for name in classes if row[name].lower() in _PRESENT}
    unsure = {name for name in classes if row[name].lower() not in _PRESENT | _ABSENT}
    for name in unsure:
        if row[name].lower() not in _UNSURE:
            problems.add("cells that are not 1, 0, -1 or empty, taken as unsure", f"{image} {name}={row[name]}")
    return _Tags(present, unsure)


def _join(
    images: Sequence[str], tags: Sequence[_Tags], folder: Path, classes: Sequence[str], problems: Problems
) -> list[Sample]:
    joined: dict[str, _Tags] = {}
    for image, found in zip(images, tags, strict=True):
        id_ = PurePath(image).as_posix()
        if not image:
            problems.add("rows that name no image, left out", ";".join(sorted(found.present)) or "no tags")
        elif id_ in joined:
            problems.add("images in more than one row, their tags joined", id_)
            joined[id_] = _Tags(joined[id_].present | found.present, joined[id_].unsure | found.unsure)
        elif first_path([folder / id_]) is None:
            problems.add("rows whose image is missing, left out", id_)
        else:
            joined[id_] = found
    index = {name: label for label, name in enumerate(classes)}
    return [
        Sample(
            id_,
            folder / id_,
            frozenset(index[name] for name in found.present),
            frozenset(index[name] for name in found.unsure - found.present),
        )
        for id_, found in joined.items()
    ]
