"""How good a detector is on a dataset with tags or boxes."""

import os
import time
from typing import Any

import numpy as np

from boxless.datasets import load_dataset
from boxless.inference import Detector, points_of
from boxless.metrics import evaluate_detections
from boxless.prepare import prepare
from boxless.progress import announce, track
from boxless.structures import Dataset, Detections


def evaluate(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Score a detector; each number's convention stands beside it under `conventions`.

    Args:
        detector: the detector.
        data: a dataset, or a path that `load_dataset` takes; any with tags, box metrics need boxes. Its classes are
            matched to the detector's by name.
        split: of the data at a path.

    Returns:
        What `metrics.evaluate_detections` gives, with `data` (its name), `seconds` and `skipped` (pictures that could
        not be read).

    Raises:
        BoxlessError: the dataset has none of the detector's classes, or no readable picture.
    """
    start = time.perf_counter()
    dataset = data if isinstance(data, Dataset) else announce(load_dataset(data, split))
    dataset = dataset.with_classes(detector.classes, strict=False)
    ready = prepare(dataset, detector.features, detector.views, detector.proposals)
    found: list[Detections] = []
    points = []
    rows = zip(ready.dataset.samples, ready.keys, ready.sizes, strict=True)
    for sample, key, size in track(rows, "Evaluate", len(ready.keys)):
        maps = [ready.features.load(key, sample.path, view) for view in detector.views]
        boxes = ready.proposals.load(key) if ready.proposals else None
        detections, heatmaps = detector.decide(maps, boxes, size)
        found.append(detections)
        points.append(points_of(heatmaps))
    scores = evaluate_detections(found, np.array(points), ready.dataset.samples, detector.classes)
    return {
        "data": dataset.name,
        **scores,
        "skipped": len(ready.skipped),
        "seconds": round(time.perf_counter() - start, 1),
    }
