"""A dataset layout: JSON Lines, with an image on each line.

    {"image": "photos/1.jpg", "split": "train", "tags": ["dent", "scratch"]}
    {"image": "photos/2.jpg", "split": "val", "boxes": [["dent", 12, 30, 96, 74]]}

Run the command line with it:

    python layout.py doctor data.jsonl
    python layout.py train data.jsonl --out runs/dents
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from boxless.datasets import LAYOUTS, Source
from boxless.datasets.common import Object, boxed_sample, choose_split
from boxless.datasets.problems import Problems
from boxless.errors import BoxlessError
from boxless.structures import Dataset, Sample


@LAYOUTS.register("JSON Lines")
def json_lines(path: Path) -> Source | None:
    """A .jsonl file with `image`, `split`, and `tags` or `boxes` on each line."""
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    return Source(partial(splits, path), partial(load, path))


def splits(file: Path) -> set[str]:
    """The values of `split`."""
    return {row["split"] for row in read(file)}


def load(file: Path, split: str | None) -> Dataset:
    """Read one split; classes are sorted by name."""
    split = choose_split(split, splits(file), file)
    rows = [row for row in read(file) if row["split"] == split]
    named = [row.get("tags", []) + [name for name, *_ in row.get("boxes", [])] for row in rows]
    classes = sorted({name for names in named for name in names})
    problems, samples = Problems(), []
    for row, names in zip(rows, named, strict=True):
        image = file.parent / row["image"]
        if not image.is_file():
            problems.add("lines whose image is missing, left out", row["image"])
        elif "boxes" in row:
            objects = [Object(name, (x1, y1, x2, y2)) for name, x1, y1, x2, y2 in row["boxes"]]
            samples.append(boxed_sample(row["image"], image, objects, classes, None, problems))
        else:
            samples.append(Sample(row["image"], image, frozenset(map(classes.index, names))))
    return Dataset(f"{file.stem} {split}", tuple(classes), tuple(samples), problems.lines())


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of the file."""
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise BoxlessError(f"{file}: a line is not JSON ({error}); fix it") from None


if __name__ == "__main__":
    from boxless.cli import main

    main()
