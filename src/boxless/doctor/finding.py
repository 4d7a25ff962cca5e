"""One problem of a dataset's tags or images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from boxless.datasets.problems import printable
from boxless.image_files import below

Level = Literal["hopeless", "weak", "note"]
"""`hopeless` and `weak` are the verdict on a class, or need a fix in the dataset; a `note` is information."""


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset, with all its occurrences.

    Args:
        fault: its name, in a few words.
        level: its severity.
        what: what was found, with numbers.
        fix: what to do.
        classes: the classes whose verdict it determines, or that a note is about; none if it concerns the whole
        dataset.
        images: the files it concerns; files that show the same image are in one group.
    """

    fault: str
    level: Level
    what: str
    fix: str
    classes: list[str] = field(default_factory=list)
    images: list[list[str]] = field(default_factory=list)


def name_files(groups: Sequence[Sequence[str]], data: Path) -> list[str]:
    """The first few images of a finding for display: one line per group, paths relative to the data."""
    return _first([", ".join(_first([printable(below(data, file)) for file in group])) for group in groups])


def _first(words: list[str]) -> list[str]:
    return words[:3] + ([f"... and {len(words) - 3:,} more"] if len(words) > 3 else [])
