"""Files beside class folders that describe their images: such folders are the classes only if no file disagrees."""

import codecs
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from boxless.datasets.common import find_splits, to_floats
from boxless.datasets.lookup import possible_stems
from boxless.datasets.table_files import find_delimiter, table_cells
from boxless.files import readable_bytes
from boxless.image_files import suffixes

TEXTS = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xml"})
"""Suffixes of files that may hold annotations."""
_TABLES = {".csv", ".tsv"}
_NOTES = re.compile("(readme|licen[cs]e|copyright|credits|attribution)[^/]*[.]txt", re.IGNORECASE)
"""Files that may name all images, but say who made them."""
_ROWS = 10_000
"""Rows of a file that are read: the others are of the same kind."""
_BOXES = {
    ".xml": re.compile(r"<(annotations?|objects?|bndbox|bbox|box|polygon|target_list)[\s>]", re.IGNORECASE),
    ".json": re.compile(
        r'"(images|[^"]*(box|polygon|points|shapes|regions|[a-z]labels)[^"]*)"\s*:\s*[\[{]', re.IGNORECASE
    ),
}
_TAGS = re.compile(
    "(?<![a-z])(tag|label|class|categor|species|breed|diagnos|dx|target|defect|annotation)", re.IGNORECASE
)
"""How columns and keys are called that have the tags of images."""
_ABOUT = re.compile(
    "predict|prob|score|conf|split|fold|set|author|user|licen|credit|source|url|camera|device|place|city|country|date|time",
    re.IGNORECASE,
)
"""Names of columns that hold facts about an image other than its tags."""
_DOCTOR = ('"verdict":', '"findings":', '"splits":')
"""Keys of what `boxless doctor --json` writes, which names images."""
_HASH = re.compile("[0-9a-f]{16,128}", re.IGNORECASE)
_REPEATED = 3
"""Times that each word of a column occurs on average if they are tags."""


class ClassImages:
    """The images in class folders, by the names that a file may give them.

    Args:
        classes: path of each image, relative to the folder of the set -> its class folder.
    """

    def __init__(self, classes: Sequence[tuple[Path, str]]) -> None:
        self._classes = classes

    @cached_property
    def folders(self) -> dict[str, set[str]]:
        """The class folders of the images of each name, see `possible_stems`."""
        found = defaultdict[str, set[str]](set)
        for path, folder in self._classes:
            for stem in possible_stems(path.name):
                found[stem].add(folder)
        return dict(found)

    def find(self, cell: str) -> set[str]:
        """The class folders of the image that a cell names, with its suffix or by a name that is more than a number."""
        name = PurePath(cell.replace("\\", "/").partition("?")[0])
        is_file = name.suffix.lower() in suffixes()
        if not is_file and (len(name.name) < 5 or not any(char.isdigit() for char in name.name)):
            return set()
        return next((self.folders[stem] for stem in possible_stems(cell) if stem in self.folders), set())

    def is_named_by(self, file: Path) -> bool:
        """Whether a file is called as an image, as `1.json` and `1.jpg.json` of `1.jpg` are."""
        parts = file.name.split(".")
        starts = (".".join(parts[:end]) for end in range(1, len(parts)))
        return any(stem in self.folders for start in starts for stem in possible_stems(start))

    def is_part(self, file: Path) -> bool:
        """Whether a file is called as a folder of images, as those of a video are."""
        return any(file.stem in path.parts for path, _ in self._classes)


class Record(NamedTuple):
    """What a file tells about one image: the folders that it may be of, and other cells by their column or key."""

    folders: set[str]
    cells: list[tuple[str, str]]


class RecordKind(Enum):
    """What a file tells beyond the names of class folders: nothing, something of the images, or their tags."""

    NOTHING = 0
    SOMETHING = 1
    TAGS = 2


