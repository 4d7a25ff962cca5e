"""A small review: three images of 200 x 100 pixels, their tags, and a queue that was written by hand."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from serving import encoded, served_app

from boxless.review.app import Review, create_review_app, open_review
from boxless.run_folder import FORMAT

CLASSES = ("cat", "dog", "owl")
CAT, DOG = [20.0, 20.0, 80.0, 80.0], [120.0, 10.0, 180.0, 90.0]
LEFT_DOG = [10.0, 10.0, 60.0, 60.0]
OWL, INNER_OWL = [50.0, 20.0, 150.0, 70.0], [60.0, 30.0, 90.0, 60.0]
QUEUE: list[tuple[str, list[tuple[str, list[float]]]]] = [
    ("a.png", [("cat", CAT), ("dog", DOG)]),
    ("b.png", [("dog", LEFT_DOG)]),
    ("c.png", [("owl", OWL), ("owl", INNER_OWL)]),
]
"""Images and their proposed boxes."""


def write_review(folder: Path) -> None:
    """Write `run/manifest.json`, `data/tags.csv` with the images, and `queue.jsonl`."""
    (folder / "run").mkdir(parents=True)
    kept = {"method": "cam", "supervision": "tags", "data": {}, "weights": {}, "seconds": {}, "finished": True}
    (folder / "run" / "manifest.json").write_text(json.dumps({"format": FORMAT, "classes": CLASSES, **kept}))
    (folder / "data").mkdir()
    (folder / "data" / "tags.csv").write_text("image,tags\na.png,cat;dog\nb.png,dog\nc.png,owl\n")
    lines = []
    for name, boxes in QUEUE:
        (folder / "data" / name).write_bytes(encoded(size=(200, 100)))
        rows = [{"class": one, "xyxy": box, "score": 0.5} for one, box in boxes]
        lines.append(json.dumps({"image": name, "score": 1.0, "reasons": ["owl is unlikely"], "boxes": rows}) + "\n")
    (folder / "queue.jsonl").write_text("".join(lines))


def words(folder: Path) -> list[str]:
    """Arguments and options of `boxless review` for it."""
    data, queue, out = (str(folder / name) for name in ("data/tags.csv", "queue.jsonl", "labels.jsonl"))
    return [str(folder / "run"), data, "--queue", queue, "--out", out, "--port", "0"]


def opened_review(folder: Path, **options: Any) -> Review:
    """The review, begun or continued."""
    queue = folder / "queue.jsonl"
    return open_review(folder / "run", folder / "data" / "tags.csv", folder / "labels.jsonl", queue=queue, **options)


def served(review: Review) -> AbstractContextManager[str]:
    """Serve on a free port of the loopback interface; gives the address."""
    return served_app(create_review_app(review))


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every line of the labels."""
    file = folder / "labels.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def last(folder: Path, image: str) -> dict[str, Any]:
    """The last line of an image."""
    return [line for line in lines(folder) if line["image"] == image][-1]


def box(name: str, xyxy: list[float], state: str, proposed: list[float] | None = None) -> dict[str, Any]:
    """A box as a line has it."""
    said = {"class": name, "xyxy": xyxy, "state": state}
    return said if proposed is None else said | {"proposed": {"class": name, "xyxy": proposed}}
