"""What the formats share: collecting problems, choosing a split, and the way from named objects to a sample."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxless.errors import BoxlessError
from boxless.structures import Annotations, Sample

Box = tuple[float, float, float, float]
"""xyxy in pixels, right and bottom exclusive."""

_ROUNDING = 0.5
"""Pixels by which a box may leave its image without a word: normalised and shortened numbers come back inexact."""

_LARGEST_SIDE = 10**6
"""Pixels; what claims more is not believed, and an image of unknown size is taken to have as many."""


class Problems:
    """What is wrong with the data; many problems of one kind become one line."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Note that the file, row or class called `name` has a problem of this kind."""
        self._names.setdefault(kind, []).append(name)

    def lines(self) -> tuple[str, ...]:
        """One line a kind: what, how often, and the first three names."""
        return tuple(f"{kind}: {len(names)} ({_first(names)})" for kind, names in self._names.items())


def _first(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:3]) + (", ..." if len(distinct) > 3 else "")


@dataclass(frozen=True)
class Object:
    """One object that an image is said to show; `box` is None where its numbers cannot be read."""

    name: str
    box: Box | None
    difficult: bool = False


def boxed_sample(
    id_: str,
    path: Path,
    objects: Sequence[Object],
    classes: Sequence[str],
    size: tuple[int, int] | None,
    problems: Problems,
) -> Sample:
    """Turn an image's objects into a sample.

    Tags follow from names and difficult flags alone, whatever the boxes hold. Boxes are clipped to the image; those
    without numbers or area are dropped. Where objects are named and no box is left, `annotations` is None: an empty
    one would claim that nothing is there.

    Args:
        size: width and height in pixels, see `to_size`; None if unknown: then only the left and top edge clip.
    """
    index = {name: number for number, name in enumerate(classes)}
    named = {index[thing.name] for thing in objects}
    tags = {index[thing.name] for thing in objects if not thing.difficult}
    boxes = [(_clipped(thing.box, size or (_LARGEST_SIDE, _LARGEST_SIDE), id_, problems), thing) for thing in objects]
    kept = [(box, thing) for box, thing in boxes if box is not None]
    annotations = Annotations(
        np.array([box for box, _ in kept], np.float32).reshape(-1, 4),
        np.array([index[thing.name] for _, thing in kept], np.int64),
        np.array([thing.difficult for _, thing in kept], np.bool_),
    )
    unknown = bool(objects) and not kept
    return Sample(id_, path, frozenset(tags), frozenset(named - tags), None if unknown else annotations)


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


def to_floats(values: Iterable[Any]) -> list[float] | None:
    """The values as finite numbers, or None if one of them is none."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def to_size(values: Iterable[Any]) -> tuple[int, int] | None:
    """Width and height as whole numbers, or None where they are unknown; some tools write 0 then."""
    numbers = to_floats(values)
    if numbers is None or min(numbers) < 1 or max(numbers) > _LARGEST_SIDE:
        return None
    width, height = map(int, numbers)
    return width, height


def choose_split(split: str | None, found: Collection[str], where: Path) -> str:
    """The split to load: the one asked for; else `trainval`, else `train`, else the only one there is.

    Raises:
        BoxlessError: there is no such split, or none was asked for and several could be meant.
    """
    names = ", ".join(sorted(found))
    if not found:
        raise BoxlessError(f"{where} lists no split: nothing says which images belong to it")
    if split is not None:
        if split not in found:
            raise BoxlessError(f"{where} has no split {split!r}; it has: {names}")
        return split
    for usual in ("trainval", "train"):
        if usual in found:
            return usual
    if len(found) != 1:
        raise BoxlessError(f"{where}: say which split to load; it has: {names}")
    return next(iter(found))


def refuse_split(split: str | None, where: Path) -> None:
    """Raise BoxlessError if a split is asked of data that has none."""
    if split is not None:
        raise BoxlessError(f"{where} has no splits, so {split!r} cannot be chosen; leave the split out")


def dataset_name(folder: Path, split: str | None) -> str:
    """What to call a dataset: its folder's name, and the split if there is one."""
    name = folder.resolve().name
    return name if split is None else f"{name} {split}"


def first_path(candidates: Iterable[Path], fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """The first of the candidates that is a file (or whatever `fits`)."""
    for path in candidates:
        try:
            if fits(path):
                return path
        except OSError:  # What cannot be a name, for one too long, names nothing.
            continue
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped; bytes that are not UTF-8 become U+FFFD.

    Raises:
        BoxlessError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise BoxlessError(f"{path}: cannot be read ({error.strerror})") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def merge_names(names: Mapping[int, str]) -> tuple[str, ...]:
    """Class names in the order of their numbers, a name given twice once."""
    return tuple(dict.fromkeys(names[number] for number in sorted(names)))
