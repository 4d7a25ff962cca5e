"""Shared by the layouts: the choice of a split, and samples and datasets built from named objects."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxless.datasets.problems import Problems
from boxless.errors import BoxlessError
from boxless.structures import Annotations, Count, Dataset, Point, Sample
from boxless.wording import counted

Box = tuple[float, float, float, float]
"""xyxy in pixels, right and bottom exclusive."""

_SPLIT = re.compile(
    r"(?P<prefix>([^\W_]+[ _-])*)(?P<name>train|training|trainval|val|valid|validation|dev|test|testing|eval|evaluation"
    r"|unlabell?ed)([ _-]?(data|images?|imgs?|sets?|dataset|split|folder|aug|[0-9]+))*",
    re.IGNORECASE,
)
_PREFIXES = frozenset({"", "image_", "images_"})
"""What may stand before the name of a split."""
_ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test", "evaluation": "eval"}
"""Names of one split, which tools call differently."""

MOST_JSON = 20
"""JSON files of a folder that are opened to tell what they are; more are one an image, as LabelMe writes them."""

_ROUNDING = 0.5
"""Pixels by which a box may leave its image without a warning: normalised and rounded numbers are inexact."""

_LARGEST_SIDE = 10**6
"""Pixels; larger sizes in a file are taken as unknown, and an image of unknown size is taken to be this large."""


@dataclass(frozen=True)
class Object:
    """One annotated object.

    Args:
        name: of its class.
        box: None if its numbers cannot be read.
        ignore: whether metrics ignore it, as VOC's difficult objects.
        has_box: whether it should have a box; a tag has none.
        count: how many objects of the class a person counted in the image.
        is_point: whether `box` is a point on the object, without width and height, and no box.
    """

    name: str
    box: Box | None
    ignore: bool = False
    has_box: bool = True
    count: Count | None = None
    is_point: bool = False


def boxed_sample(
    id_: str,
    path: Path,
    objects: Sequence[Object],
    classes: Sequence[str],
    size: tuple[int, int] | None,
    problems: Problems,
) -> Sample:
    """Turn an image's objects into a sample.

    Tags depend on names and `ignore` alone: a class of which all objects are ignored is unsure. Boxes are clipped to
    the image; those without numbers or area are dropped. If there are objects but no box is left, or a tag names a
    class that no box has, `annotations` is None: an empty one would mean that the image contains no object.

    Args:
        id_: of the sample.
        path: of the image.
        objects: of the image.
        classes: the class names; every object has one of them.
        size: width and height in pixels, see `to_size`; None if unknown: boxes are then clipped at the left and top
            edge only.
        problems: receives what is wrong with the boxes.
    """
    index = {name: number for number, name in enumerate(classes)}
    named = {index[item.name] for item in objects}
    tags = {index[item.name] for item in objects if not item.ignore}
    boxes = [
        (_clipped(item.box, size or (_LARGEST_SIDE, _LARGEST_SIDE), id_, problems), item)
        for item in objects
        if item.has_box
    ]
    kept = [(box, item) for box, item in boxes if box is not None]
    annotations = Annotations(
        np.array([box for box, _ in kept], np.float32).reshape(-1, 4),
        np.array([index[item.name] for _, item in kept], np.int64),
        np.array([item.ignore for _, item in kept], np.bool_),
    )
    points = [Point(index[item.name], *item.box[:2]) for item in objects if item.is_point and item.box]
    boxed = {item.name for item in objects if item.has_box}
    unboxed = any(item.name not in boxed for item in objects)
    if kept and unboxed:
        problems.add("images with a box of one class and none of another, their boxes left out (the tags stay)", id_)
    return Sample(
        id_,
        path,
        frozenset(tags),
        frozenset(named - tags),
        None if unboxed or (objects and not kept) else annotations,
        counts={index[item.name]: item.count for item in objects if item.count and index[item.name] in tags},
        points=points_inside(points, size, id_, problems),
    )


def points_inside(
    points: Sequence[Point], size: tuple[int, int] | None, name: str, problems: Problems
) -> tuple[Point, ...]:
    """The points that lie in their image: no box holds the others. `problems` receives the name if there are some."""
    width, height = size or (_LARGEST_SIDE, _LARGEST_SIDE)
    kept = tuple(point for point in points if 0 <= point.x < width and 0 <= point.y < height)
    if len(kept) < len(points):
        problems.add("images with points outside of them, left out (the tags stay)", name)
    return kept


def parse_count(text: str) -> Count | None:
    """A count such as `3`, or `2+` for at least 2; None if the text is none."""
    found = re.fullmatch(r"([0-9]{1,6})(\+?)", text.strip())
    return Count(int(found[1]), found[2] == "+") if found else None


def _clipped(box: Box | None, size: tuple[int, int], name: str, problems: Problems) -> Box | None:
    if box is None:
        problems.add("boxes without numbers, dropped (their tags stay)", name)
        return None
    width, height = size
    x1, y1, x2, y2 = box
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        problems.add("boxes without area inside the image, dropped (their tags stay)", name)
        return None
    if any(abs(new - old) > _ROUNDING for new, old in zip(clipped, box, strict=True)):
        problems.add("boxes that reach outside the image, clipped", name)
    return clipped


def loaded(layout: str, name: str, classes: Sequence[str], samples: Iterable[Sample], problems: Problems) -> Dataset:
    """The dataset that a loader returns, with its warnings and the line on what was understood.

    Args:
        layout: what the format is called.
        name: of the dataset.
        classes: class names.
        samples: the images.
        problems: of the data.
    """
    kept = tuple(samples)
    parts = [layout, counted(len(kept), "image"), counted(len(classes), "class"), *problems.unmatched()]
    return Dataset(name, tuple(classes), kept, problems.lines(), ", ".join(parts))


def to_floats(values: Iterable[Any]) -> list[float] | None:
    """The values as finite numbers; None if one of them is not a finite number."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def to_size(values: Iterable[Any]) -> tuple[int, int] | None:
    """Width and height as integers; None if they are unknown, for which some tools write 0."""
    numbers = to_floats(values)
    if numbers is None or min(numbers) < 1 or max(numbers) > _LARGEST_SIDE:
        return None
    width, height = map(int, numbers)
    return width, height


