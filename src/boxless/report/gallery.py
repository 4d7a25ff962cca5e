"""The images of the report: thumbnails, boxes and heatmaps small enough to embed, and the orders to show them in."""

import base64
import io
from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxless.evaluation import DatasetPredictions
from boxless.image_files import below
from boxless.images import read_image
from boxless.metrics import detection_outcomes, ranking, with_boxes
from boxless.metrics.errors import Outcome
from boxless.structures import BoolArray, Detections, FloatArray, Heatmaps, Sample

IMAGES = 400
"""The maximum number of images on a page: the first ones of every order. Numbers are of all images."""
SIDE = 384
"""Longest side of a thumbnail in pixels."""
BYTES = 24_000
"""The target size of a thumbnail; 400 of them, with base64 and heatmaps, take less than 15 MB."""
QUALITIES = (80, 65, 50, 35, 20)
"""JPEG qualities, tried in turn until the target size is met."""
MAP_SIDE = 32
"""Longest side of a heatmap in cells; finer ones are averaged."""
MAPS = 6
"""The maximum number of heatmaps per image."""
STOPS = 100
"""The maximum number of thresholds of the slider."""

Maps = dict[int, NDArray[np.uint8]]


def small_maps(sample: Sample, detections: Detections, heatmaps: Heatmaps) -> Maps:
    """The most relevant heatmaps of an image, in 8 bits.

    Args:
        sample: the image; heatmaps of its tags come first.
        detections: its detections; classes of confident boxes come next, then the two most likely classes.
        heatmaps: of all classes.

    Returns:
        By class (h, w) uint8; 0 for values of 0 and below, 255 for the map's greatest value.
    """
    likely = np.argsort(-detections.image_scores, kind="stable")[:2].tolist()
    labels = dict.fromkeys([*sorted(sample.tags), *detections.confident().labels.tolist(), *likely])
    height, width = heatmaps.maps.shape[1:]
    factor = min(1.0, MAP_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    maps = {}
    for label in islice(labels, MAPS):
        small = cv2.resize(np.maximum(heatmaps.maps[label], 0), size, interpolation=cv2.INTER_AREA)
        maps[label] = np.rint(small * (255 / max(float(small.max()), 1e-12))).astype(np.uint8)
    return maps


def gallery(predictions: DatasetPredictions, maps: Sequence[Maps], data: Path) -> dict[str, Any]:
    """The images of the page with all that is drawn over them.

    Args:
        predictions: of a detector on a dataset.
        maps: of every image, see `small_maps`.
        data: the path of the dataset; file names are shown relative to it.

    Returns:
        Values that JSON can represent: `images`, each with `name`, `src` (a data URI), `size`, `tags` and `scores` (of
        classes), `boxes` ([x1, y1, x2, y2, score, label, outcome or None]), `confident` (rows of these),
        `ground_truth` ([x1, y1, x2, y2, label, ignore], or None) and `maps` (by class, base64) with their `grid`;
        `orders`, by name and class ("" for all) rows of `images`;
        `threshold`, see `thresholds`; `total`, the number of images of the dataset.
    """
    outcomes = _outcomes(predictions)
    orders = _orders(predictions, outcomes)
    turns = chain.from_iterable(zip_longest(*(order[""] for order in orders.values())))
    chosen = sorted(islice(dict.fromkeys(row for row in turns if row is not None), IMAGES))
    place = {row: i for i, row in enumerate(chosen)}
    shown = {
        name: {label: [place[row] for row in rows if row in place] for label, rows in by_class.items()}
        for name, by_class in orders.items()
    }
    return {
        "images": [_image(row, predictions, maps[row], outcomes, data) for row in chosen],
        "orders": shown,
        "threshold": thresholds(predictions),
        "total": len(predictions.detections),
    }


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """An image (h, w, 3) uint8, RGB, as the data URI of a JPEG of about `BYTES` at most."""
    pil = Image.fromarray(pixels)
    pil.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        file = io.BytesIO()
        pil.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def thresholds(predictions: DatasetPredictions) -> dict[str, Any]:
    """Score thresholds and how many boxes reach each.

    Scores of some methods share one unit among all boxes of an image, so the thresholds are spaced by the number of
    boxes that reach them: from all to one, by equal factors.

    Returns:
        `stops`: rising scores; `start`: index of the one that about as many boxes reach as are confident;
        `counts`: for every class and stop [boxes, boxes evaluated, hits], the latter two as in VOC's average
        precision, over the images with annotations; `confident`: the same of the confident boxes, which the page shows
        first, as `boxless predict` does (`Detections.confident`).
    """
    detections, samples = predictions.detections, predictions.dataset.samples
    scores = -np.sort(-rounded(np.concatenate([found.scores for found in detections])))
    if not len(scores):
        none = [[0, 0, 0] for _ in predictions.dataset.classes]
        return {"stops": [0.0], "start": 0, "counts": [[row] for row in none], "confident": none}
    numbers = np.unique(np.rint(np.geomspace(1, len(scores), STOPS)).astype(int))
    stops = np.unique(scores[numbers - 1])
    shown = [found.confident() for found in detections]
    start = int(np.searchsorted(stops, scores[max(sum(map(len, shown)), 1) - 1]))
    known, known_shown = with_boxes(detections, samples), with_boxes(shown, samples)
    counts, confident = [], []
    for label in range(len(predictions.dataset.classes)):
        own = rounded(np.concatenate([found.scores[found.labels == label] for found in detections]))
        ranked, hits, _ = ranking(*known, label)
        reached = [own >= stop for stop in stops], [rounded(ranked) >= stop for stop in stops]
        counts.append([[int(a.sum()), int(b.sum()), int(hits[b].sum())] for a, b in zip(*reached, strict=True)])
        hits = ranking(*known_shown, label)[1]
        confident.append([sum(int((found.labels == label).sum()) for found in shown), len(hits), int(hits.sum())])
    return {"stops": stops.tolist(), "start": min(start, len(stops) - 1), "counts": counts, "confident": confident}


def rounded(values: FloatArray) -> NDArray[np.float64]:
    """Values rounded to four significant digits, as the page shows, counts and compares them."""
    return np.array([float(f"{value:.4g}") for value in values.tolist()], np.float64)


Outcomes = dict[tuple[int, int], tuple[Outcome, float]]
"""By image and row in its detections: the outcome of a top-scored box, and its rank within its class from 0 to 1."""


def _outcomes(predictions: DatasetPredictions) -> Outcomes:
    detections, samples = predictions.detections, predictions.dataset.samples
    images = [row for row, sample in enumerate(samples) if sample.annotations is not None]
    known = with_boxes(detections, samples)
    outcomes: Outcomes = {}
    for label in range(len(predictions.dataset.classes)):
        ranked, _, places = detection_outcomes(*known, label)
        for i, (outcome, (image, row)) in enumerate(zip(ranked, places, strict=True)):
            outcomes[images[image], row] = outcome, i / len(ranked)
    return outcomes


def _orders(predictions: DatasetPredictions, outcomes: Outcomes) -> dict[str, dict[str, list[int]]]:
    """The orders in which images are shown, for all classes ("") and for each by its number: rows, first to last.

    `confident`: by falling class score. `uncertain`: class scores nearest to one half first. `worst`: the wrong box of
    the best rank first, within its class as scores compare within one only; images without one are left out.
    """
    scores = np.array([found.image_scores for found in predictions.detections], np.float32)
    labels = list(map(str, range(len(predictions.dataset.classes))))
    errors: dict[str, dict[int, float]] = {label: {} for label in ("", *labels)}
    for (image, row), (outcome, place) in outcomes.items():
        if outcome != "correct":
            for label in ("", str(predictions.detections[image].labels[row])):
                errors[label][image] = min(place, errors[label].get(image, 1.0))

    def ranked(values: FloatArray) -> dict[str, list[int]]:
        columns = {"": values.max(axis=1), **dict(zip(labels, values.T, strict=True))}
        return {label: np.argsort(-column, kind="stable").tolist() for label, column in columns.items()}

    orders = {"confident": ranked(scores), "uncertain": ranked(-np.abs(scores - 0.5))}
    if outcomes:
        orders["worst"] = {label: sorted(rows, key=lambda row: (rows[row], row)) for label, rows in errors.items()}
    return orders


def _image(row: int, predictions: DatasetPredictions, maps: Maps, outcomes: Outcomes, data: Path) -> dict[str, Any]:
    sample, found = predictions.dataset.samples[row], predictions.detections[row]
    ground_truth = sample.annotations
    scores = rounded(found.scores).tolist()
    grid = next(iter(maps.values())).shape
    return {
        "name": below(data, sample.path),
        "src": thumbnail(read_image(sample.path)),
        "size": list(found.size),
        "tags": sorted(sample.tags),
        "scores": rounded(found.image_scores).tolist(),
        "boxes": [
            [*box, score, label, outcomes.get((row, i), (None,))[0]]
            for i, (box, score, label) in enumerate(
                zip(_corners(found.boxes), scores, found.labels.tolist(), strict=True)
            )
        ],
        "confident": np.flatnonzero(found.confident_mask).tolist(),
        "ground_truth": None
        if ground_truth is None
        else _objects(ground_truth.boxes, ground_truth.labels.tolist(), ground_truth.ignore),
        "maps": {str(label): base64.b64encode(values.tobytes()).decode() for label, values in maps.items()},
        "grid": [grid[1], grid[0]],
    }


def _objects(boxes: FloatArray, labels: list[int], difficult: BoolArray) -> list[list[Any]]:
    rows = zip(_corners(boxes), labels, difficult.tolist(), strict=True)
    return [[*box, label, ignore] for box, label, ignore in rows]


def _corners(boxes: FloatArray) -> list[list[float]]:
    return [[round(side, 1) for side in box] for box in boxes.tolist()]
