"""Scores and kinds of errors of a detector on a dataset with tags or boxes."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from boxless.cached_dataset import cache_dataset
from boxless.datasets import open_dataset
from boxless.datasets.class_names import spelling
from boxless.datasets.problems import Problems
from boxless.detector import Detector
from boxless.devices import images_at_once
from boxless.errors import BoxlessError
from boxless.logs import log_warnings
from boxless.metrics import diagnose_detections, evaluate_detections
from boxless.parallel import map_threads
from boxless.postprocess import points_of
from boxless.structures import Dataset, Detections, FloatArray, Heatmaps, Sample
from boxless.wording import training_images_note

logger = logging.getLogger(__name__)

_SPELT = (
    "classes that the detector and the data spell differently, in case, punctuation or Unicode form only, and which do "
    "not match therefore; give them one name"
)


def evaluate(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Score a detector; `conventions` explains each number.

    Args:
        detector: the detector.
        data: a dataset, or a path that `load_dataset` takes. Tags are enough for image classification; the other
            metrics need boxes. Its classes are matched to the detector's by name; those that only one of them has are
            logged.
        split: of the data at a path.

    Returns:
        What `metrics.evaluate_detections` gives, with `data` (its name), `supervision` (`Detector.supervision`),
        `training_images` (how many of the images the detector was trained on, which is a warning too; None if unknown,
        as of a run from the Hugging Face Hub), `seconds` and `skipped` (images that could not be read).

    Raises:
        BoxlessError: the dataset has none of the detector's classes, or no readable image.
    """
    predictions = predict_dataset(detector, matched(detector, data, split), "Evaluate")
    scores = predictions.scores()
    if scores["training_images"]:
        logger.warning("%s", training_images_note(scores))
    return scores


def diagnose(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
    """Classify a detector's errors and measure which objects it finds; `conventions` explains each number.

    Args:
        detector: the detector.
        data: a dataset with boxes, or a path that `load_dataset` takes. Its classes are matched to the detector's by
            name.
        split: of the data at a path.

    Returns:
        What `metrics.diagnose_detections` gives, with `data` (its name), `supervision` (`Detector.supervision`),
        `training_images` (see `evaluate`), `seconds` and `skipped` (images that could not be read).

    Raises:
        BoxlessError: the dataset has no boxes, none of the detector's classes, or no readable image.
    """
    dataset = matched(detector, data, split)
    if not dataset.has_boxes:
        raise BoxlessError(
            f"{dataset.name} has no boxes, and a diagnosis needs them: give a dataset in VOC, COCO or YOLO layout"
        )
    return predict_dataset(detector, dataset, "Diagnose").diagnosis()


@dataclass(frozen=True)
class DatasetPredictions:
    """The predictions of a detector on a dataset, computed once for scores, diagnosis and report.

    Args:
        dataset: in the detector's classes, without the images that were skipped.
        supervision: of the detector.
        detections: one per image.
        points: (images, classes, 2) float32, see `points_of`.
        skipped: images that could not be read -> reason.
        seconds: computing time.
        training_images: how many of the images the detector was trained on; None if unknown.
    """

    dataset: Dataset
    supervision: str
    detections: list[Detections]
    points: FloatArray
    skipped: dict[Path, str]
    seconds: float
    training_images: int | None = None

    def scores(self) -> dict[str, Any]:
        """What `evaluate` gives."""
        samples, classes = self.dataset.samples, self.dataset.classes
        return self._result(evaluate_detections(self.detections, self.points, samples, classes))

    def diagnosis(self) -> dict[str, Any]:
        """What `diagnose` gives.

        Raises:
            BoxlessError: the dataset has no boxes.
        """
        return self._result(diagnose_detections(self.detections, self.dataset.samples, self.dataset.classes))

    def _result(self, numbers: dict[str, Any]) -> dict[str, Any]:
        result = {"data": self.dataset.name, "supervision": self.supervision, **numbers}
        counts = {"training_images": self.training_images, "skipped": len(self.skipped)}
        return result | counts | {"seconds": self.seconds}


def matched(detector: Detector, data: Dataset | str | os.PathLike[str], split: str | None) -> Dataset:
    """The data in the detector's classes, matched by name; problems found in the data are logged.

    Raises:
        BoxlessError: it cannot be loaded, or has none of the detector's classes.
    """
    dataset, given = open_dataset(data, split), isinstance(data, Dataset)
    return in_classes(detector.classes, dataset if given else log_warnings(dataset), chosen=given)


def in_classes(classes: Sequence[str], data: Dataset, *, chosen: bool = False) -> Dataset:
    """The data in the classes of a detector; those that only one of both has are logged.

    Args:
        classes: of the detector.
        data: images with classes of their own.
        chosen: whether a subset of the classes was chosen on purpose (`load_dataset` with `classes`); missing classes
            are then not reported.

    Raises:
        BoxlessError: the data has none of the classes.
    """
    dataset = data.with_classes(classes, strict=False)
    lacking = [name for name in classes if name not in data.classes]
    others = [name for name in data.classes if name not in classes]
    spellings = {name: spelling(name) for name in (*lacking, *others)}
    pairs = [(one, other) for one in lacking for other in others if spellings[one] == spellings[other]]
    paired = {name for pair in pairs for name in pair}
    problems = Problems()
    for one, other in pairs:
        problems.add(_SPELT, f"{one} and {other}")
    for name in lacking if others or not chosen else ():
        if name not in paired:
            problems.add("classes of the detector that the data lacks", name)
    for name in others:
        if name not in paired:
            problems.add("classes of the data that the detector lacks, left out", name)
    # Without a class of the detector the mean is over fewer; other classes of the data change no score.
    level = logging.WARNING if lacking else logging.INFO
    for line in problems.lines():
        logger.log(level, "%s: %s", data.name, line)
    return dataset


def predict_dataset(
    detector: Detector,
    dataset: Dataset,
    description: str,
    on_image: Callable[[Sample, Detections, Heatmaps], None] | None = None,
) -> DatasetPredictions:
    """Run a detector over a dataset, behind a progress bar.

    Args:
        detector: the detector.
        dataset: in its classes, see `matched`.
        description: of the progress bar.
        on_image: called with every image and its predictions, in order; heatmaps are not kept otherwise.

    Raises:
        BoxlessError: no image can be read.
    """
    start = time.perf_counter()
    cached = cache_dataset(dataset, detector.features, detector.views, detector.proposals)
    samples = cached.dataset.samples

    def predict(rows: Sequence[int]) -> list[tuple[Detections, Heatmaps]]:
        return detector.postprocess_with_heatmaps([detector.read(cached, row) for row in rows])

    size = images_at_once(detector.device)
    parts = [range(first, min(first + size, len(samples))) for first in range(0, len(samples), size)]
    found, points = [], []
    with (
        detector.in_parallel() as threads,
        closing(map_threads(predict, parts, description, threads)) as predictions,
    ):
        for sample, (detections, heatmaps) in zip(samples, chain.from_iterable(predictions), strict=True):
            found.append(detections)
            points.append(points_of(heatmaps))
            if on_image is not None:
                on_image(sample, detections, heatmaps)
    seconds = round(time.perf_counter() - start, 1)
    known = detector.training_images
    trained_on = None if known is None else sum(key in known for key in cached.keys)
    return DatasetPredictions(
        cached.dataset, detector.supervision, found, np.array(points), cached.skipped, seconds, trained_on
    )
