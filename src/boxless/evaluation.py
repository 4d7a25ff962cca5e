"""How good a detector is on a dataset with tags or boxes, and where it is right and wrong."""

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.inference import Detector, points_of
from boxless.metrics import diagnose_detections, evaluate_detections
from boxless.prepare import Prepared, prepare
from boxless.progress import announce, track
from boxless.structures import Dataset, Detections, Heatmaps


def evaluate(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Score a detector; each number's convention stands beside it under `conventions`.

    Args:
        detector: the detector.
        data: a dataset, or a path that `load_dataset` takes; any with tags, box metrics need boxes. Its classes are
            matched to the detector's by name.
        split: of the data at a path.

    Returns:
        What `metrics.evaluate_detections` gives, with `data` (its name), `supervision` (of the detector: `tags` or
        `boxes`), `seconds` and `skipped` (pictures that could not be read).

    Raises:
        BoxlessError: the dataset has none of the detector's classes, or no readable picture.
    """
    start = time.perf_counter()
    ready = _ready(detector, _matched(detector, data, split))
    found: list[Detections] = []
    points = []
    for detections, heatmaps in _decisions(detector, ready, "Evaluate"):
        found.append(detections)
        points.append(points_of(heatmaps))
    scores = evaluate_detections(found, np.array(points), ready.dataset.samples, detector.classes)
    return _told(detector, ready, scores, start)


def diagnose(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Tell where a detector is right and wrong; each number's convention stands beside it under `conventions`.

    Args:
        detector: the detector.
        data: a dataset with boxes, or a path that `load_dataset` takes. Its classes are matched to the detector's by
            name.
        split: of the data at a path.

    Returns:
        What `metrics.diagnose_detections` gives, with `data` (its name), `supervision` (of the detector: `tags` or
        `boxes`), `seconds` and `skipped` (pictures that could not be read).

    Raises:
        BoxlessError: the dataset has no boxes, none of the detector's classes, or no readable picture.
    """
    start = time.perf_counter()
    dataset = _matched(detector, data, split)
    if not dataset.has_boxes:
        raise BoxlessError(
            f"{dataset.name} has no boxes, and a diagnosis needs them: give data in VOC, COCO or YOLO form"
        )
    ready = _ready(detector, dataset)
    found = [detections for detections, _ in _decisions(detector, ready, "Diagnose")]
    return _told(detector, ready, diagnose_detections(found, ready.dataset.samples, detector.classes), start)


def _matched(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None) -> Dataset:
    dataset = data if isinstance(data, Dataset) else announce(load_dataset(data, split))
    return dataset.with_classes(detector.classes, strict=False)


def _ready(detector: Detector, dataset: Dataset) -> Prepared:
    return prepare(dataset, detector.features, detector.views, detector.proposals)


def _decisions(detector: Detector, ready: Prepared, description: str) -> Iterator[tuple[Detections, Heatmaps]]:
    """What the detector makes of every picture, behind a progress bar, one at a time in memory."""
    rows = zip(ready.dataset.samples, ready.keys, ready.sizes, strict=True)
    for sample, key, size in track(rows, description, len(ready.keys)):
        maps = [ready.features.load(key, sample.path, view) for view in detector.views]
        boxes = ready.proposals.load(key) if ready.proposals else None
        yield detector.decide(maps, boxes, size)


def _told(detector: Detector, ready: Prepared, result: dict[str, Any], start: float) -> dict[str, Any]:
    return {
        "data": ready.dataset.name,
        "supervision": detector.config.supervision,
        **result,
        "skipped": len(ready.skipped),
        "seconds": round(time.perf_counter() - start, 1),
    }
