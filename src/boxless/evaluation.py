"""How good a detector is on a dataset with tags or boxes, and where it is right and wrong."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxless.cached_dataset import prepare
from boxless.datasets import load_dataset
from boxless.detector import Detector, points_of
from boxless.devices import full_width, one_thread_a_image
from boxless.errors import BoxlessError
from boxless.metrics import diagnose_detections, evaluate_detections
from boxless.progress import announce, track_threads
from boxless.structures import Dataset, Detections, FloatArray, Heatmaps, Sample


def evaluate(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Score a detector; each number's convention stands beside it under `conventions`.

    Args:
        detector: the detector.
        data: a dataset, or a path that `load_dataset` takes; any with tags, box metrics need boxes. Its classes are
            matched to the detector's by name.
        split: of the data at a path.

    Returns:
        What `metrics.evaluate_detections` gives, with `data` (its name), `supervision` (of the detector: `tags` or
        `boxes`), `seconds` and `skipped` (images that could not be read).

    Raises:
        BoxlessError: the dataset has none of the detector's classes, or no readable image.
    """
    return predict_dataset(detector, matched(detector, data, split), "Evaluate").scores()


def diagnose(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Tell where a detector is right and wrong; each number's convention stands beside it under `conventions`.

    Args:
        detector: the detector.
        data: a dataset with boxes, or a path that `load_dataset` takes. Its classes are matched to the detector's by
            name.
        split: of the data at a path.

    Returns:
        What `metrics.diagnose_detections` gives, with `data` (its name), `supervision` (of the detector: `tags` or
        `boxes`), `seconds` and `skipped` (images that could not be read).

    Raises:
        BoxlessError: the dataset has no boxes, none of the detector's classes, or no readable image.
    """
    dataset = matched(detector, data, split)
    if not dataset.has_boxes:
        raise BoxlessError(
            f"{dataset.name} has no boxes, and a diagnosis needs them: give data in VOC, COCO or YOLO form"
        )
    return predict_dataset(detector, dataset, "Diagnose").diagnosis()


@dataclass(frozen=True)
class DatasetPredictions:
    """What a detector makes of a dataset: one walk over the images serves scores, diagnosis and report.

    Args:
        dataset: in the detector's classes, without the images that were skipped.
        supervision: of the detector, `tags` or `boxes`.
        detections: one an image.
        points: (images, classes, 2) float32, see `points_of`.
        skipped: images that could not be read -> reason.
        seconds: how long it took.
    """

    dataset: Dataset
    supervision: str
    detections: list[Detections]
    points: FloatArray
    skipped: dict[Path, str]
    seconds: float

    def scores(self) -> dict[str, Any]:
        """What `evaluate` gives."""
        samples, classes = self.dataset.samples, self.dataset.classes
        return self._told(evaluate_detections(self.detections, self.points, samples, classes))

    def diagnosis(self) -> dict[str, Any]:
        """What `diagnose` gives.

        Raises:
            BoxlessError: the dataset has no boxes.
        """
        return self._told(diagnose_detections(self.detections, self.dataset.samples, self.dataset.classes))

    def _told(self, result: dict[str, Any]) -> dict[str, Any]:
        told = {"data": self.dataset.name, "supervision": self.supervision, **result}
        return told | {"skipped": len(self.skipped), "seconds": self.seconds}


def matched(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None) -> Dataset:
    """The data in the detector's classes; what was wrong with it is said.

    Raises:
        BoxlessError: it cannot be loaded, or has none of the detector's classes.
    """
    dataset = data if isinstance(data, Dataset) else announce(load_dataset(data, split))
    return dataset.with_classes(detector.classes, strict=False)


def predict_dataset(
    detector: Detector,
    dataset: Dataset,
    description: str,
    look: Callable[[Sample, Detections, Heatmaps], None] | None = None,
) -> DatasetPredictions:
    """Run a detector over a dataset, behind a progress bar.

    Args:
        detector: the detector.
        dataset: in its classes, see `matched`.
        description: what the progress bar says.
        look: gets every image and what is made of it, in order; heatmaps are kept nowhere else.

    Raises:
        BoxlessError: no image can be read.
    """
    start = time.perf_counter()
    ready = prepare(dataset, detector.features, detector.views, detector.proposals)
    samples = ready.dataset.samples

    def work(row: int) -> tuple[Detections, Heatmaps]:
        boxes = ready.boxes(row) if ready.proposals else None
        return detector.postprocess([ready.map(row, view) for view in detector.views], boxes, ready.sizes[row])

    found, points = [], []
    with (
        one_thread_a_image(detector.device) as threads,
        full_width(detector.device),
        closing(track_threads(work, range(len(samples)), description, threads)) as decided,
    ):
        for sample, (detections, heatmaps) in zip(samples, decided, strict=True):
            found.append(detections)
            points.append(points_of(heatmaps))
            if look is not None:
                look(sample, detections, heatmaps)
    seconds = round(time.perf_counter() - start, 1)
    return DatasetPredictions(
        ready.dataset, detector.config.supervision, found, np.array(points), ready.skipped, seconds
    )