def record_kind(file: Path, images: ClassImages, *, at_top: bool) -> RecordKind:
    """What a file tells of the images beyond the names of their class folders.

    `TAGS` are boxes, in a file that is called as an image or names one; or cells beside names of images that are not
    those of the class folders: under a column called so, several of 0 and 1, or few words time and again. Other cells
    are `SOMETHING`, such as sizes, addresses and notes. A mere list of images says nothing, nor does a number or word
    that stands for the folder.

    Args:
        file: one of `TEXTS`.
        images: of the class folders.
        at_top: whether the file lies beside the class folders, not in one of them.
    """
    if _NOTES.match(file.name):
        return RecordKind.NOTHING
    suffix, text = file.suffix.lower(), read_text(file)
    if suffix == ".json" and all(key in text for key in _DOCTOR):
        return RecordKind.NOTHING
    is_named = images.is_named_by(file)
    if suffix == ".txt" and _has_numbers(text, is_named=is_named, at_top=at_top):
        return RecordKind.TAGS
    keys = None if suffix in {".txt", *_TABLES} else _BOXES[".xml" if suffix == ".xml" else ".json"]
    if keys and keys.search(text) and (is_named or images.is_part(file) or _names_any(text, images)):
        return RecordKind.TAGS
    if suffix == ".xml" or is_named:
        return RecordKind.NOTHING
    kind = _record_kind(_records(suffix, text, images), file.stem)
    if suffix not in _TABLES:
        return kind
    # A table that is not well formed may say more line by line, and one with quotation marks by rows.
    quoted = _record_kind(_of_rows(_quoted_rows(text, suffix), images), file.stem)
    return max(kind, quoted, key=lambda one: one.value)


def read_text(file: Path) -> str:
    """The text of a file, whatever its encoding; empty if it cannot be read."""
    content = readable_bytes(file)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _has_numbers(text: str, *, is_named: bool, at_top: bool) -> bool:
    """Whether most lines are numbers of boxes: of one image, also with a class; of a video, in its folder."""
    # DOTA's files begin with lines such as `gsd:0.1`.
    kept = (line.strip(" \t\r,;") for line in text.splitlines()[:100] if ":" not in line)
    lines = [re.split(r"[\s,;]+", line) for line in kept if line]
    numbers = [sum(to_floats([cell]) is not None for cell in line) for line in lines]
    words = 3 if is_named else 0
    boxes = sum(number >= 4 and len(line) - number <= words for line, number in zip(lines, numbers, strict=True))
    return 2 * boxes > len(lines) and (is_named or not at_top)


def _names_any(text: str, images: ClassImages) -> bool:
    """Whether a string of a file is the name of an image, with its suffix or without."""
    strings = re.finditer(r'"([^"\n]{1,500})"', text)
    return any(stem in images.folders for found in strings for stem in possible_stems(found[1]))


def _record_kind(records: Iterable[Record], name: str) -> RecordKind:
    columns = defaultdict[str, list[tuple[str, str]]](list)
    for folders, cells in islice(records, _ROWS):
        said = [(key, cell) for key, cell in cells if cell and not _HASH.fullmatch(cell)]
        if not any(_is_named(folder, cell) for folder in folders for _, cell in said):
            for key, cell in said:
                columns[key].append((" ".join(sorted(folders)), cell))
    others = {key: pairs for key, pairs in columns.items() if not _is_code(pairs)}
    flags = sum({cell for _, cell in pairs} <= {"0", "1", "-1"} for pairs in others.values())
    if flags > 1 or any(_are_tags(name, key, [cell for _, cell in pairs]) for key, pairs in others.items()):
        return RecordKind.TAGS
    return RecordKind.SOMETHING if others else RecordKind.NOTHING


