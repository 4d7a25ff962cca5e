"""What Boxless wrote into a folder, so that it overwrites nothing else, and reads none of it as data."""

from collections.abc import Sequence
from pathlib import Path

from boxless.errors import BoxlessError
from boxless.files import read_json, write_json

RECORD = ".boxless.json"
"""In a folder of results: the names of what Boxless wrote there, so that it overwrites and reads nothing else."""


def written_here(folder: Path) -> frozenset[str]:
    """The names of the files and folders in a folder that are results of Boxless, see `record_results`."""
    try:
        return frozenset(map(str, read_json((folder / RECORD).read_text(encoding="utf-8"))["written"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def check_results(out: Path, names: Sequence[str]) -> None:
    """Refuse to overwrite files that are not results of an earlier call.

    Raises:
        BoxlessError: `out` has one of these names, which `RECORD` does not list.
    """
    recorded = written_here(out)
    own = [out / name for name in names if (out / name).exists() and name not in recorded]
    if own:
        raise BoxlessError(f"{own[0]}: exists, and is no result of Boxless by {RECORD}; choose another --out")


def record_results(out: Path, names: Sequence[str]) -> None:
    """Record that these files are results, before the first of them is written."""
    write_json(out / RECORD, {"written": sorted({*written_here(out), *names})})
