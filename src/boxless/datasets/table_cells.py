"""Cells of a table that hold tags, in one of the ways in which tools write them."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from boxless.datasets.common import Object, parse_count, to_floats
from boxless.datasets.label_studio import REMARKS, region_objects
from boxless.datasets.problems import Problems
from boxless.structures import Count

_EMPTY = {"nan", "null", "none", "n/a", "<na>", "-", "--", "#n/a", "#null!", "#name?", "#ref!", "#value!", "#div/0!"}
_PRESENT = {"1", "1.0", "true"}
_ABSENT = {"", "0", "0.0", "false"}
_UNSURE = {"-1", "-1.0"}
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_SHOWN = re.compile(r"[\w.]+\((\[.*\]|\{.*\})(, *dtype=.*)?\)", re.DOTALL)
"""A list as Python shows an array or a set: `array(['dent'], dtype=object)`."""
_NO_TAG = "cells `nan`, `none` or the like, taken as no tag"


def is_empty(cell: str) -> bool:
    """Whether a cell says that there is nothing, as data frames, R and spreadsheets do."""
    # As R writes it: `Na` is sodium.
    return cell == "NA" or cell.lower() in _EMPTY


def tag(name: str, unsure: bool = False, count: Count | None = None) -> Object:
    """An object without a box."""
    return Object(name, None, unsure, has_box=False, count=count)


def _tags(names: Iterable[str]) -> list[Object]:
    """The tags of these names; those of `?scratch` are unsure, of `scratch:3` there are three, of `scratch:0` none."""
    tags = []
    for name in names:
        plain, count = _counted(name)
        if plain and (count is None or count.number):
            tags.append(tag(plain, unsure=name.startswith("?"), count=count))
    return tags


def _plain(name: str) -> str:
    """The class that a tag names."""
    return _counted(name)[0]


def _counted(name: str) -> tuple[str, Count | None]:
    plain = name.removeprefix("?").strip()
    before, _, after = plain.rpartition(":")
    count = parse_count(after)
    return (plain, None) if count is None or not before.strip() else (before.strip(), count)


def parse_tags(cells: Sequence[str], problems: Problems) -> list[list[Object] | None]:
    """The tags of each cell of a column; None where they cannot be read.

    A cell is a list of Python or JSON, regions or choices of Label Studio, or names, separated by semicolons or
    `|`; where no cell has one of these, by commas, if a name beside a comma occurs in another cell, too: else the comma
    belongs to the name. A line break separates names, too. `?scratch` says that it is unknown whether there is a
    scratch, `scratch:3` that there are three, and `scratch:2+` at least two. `nan`, `NA`, `-` and the like are no tag.
    """
    lists = [_parse_list(cell, problems) for cell in cells]
    plain = [cell for cell, found in zip(cells, lists, strict=True) if found is None]
    separator = _separator(plain)
    if "," not in separator:
        for cell in dict.fromkeys(cell for cell in plain if "," in cell.strip(", ")):
            problems.add("tags with a comma, taken as one name each, as no part of them is in another cell", cell)
    parsed = []
    for cell, found in zip(cells, lists, strict=True):
        items = _split(cell, separator) if found is None else found
        parsed.append(_objects(items, cell, problems))
    for item in (item for objects in parsed for item in objects or () if item.count):
        problems.add("tags with a number of objects, such as `apple:3`", item.name)
    return parsed


def _objects(items: Sequence[str | dict[str, Any]], cell: str, problems: Problems) -> list[Object] | None:
    """The objects of a cell; None if it holds something, but nothing that is read."""
    names = [item for item in items if isinstance(item, str)]
    if any(map(is_empty, names)):
        problems.add(_NO_TAG, cell)
    if not all(map(_plain, names)):
        problems.add("question marks without a tag, left out", cell)
    objects: list[Object] = []
    is_unread = False
    for item in items:
        found = region_objects(item) if isinstance(item, dict) else [] if is_empty(item) else _tags([item])
        is_unread |= isinstance(item, dict) and not found and item.keys().isdisjoint(REMARKS)
        objects += found
    if is_unread and objects:
        problems.add("cells with an object that has no class that is read; it is not used", cell)
    return None if is_unread and not objects else objects


def _parse_list(cell: str, problems: Problems) -> list[str | dict[str, Any]] | None:
    """The names, and the objects of Label Studio, of a cell that is a list or such an object; None if it is not."""
    shown = _SHOWN.fullmatch(cell)
    text = shown[1] if shown else cell
    if not text or text[0] + text[-1] not in ("[]", "{}", "()"):
        return None
    if re.match(r"[\[(]\s*[\[(]", text):
        problems.add("cells with lists in a list, all their names taken as tags", cell)
    try:
        return list(_flat(_parsed(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        inner = text[1:-1]
        quoted = [one or other for one, other in _QUOTED.findall(inner)]
        return [part for name in quoted or inner.split(",") if (part := name.strip())]


def _parsed(text: str) -> Any:
    """What a text of JSON or Python says.

    Raises:
        ValueError, SyntaxError, TypeError, MemoryError, RecursionError: it is neither.
    """
    try:
        return json.loads(text)
    except ValueError:
        # Of Python only objects: it joins the names of a list without commas, as NumPy writes it.
        if not re.search(r"""['"]\s*:""", text):
            raise
        return ast.literal_eval(text)


def _flat(content: Any) -> Iterator[str | dict[str, Any]]:
    if isinstance(content, list | tuple | set):
        for item in content:
            yield from _flat(item)
    elif isinstance(content, dict):
        yield from [content] if content else []
    elif content is not None and (name := str(content).strip()):
        yield name


def _split(cell: str, separator: str) -> list[str]:
    # A comma that has nothing behind it parts nothing, and is of no name.
    return [name for part in re.split(separator, cell) if (name := part.strip(", \t\r\n"))]


def _separator(cells: Sequence[str]) -> str:
    """The regular expression of what parts names; a line break in a cell always does."""
    if any(re.search("[;|]", cell) for cell in cells):
        return r"[;|\n]"
    distinct = {line for cell in cells for line in _split(cell, r"\n")}
    parts = Counter(part for cell in distinct for part in set(map(_plain, _split(cell, ","))))
    shared = any(parts[_plain(part)] > 1 for cell in distinct if "," in cell for part in _split(cell, ","))
    return r"[,\n]" if shared else r"\n"


def are_vectors(parsed: Iterable[Sequence[Object] | None]) -> bool:
    """Whether the tags of a column are of 0 and 1 for each class: as many in each cell, and some more than once."""
    rows = [[word.lower() for item in items for word in item.name.split()] for items in parsed if items]
    numbers = {*_PRESENT, *_ABSENT, "0.", "1."}
    return (
        len({len(row) for row in rows}) == 1
        and all(word in numbers for row in rows for word in row)
        and any(len(set(row)) < len(row) for row in rows)
    )


def is_name(cell: str) -> bool:
    """Whether a cell that holds one class is its name, rather than nothing, a list or an object of Label Studio."""
    return bool(cell) and not is_empty(cell) and cell[0] not in "[{"


def is_class(cells: Sequence[str]) -> bool:
    """Whether a column is a class: its cells are mostly 1, 0, -1 or empty, but not all empty."""
    filled = [cell.lower() for cell in cells if cell]
    return bool(filled) and 2 * sum(cell in _PRESENT | _ABSENT | _UNSURE for cell in filled) >= len(filled)


def are_flags(cells: Iterable[str]) -> bool:
    """Whether cells are 1, 0, -1 or empty, and not all empty."""
    kinds = {"" if is_empty(cell) else cell.lower() for cell in set(cells)}
    return kinds != {""} and kinds <= _PRESENT | _ABSENT | _UNSURE


def has_no_zero(cells: Sequence[str]) -> bool:
    """Whether the cells are 1 and -1 only, as in lists of attributes whose -1 means that a class is absent."""
    kinds = [[cell.lower() in kind for cell in cells] for kind in (_PRESENT, _UNSURE)]
    return all(map(any, kinds)) and all(map(any, zip(*kinds, strict=True)))


def parse_number(cell: str) -> float | None:
    """The number of a cell, also with a decimal comma or in percent; None if it is none."""
    numbers = to_floats([cell.rstrip("% ").replace(",", ".")])
    return None if numbers is None else numbers[0] / (100 if cell.endswith("%") else 1)


def parse_classes(row: dict[str, str], classes: Sequence[str], image: str, problems: Problems) -> list[Object]:
    """The tags of a row that has a column of 1, 0 and -1 for each class."""
    objects = []
    for name in classes:
        cell = row[name].lower()
        if cell in _ABSENT:
            continue
        if cell not in _PRESENT | _UNSURE:
            problems.add("cells that are not 1, 0, -1 or empty, taken as unsure", f"{image} {name}={row[name]}")
        objects.append(tag(name, unsure=cell not in _PRESENT))
    return objects
