"""Images for the page, small enough to lie in it: thumbnails, boxes, heatmaps, and what is worth looking at first."""

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxless.detector import confident
from boxless.evaluation import DatasetPredictions
from boxless.images import below, read_image
from boxless.metrics import judge, ranking
from boxless.metrics.errors import Outcome
from boxless.structures import BoolArray, Detections, FloatArray, Heatmaps, Sample

IMAGES = 400
"""Most images on a page; of more, those that come first in one of the orders are shown. Numbers are of all."""
SIDE = 384
"""Longest side of a thumbnail in pixels."""
BYTES = 24_000
"""A thumbnail that takes more is compressed harder; with its base64 and its heatmaps 400 stay under 15 MB."""
QUALITIES = (80, 65, 50, 35, 20)
"""Of JPEG, tried in turn."""
MAP_SIDE = 32
"""Longest side of a heatmap in cells; a finer one is averaged."""
MAPS = 6
"""Most heatmaps of one image."""
STOPS = 100
"""Thresholds that the slider has, at most."""

Maps = dict[int, NDArray[np.uint8]]


def small_maps(sample: Sample, detections: Detections, heatmaps: Heatmaps) -> Maps:
    """The heatmaps of an image that are worth a look, in 8 bits.

    Args:
        sample: the image; its tags are looked at first.
        detections: what was found; classes whose boxes are shown come next, then the likeliest.
        heatmaps: of all classes.

    Returns:
        By class (h, w) uint8; 0 is 0 and what speaks against the class, 255 the map's greatest value.
    """
    likely = np.argsort(-detections.image_scores, kind="stable")[:2].tolist()
    wanted = dict.fromkeys([*sorted(sample.tags), *confident(detections).labels.tolist(), *likely])
    height, width = heatmaps.maps.shape[1:]
    factor = min(1.0, MAP_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    maps = {}
    for label in islice(wanted, MAPS):
        small = cv2.resize(np.maximum(heatmaps.maps[label], 0), size, interpolation=cv2.INTER_AREA)
        maps[label] = np.rint(small * (255 / max(float(small.max()), 1e-12))).astype(np.uint8)
    return maps


def gallery(decisions: DatasetPredictions, maps: Sequence[Maps], data: Path) -> dict[str, Any]:
    """What the page needs to show images.

    Args:
        decisions: of a detector on a dataset.
        maps: of every image, see `small_maps`.
        data: the path the dataset came from; file names are shown as seen from it.

    Returns:
        JSON-able: `images`, each with `name`, `src` (a data URI), `size`, `tags` and `scores` (of classes), `boxes`
        ([x1, y1, x2, y2, score, label, outcome or None]), `ground_truth` ([x1, y1, x2, y2, label, difficult], or None) and
        `maps` (by class, base64) with their `grid`; `orders`, by name and class ("" for all) rows of `images`;
        `threshold`, see `thresholds`; `of`, how many images there are.
    """
    outcomes = _outcomes(decisions)
    orders = {
        name: {"" if label is None else str(label): rows for label, rows in by_class}
        for name, by_class in _orders(decisions, outcomes).items()
    }
    turns = chain.from_iterable(zip_longest(*(order[""] for order in orders.values())))
    chosen = sorted(islice(dict.fromkeys(row for row in turns if row is not None), IMAGES))
    place = {row: i for i, row in enumerate(chosen)}
    shown = {
        name: {label: [place[row] for row in rows if row in place] for label, rows in by_class.items()}
        for name, by_class in orders.items()
    }
    return {
        "images": [_image(row, decisions, maps[row], outcomes, data) for row in chosen],
        "orders": shown,
        "threshold": thresholds(decisions),
        "of": len(decisions.detections),
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


def thresholds(decisions: DatasetPredictions) -> dict[str, Any]:
    """Score thresholds and how many boxes reach each.

    Scores of some methods share one unit among all boxes of an image, so the thresholds are spaced by how many boxes
    they leave: from all to one, by equal factors.

    Returns:
        `stops`: rising scores; `start`: index of the one that leaves about as many boxes as `confident` chooses;
        `counts`: for every class and stop [boxes, boxes judged, right ones], the latter two as in VOC's average
        precision, over the images with annotations.
    """
    detections, samples = decisions.detections, decisions.dataset.samples
    scores = -np.sort(-rounded(np.concatenate([found.scores for found in detections])))
    if not len(scores):
        return {"stops": [0.0], "start": 0, "counts": [[[0, 0, 0]] for _ in decisions.dataset.classes]}
    leaves = np.unique(np.rint(np.geomspace(1, len(scores), STOPS)).astype(int))
    stops = np.unique(scores[leaves - 1])
    wanted = sum(len(confident(found)) for found in detections)
    start = int(np.searchsorted(stops, scores[max(wanted, 1) - 1]))
    known = [row for row, sample in enumerate(samples) if sample.annotations is not None]
    found, ground_truth = (
        [detections[row] for row in known],
        [s.annotations for s in samples if s.annotations is not None],
    )
    counts = []
    for label in range(len(decisions.dataset.classes)):
        own = rounded(np.concatenate([found.scores[found.labels == label] for found in detections]))
        judged, hits, _ = ranking(found, ground_truth, label)
        reached = [own >= stop for stop in stops], [rounded(judged) >= stop for stop in stops]
        counts.append([[int(a.sum()), int(b.sum()), int(hits[b].sum())] for a, b in zip(*reached, strict=True)])
    return {"stops": stops.tolist(), "start": min(start, len(stops) - 1), "counts": counts}


def rounded(values: FloatArray) -> NDArray[np.float64]:
    """To four significant digits: as the page writes, counts and compares them."""
    return np.array([float(f"{value:.4g}") for value in values.tolist()], np.float64)


Outcomes = dict[tuple[int, int], tuple[Outcome, float]]
"""By image and row in its detections: what a confident box is, and its place among those of its class, 0 first."""


def _outcomes(decisions: DatasetPredictions) -> Outcomes:
    detections, samples = decisions.detections, decisions.dataset.samples
    known = [row for row, sample in enumerate(samples) if sample.annotations is not None]
    found, ground_truth = (
        [detections[row] for row in known],
        [s.annotations for s in samples if s.annotations is not None],
    )
    outcomes: Outcomes = {}
    for label in range(len(decisions.dataset.classes)):
        named, _, places = judge(found, ground_truth, label)
        for i, (outcome, (image, row)) in enumerate(zip(named, places, strict=True)):
            outcomes[known[image], row] = outcome, i / len(named)
    return outcomes


def _orders(decisions: DatasetPredictions, outcomes: Outcomes) -> dict[str, Iterator[tuple[int | None, list[int]]]]:
    """The orders in which images are looked at, for all classes (None) and for each: rows, first to last.

    `confident`: the likeliest class first. `uncertain`: the class scores nearest to one half first. `worst`: the surest
    wrong box first, counted within its class as scores compare within one only; images without one are left out.
    """
    scores = np.array([found.image_scores for found in decisions.detections], np.float32)
    labels = [None, *range(len(decisions.dataset.classes))]
    wrong: dict[int | None, dict[int, float]] = {label: {} for label in labels}
    for (image, row), (outcome, place) in outcomes.items():
        if outcome != "correct":
            for label in (None, int(decisions.detections[image].labels[row])):
                wrong[label][image] = min(place, wrong[label].get(image, 1.0))

    def columns(values: FloatArray, label: int | None) -> FloatArray:
        return np.asarray(values.max(axis=1) if label is None else values[:, label])

    def ranked(values: FloatArray) -> Iterator[tuple[int | None, list[int]]]:
        return ((label, np.argsort(-columns(values, label), kind="stable").tolist()) for label in labels)

    orders = {"confident": ranked(scores), "uncertain": ranked(-np.abs(scores - 0.5))}
    if outcomes:
        orders["worst"] = ((label, sorted(rows, key=lambda row: (rows[row], row))) for label, rows in wrong.items())
    return orders


def _image(row: int, decisions: DatasetPredictions, maps: Maps, outcomes: Outcomes, data: Path) -> dict[str, Any]:
    sample, found = decisions.dataset.samples[row], decisions.detections[row]
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
        "ground_truth": None
        if ground_truth is None
        else _true_boxes(ground_truth.boxes, ground_truth.labels.tolist(), ground_truth.ignore),
        "maps": {str(label): base64.b64encode(values.tobytes()).decode() for label, values in maps.items()},
        "grid": [grid[1], grid[0]],
    }


def _true_boxes(boxes: FloatArray, labels: list[int], difficult: BoolArray) -> list[list[Any]]:
    rows = zip(_corners(boxes), labels, difficult.tolist(), strict=True)
    return [[*box, label, hard] for box, label, hard in rows]


def _corners(boxes: FloatArray) -> list[list[float]]:
    return [[round(side, 1) for side in box] for box in boxes.tolist()]
