"""Cells of a table that hold tags, in one of the ways in which tools write them."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from boxless.datasets.common import Object, parse_count
from boxless.datasets.label_studio import region_objects
from boxless.datasets.problems import Problems
from boxless.structures import Count

_EMPTY = {"nan", "null", "none", "n/a", "<na>", "-", "--", "#n/a", "#null!", "#name?", "#ref!", "#value!", "#div/0!"}
_PRESENT = {"1", "1.0", "true"}
_ABSENT = {"", "0", "0.0", "false"}
_UNSURE = {"-1", "-1.0"}
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")


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


def parse_tags(cells: Sequence[str], problems: Problems) -> list[list[Object]]:
    """The tags of each cell of a column.

    A cell is a list of Python or JSON, regions or choices of Label Studio, or names. Those are parted by semicolons or
    `|`; where no cell has one of these, by commas, if a name beside a comma occurs in another cell, too: else the comma
    belongs to the name. A line break parts names, too. `?scratch` says that it is unknown whether there is a scratch,
    `scratch:3` that there are three, and `scratch:2+` at least two. `nan`, `-` and the like are no tag.
    """
    lists = [_parse_list(cell) for cell in cells]
    plain = [cell for cell, found in zip(cells, lists, strict=True) if found is None]
    separator = _separator(plain)
    if "," not in separator:
        for cell in dict.fromkeys(cell for cell in plain if "," in cell):
            problems.add("tags with a comma, taken as one name each, as no part of them is in another cell", cell)
    parsed: list[list[Object]] = []
    for cell, found in zip(cells, lists, strict=True):
        if cell.lower() in _EMPTY:
            problems.add("cells `nan`, `none` or the like, taken as no tag", cell)
            parsed.append([])
        elif found is not None:
            parsed.append(found)
        else:
            names = _split(cell, separator)
            if not all(map(_plain, names)):
                problems.add("question marks without a tag, left out", cell)
            parsed.append(_tags(names))
    for item in (item for found in parsed for item in found if item.count):
        problems.add("tags with a number of objects, such as `apple:3`", item.name)
    return parsed


def _parse_list(cell: str) -> list[Object] | None:
    """The objects of a cell that is a list or an object of Label Studio; None if it is not."""
    if not cell or cell[0] + cell[-1] not in ("[]", "{}", "()"):
        return None
    try:
        content = json.loads(cell)
    except (ValueError, RecursionError):
        inner = cell[1:-1]
        quoted = [one or other for one, other in _QUOTED.findall(inner)]
        return _tags(name.strip() for name in quoted or inner.split(","))
    items = content if isinstance(content, list) else [content]
    return [found for item in items for found in _from_json(item)]


def _from_json(item: Any) -> list[Object]:
    if isinstance(item, dict):
        return region_objects(item)
    return [] if item is None else _tags([str(item).strip()])


def _split(cell: str, separator: str) -> list[str]:
    return [name for part in re.split(separator, cell) if (name := part.strip())]


def _separator(cells: Sequence[str]) -> str:
    """The regular expression of what parts names; a line break in a cell always does."""
    if any(re.search("[;|]", cell) for cell in cells):
        return r"[;|\n]"
    distinct = {line for cell in cells for line in _split(cell, r"\n")}
    parts = Counter(part for cell in distinct for part in set(map(_plain, _split(cell, ","))))
    shared = any(parts[_plain(part)] > 1 for cell in distinct if "," in cell for part in _split(cell, ","))
    return r"[,\n]" if shared else r"\n"


def is_class(cells: Sequence[str]) -> bool:
    """Whether a column is a class: its cells are mostly 1, 0, -1 or empty."""
    filled = [cell.lower() for cell in cells if cell]
    return 2 * sum(cell in _PRESENT | _ABSENT | _UNSURE for cell in filled) >= len(filled)


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