def find_splits(names: Collection[str]) -> set[str]:
    """Those of the names of folders that are splits, such as `train`, `test1`, `training_set` or `seg_val`.

    All are called so, or at least two of them differently: a single one beside others may be a class. What stands
    before the name of a split must be the same for two splits, as in `seg_train` and `seg_val`.
    """
    kinds: dict[str, dict[str, str]] = {}
    for name in names:
        if found := _SPLIT.fullmatch(name):
            kinds.setdefault(found["prefix"].casefold(), {})[name] = _split_word(found["name"])
    several = {prefix for prefix, found in kinds.items() if len(set(found.values())) > 1}
    splits = {name for prefix in {*_PREFIXES, *several} for name in kinds.get(prefix, ())}
    return splits if several or len(splits) == len(names) else set()


def split_kinds(names: Iterable[str]) -> set[str]:
    """What splits of these names are, as `val` of `Validation` and `val2017`."""
    return {_split_word(found["name"]) for name in names if (found := _SPLIT.fullmatch(name))}


def is_split_name(name: str) -> bool:
    """Whether a name means a split by itself, such as `train`, `val2017` or `images_test`."""
    found = _SPLIT.fullmatch(name)
    return found is not None and found["prefix"].casefold() in _PREFIXES


def _split_word(name: str) -> str:
    return _ALIASES.get(name.lower(), name.lower())


def _spells(name: str, split: str) -> bool:
    """Whether a name is another spelling of that of a split, as `Validation` and `val2017` of `val`."""
    found = _SPLIT.fullmatch(name)
    return found is not None and not found["prefix"] and _split_word(found["name"]) == _split_word(split)


def choose_split(split: str | None, found: Collection[str], where: Path) -> str:
    """The split to load: `split` if given; else `trainval`, else `train`, else the only one.

    Where only one of them is found, spellings of one split are one name, as `val`, `valid`, `Validation` and `val2017`.

    Raises:
        BoxlessError: there is no such split, or `split` is None and the choice is ambiguous.
    """
    names = ", ".join(sorted(found))
    if not found:
        raise BoxlessError(f"{where} lists no split")
    for wanted in ("trainval", "train") if split is None else (split,):
        if wanted in found:
            return wanted
        others = [name for name in found if _spells(name, wanted)]
        if len(others) == 1:
            return others[0]
    if split is not None:
        raise BoxlessError(f"{where} has no split {split!r}; it has: {names}")
    if len(found) != 1:
        raise BoxlessError(f"{where}: choose a split; it has: {names}")
    return next(iter(found))


def refuse_split(split: str | None, where: Path) -> None:
    """Raise BoxlessError if `split` is given for data without splits."""
    if split is not None:
        raise BoxlessError(f"{where} has no splits, so {split!r} cannot be chosen; leave the split out")


def dataset_name(folder: Path, split: str | None) -> str:
    """The name of a dataset: its folder's name, and the split if there is one."""
    name = as_text(folder.resolve().name)
    return name if split is None else f"{name} {split}"


def first_path(candidates: Iterable[Path], fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """The first of the candidates that is a file, or for which `fits` holds."""
    for path in candidates:
        try:
            if fits(path):
                return path
        except OSError:  # The name is invalid, for example too long.
            continue
    return None


def read_lines(path: Path) -> list[str]:
    """The non-blank lines of a text file, see `read_all_lines`."""
    return list(filter(None, read_all_lines(path)))


def read_all_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped; bytes that are not UTF-8 become surrogate escapes, as in paths.

    Raises:
        BoxlessError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise BoxlessError(f"{path}: cannot be read ({error.strerror})") from error
    return [line.strip() for line in text.split("\n")]


def as_text(name: str) -> str:
    """A name in which bytes that are not UTF-8 (surrogate escapes) are read as Latin-1, as they mostly are."""
    return re.sub("[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), name)


def merge_names(names: Mapping[int, str]) -> tuple[str, ...]:
    """Class names in the order of their numbers, without duplicates."""
    return tuple(dict.fromkeys(names[number] for number in sorted(names)))
