"""Problems of the data, counted while it is loaded, and the refusal of data that mostly does not match."""

import re
from collections.abc import Mapping
from pathlib import Path
from unicodedata import category

from boxless.errors import BoxlessError
from boxless.wording import counted

NAMED = 5
"""Files, rows or classes of a problem that are named."""


class Problems:
    """Collects problems of the data and summarises each kind in one line."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._unmatched: list[str] = []

    def add(self, kind: str, name: str) -> None:
        """Record a problem of this kind with the file, row or class called `name`."""
        self._names.setdefault(kind, []).append(name)

    def add_unread(self, unread: Mapping[Path, str], root: Path) -> None:
        """Record the image files that `image_files.scan_images` left out, by their paths relative to `root`."""
        for path, reason in unread.items():
            name = path.relative_to(root) if path.is_relative_to(root) else path
            self.add(f"image files left out, {reason}", name.as_posix())

    def add_unmatched(self, kind: str, name: str) -> None:
        """Record something without its counterpart, such as an annotation without an image; the summary counts it."""
        self.add(kind, name)
        if kind not in self._unmatched:
            self._unmatched.append(kind)

    def refuse_most(self, kind: str, total: int, where: Path, fix: str) -> None:
        """Stop if more than half of `total` files or entries have a problem of this kind.

        Raises:
            BoxlessError: they do; the message names some of them.
        """
        names = self._names.get(kind, [])
        if 2 * len(names) > total:
            raise BoxlessError(f"{where}: {len(names):,} of {_counted(total, kind)} ({_first(names)}); {fix}")

    def lines(self) -> tuple[str, ...]:
        """One line per kind: the kind, how often it occurred, and the first five names."""
        return tuple(f"{kind}: {len(names)} ({_first(names)})" for kind, names in self._names.items())

    def unmatched(self) -> list[str]:
        """How often each kind of `add_unmatched` occurred, such as `3 annotation files without an image`."""
        return [_counted(len(self._names[kind]), kind) for kind in self._unmatched]


def printable(name: str) -> str:
    """A name in which bytes that are not UTF-8 (surrogate escapes) are written as `\\udcXX`."""
    return name.encode("utf-8", "backslashreplace").decode()


def _first(names: list[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(map(_shown, distinct[:NAMED])) + (", ..." if len(distinct) > NAMED else "")


def _shown(name: str) -> str:
    """A printable name in which characters that break or control a line are written as `\\x1b` and the like."""
    breaks = ("Cc", "Zl", "Zp")
    return "".join(
        char.encode("unicode_escape").decode() if category(char) in breaks else char for char in printable(name)
    )


def _counted(number: int, kind: str) -> str:
    """Such as `3 label files without an image`; for 1 the first plural of the kind becomes a singular."""
    short = kind.partition(",")[0]
    return counted(number, re.sub(r"s\b", "", short, count=1), short)