def _is_code(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether cells stand for the folders: the same in each; few words may be so by chance."""
    of_folder = defaultdict[str, set[str]](set)
    for folder, cell in pairs:
        of_folder[folder].add(cell)
    is_known = all(cell.isdecimal() for _, cell in pairs) or len(pairs) >= 2 * len(of_folder)
    return is_known and all(len(cells) == 1 for cells in of_folder.values())


def _are_tags(name: str, key: str, cells: Sequence[str]) -> bool:
    """Whether the cells of a column or key are tags, by what it or the file is called, or as few words occur again."""
    words = {cell for cell in cells if to_floats([cell]) is None}
    if _TAGS.search(key):
        return bool(words) or all(cell.isdecimal() for cell in cells)
    if not words or _ABOUT.search(key) or find_splits(words) >= words:
        return False
    return bool(_TAGS.search(name)) or 1 < len(words) <= len(cells) / _REPEATED


def _is_named(folder: str, cell: str) -> bool:
    """Whether a cell is the name of a folder, which may have more words, such as an id."""
    if folder.isdecimal() and cell.isdecimal():
        return int(folder) == int(cell)
    name, text = (re.findall(r"[^\W_]+", one.casefold()) for one in (folder, cell))
    return text == name or (any(len(word) > 2 and word.isalpha() for word in text) and set(text) <= set(name))


def _records(suffix: str, text: str, images: ClassImages) -> Iterator[Record]:
    if suffix in _TABLES:
        yield from _of_rows([_cells(line) for line in text.splitlines()], images)
    elif suffix == ".txt":
        # Lines with an address say where an image is from, as licences do.
        lines = [_cells(line) for line in text.splitlines() if line.strip() and "://" not in line]
        found = list(_of_rows(lines, images))
        listed = sum(any(PurePath(cell).suffix.lower() in suffixes() for cell in line) for line in lines)
        # A text may mention an image, as in an example.
        if 2 * max(len(found), listed) >= len(lines):
            yield from found
    else:
        yield from _of_json(suffix, text, images)


def _cells(line: str) -> list[str]:
    delimiter = next((one for one in (",", ";", "\t", "|") if one in line), None)
    return [cell.strip(" \"'") for cell in line.split(delimiter)]


def _quoted_rows(text: str, suffix: str) -> list[list[str]]:
    """The cells of a table in which quotation marks hold delimiters; none if it cannot be read so."""
    try:
        rows = table_cells(text, find_delimiter(text, suffix))
    except csv.Error:
        return []
    return [[cell.strip(" \"'") for cell in row] for row in rows if row]


def _of_rows(rows: Sequence[Sequence[str]], images: ClassImages) -> Iterator[Record]:
    """The records of rows, whose columns the first may name."""
    head = rows[0] if rows and not any(map(images.find, rows[0])) else ()
    for row in rows:
        keys = head if len(head) == len(row) else [""] * len(row)
        columns = [f"{number} {key}" for number, key in enumerate(keys)]
        if record := _record(list(zip(columns, row, strict=True)), images):
            yield record


def _record(cells: Sequence[tuple[str, str]], images: ClassImages) -> Record | None:
    """The record of cells of which one names an image; None if none does."""
    found = [images.find(cell) for _, cell in cells]
    folders = next(filter(None, found), None)
    rest = [(key, cell) for (key, cell), own in zip(cells, found, strict=True) if not own and cell]
    return None if folders is None else Record(folders, rest)


def _of_json(suffix: str, text: str, images: ClassImages) -> Iterator[Record]:
    lines = text.splitlines() if suffix in (".jsonl", ".ndjson") else [text]
    for line in filter(str.strip, lines):
        try:
            records = list(_of_value(json.loads(line), images))
        except (ValueError, RecursionError):
            # A file that is cut off says what it does in its beginning.
            strings = re.findall(r'"([^"\n]{1,500})"', line)
            folders = next(filter(None, map(images.find, strings)), None)
            if folders is not None:
                yield Record(folders, [("annotations", "cut off")])
        else:
            yield from records


def _of_value(value: Any, images: ClassImages, outer: Any = None) -> Iterator[Record]:
    """The records of JSON objects that have an image as a value, or as a key; `outer` is the object around."""
    if isinstance(value, list):
        for item in value:
            yield from _of_value(item, images)
    if not isinstance(value, dict):
        return
    if any(isinstance(item, str) and images.find(item) for item in value.values()):
        own = _record([*_scalars(value, "")], images)
        if own and not own.cells and outer is not None:
            own = _record([*_scalars(outer, "")], images)
        yield from [own] if own else []
        return
    for key, item in value.items():
        if folders := images.find(key):
            yield Record(folders, [(name, cell) for name, cell in _scalars(item, "") if not images.find(cell)])
        else:
            yield from _of_value(item, images, value)


def _scalars(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """The values within a value of JSON, each with the keys that lead to it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _scalars(item, f"{key} {name}")
    elif isinstance(value, list):
        for item in value:
            yield from _scalars(item, key)
    elif value is not None:
        yield key, str(value)
