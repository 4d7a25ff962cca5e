"""One fault of a set of tags or images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from boxless.images import below

Level = Literal["hopeless", "weak", "note"]
"""`hopeless` and `weak` are a class's verdict, or what to mend in the whole set; a `note` is good to know."""


@dataclass(frozen=True)
class Finding:
    """One fault of a set of tags, wherever it occurs.

    Args:
        fault: its name, in a few words.
        level: how bad it is.
        what: what was found, with numbers.
        mend: what to do.
        classes: whose verdict it decides, or whom a note is about; none if it is of the whole set.
        images: the files it is about, those that show the same in one group.
    """

    fault: str
    level: Level
    what: str
    mend: str
    classes: list[str] = field(default_factory=list)
    images: list[list[str]] = field(default_factory=list)


def name_files(groups: Sequence[Sequence[str]], data: Path) -> list[str]:
    """A finding's images for people to read: a line a group, as seen from the data, and the first few only."""
    return _few([", ".join(_few([below(data, file) for file in group])) for group in groups])


def _few(words: list[str]) -> list[str]:
    return words[:3] + ([f"... and {len(words) - 3:,} more"] if len(words) > 3 else [])
