"""The registry of dataset layouts, and recognition of the layout of a path."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from boxless.errors import BoxlessError
from boxless.registry import Registry
from boxless.structures import Dataset


class Source(NamedTuple):
    """A dataset on disk whose layout was recognised.

    Args:
        splits: returns the names of its splits; none if it is not split.
        load: reads a split; for None `trainval`, else `train`, else the only one (see `common.choose_split`). Boxes are
            xyxy in pixels of the displayed image, right and bottom exclusive.
    """

    splits: Callable[[], Collection[str]]
    load: Callable[[str | None], Dataset]


Layout = Callable[[Path], Source | None]
"""Recognises a file or folder, without reading images; returns None if it has another layout. The first line of its
docstring tells users what it recognises."""

LAYOUTS: Registry[Layout] = Registry("dataset layout")
"""The layout registered last is tried first, so that one from outside the package precedes the built-in ones."""


def recognise(path: Path) -> tuple[str, Source]:
    """The name of the layout, and the dataset at `path`.

    Raises:
        BoxlessError: there is nothing at `path`, or no layout recognises it.
    """
    # A text that is too long for a path raises an error in `Path.exists`.
    if not os.path.exists(path):  # noqa: PTH110
        raise BoxlessError(f"{path}: there is no such file or folder")
    for name, layout in reversed(LAYOUTS.items()):
        source = layout(path)
        if source is not None:
            return name, source
    known = "\n".join(f"  {name:12} {_summary(layout)}" for name, layout in reversed(LAYOUTS.items()))
    raise BoxlessError(f"{path}: {_complaint(path)}. Boxless reads\n{known}")


def _complaint(path: Path) -> str:
    if path.is_file():
        return "not a file of a recognised dataset layout"
    if not path.is_dir():
        return "a pipe or a device; save its content as a file"
    found = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    if not found:
        return "the folder is empty"
    return f"not a recognised dataset layout (found: {', '.join(found[:8])}{', ...' if found[8:] else ''})"


def _summary(layout: Layout) -> str:
    return (layout.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
