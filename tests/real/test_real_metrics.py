"""The metrics on the official boxes of VOC2007 test."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from boxless.metrics import evaluate_detections
from boxless.structures import Annotations, Detections, Sample

pytestmark = pytest.mark.skipif("BOXLESS_DATA" not in os.environ, reason="set BOXLESS_DATA to the folder of real data")

SIZE = (500, 500)


@pytest.fixture(scope="module")
def voc2007_test() -> tuple[list[Sample], tuple[str, ...]]:
    path = Path(os.environ["BOXLESS_DATA"]) / "voc_official_boxes.json"
    images = json.loads(path.read_text())["voc2007_test"]
    classes = tuple(sorted({name for objects in images.values() for name, *_ in objects}))
    return [_sample(name, objects, classes) for name, objects in images.items()], classes


def _sample(name: str, objects: list[list], classes: tuple[str, ...]) -> Sample:
    labels = np.array([classes.index(row[0]) for row in objects], np.int64)
    boxes = np.array([row[1:5] for row in objects], np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)
    difficult = np.array([row[5] for row in objects], np.bool_)
    tags = frozenset(labels[~difficult].tolist())
    unsure = frozenset(labels.tolist()) - tags
    return Sample(name, Path(f"{name}.jpg"), tags, unsure, Annotations(boxes, labels, difficult))


def _found(sample: Sample, classes: tuple[str, ...], shift: float) -> Detections:
    assert sample.annotations is not None
    scores = np.random.default_rng(int(sample.id)).random(len(sample.annotations.boxes), np.float32)
    image_scores = np.isin(np.arange(len(classes)), list(sample.tags)).astype(np.float32)
    boxes, labels = sample.annotations.boxes + np.float32(shift), sample.annotations.labels
    return Detections(boxes, scores, labels, classes, SIZE, image_scores)


def _centres(samples: list[Sample], classes: tuple[str, ...], shift: float) -> np.ndarray:
    points = np.zeros((len(samples), len(classes), 2), np.float32)
    for row, sample in zip(points, samples, strict=True):
        assert sample.annotations is not None
        boxes = sample.annotations.boxes
        row[sample.annotations.labels] = (boxes[:, :2] + boxes[:, 2:]) // 2 + shift
    return points


def test_the_ground_truth_is_a_perfect_detector(voc2007_test: tuple[list[Sample], tuple[str, ...]]):
    samples, classes = voc2007_test
    found = [_found(sample, classes, shift=0) for sample in samples]

    result = evaluate_detections(found, _centres(samples, classes, shift=0), samples, classes)

    assert len(classes) == 20
    # VOC2007 test has 4,952 images and, as VOC's own statistics say, 12,032 objects that are not difficult.
    assert result["images"] == 4952
    assert sum(row["objects"] for row in result["classes"].values()) == 12032
    for metric in ("mAP_11point", "mAP_area", "mAP_50_95", "CorLoc", "classification_mAP", "pointing_mAP"):
        # In COCO's convention the box of a difficult object may match another object, whose own box is then a miss.
        assert result[metric] == pytest.approx(1, abs=1e-6 if metric == "mAP_50_95" else 1e-9), metric


def test_boxes_beside_the_objects_find_nothing(voc2007_test: tuple[list[Sample], tuple[str, ...]]):
    samples, classes = voc2007_test
    found = [_found(sample, classes, shift=1000) for sample in samples]

    result = evaluate_detections(found, _centres(samples, classes, shift=1000), samples, classes)

    for metric in ("mAP_11point", "mAP_area", "mAP_50_95", "CorLoc", "pointing_mAP"):
        assert result[metric] == 0, metric
    assert result["classification_mAP"] == pytest.approx(1)
