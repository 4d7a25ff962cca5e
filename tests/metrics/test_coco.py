"""COCO's average precision against pycocotools, and by hand."""

import contextlib
import io
import itertools
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxless.metrics import coco, coco_ap
from boxless.structures import Annotations, Detections

CLASSES = ("cat", "dog", "owl")
Box = tuple[float, float, float, float]
HERE, THERE = (0, 0, 100, 100), (200, 200, 300, 300)


def ground_truth(*objects: tuple[int, Box] | tuple[int, Box, bool]) -> Annotations:
    return Annotations(
        np.array([row[1] for row in objects], np.float32).reshape(-1, 4),
        np.array([row[0] for row in objects], np.int64),
        np.array([len(row) > 2 and row[2] for row in objects], np.bool_),
    )


def found(*objects: tuple[int, Box, float]) -> Detections:
    return Detections(
        np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in objects], np.float32),
        np.array([label for label, _, _ in objects], np.int64),
        CLASSES,
        (640, 640),
        np.zeros(len(CLASSES), np.float32),
    )


def pycocotools_ap(detections: list[Detections], annotations: list[Annotations]) -> list[float]:
    """AP50:95 of every class; NaN where pycocotools says -1."""
    known_objects, results = COCO(), COCO()
    content: dict[str, list[dict[str, object]]] = {"annotations": []}
    content["images"] = [{"id": i} for i in range(1, len(detections) + 1)]
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    rows: list[dict[str, object]] = []
    numbers = itertools.count(1)

    def row(image: int, label: int, box: list[float]) -> dict[str, object]:
        x1, y1, x2, y2 = box
        bbox = [x1, y1, x2 - x1, y2 - y1]
        return {
            "id": next(numbers),
            "image_id": image,
            "category_id": label + 1,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
        }

    for i, (predicted, known) in enumerate(zip(detections, annotations, strict=True), 1):
        objects = zip(known.boxes.tolist(), known.labels.tolist(), known.ignore.tolist(), strict=True)
        content["annotations"] += [row(i, label, box) | {"iscrowd": int(crowd)} for box, label, crowd in objects]
        boxes = zip(predicted.boxes.tolist(), predicted.labels.tolist(), predicted.scores.tolist(), strict=True)
        rows += [row(i, label, box) | {"score": score, "iscrowd": 0} for box, label, score in boxes]
    known_objects.dataset, results.dataset = content, content | {"annotations": rows}
    with contextlib.redirect_stdout(io.StringIO()):
        known_objects.createIndex()
        results.createIndex()
        evaluation = COCOeval(known_objects, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # Thresholds, recall levels, classes, any area, 100 detections.
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return [float(np.mean(values)) if values.max() > -1 else math.nan for values in np.moveaxis(precision, 2, 0)]


def random_case(rng: np.random.Generator, integral: bool) -> tuple[list[Detections], list[Annotations]]:
    """Images with many near misses: scores with ties, crowds, classes without boxes, boxes on a grid or not."""

    def box() -> Box:
        left, top, width, height = rng.integers(0, 40, 2).tolist() + rng.integers(0, 30, 2).tolist()
        return left, top, left + width, top + height

    detections, annotations = [], []
    for _ in range(rng.integers(1, 7)):
        objects = [(int(rng.integers(2)), box(), bool(rng.random() < 0.25)) for _ in range(rng.integers(0, 8))]
        boxes = [(int(rng.integers(3)), box()) for _ in range(rng.integers(0, 6))]
        for label, near, _ in [objects[i] for i in rng.integers(0, len(objects), 12 if objects else 0)]:
            moved = np.array(near) + (rng.integers(-3, 4, 4) if integral else rng.normal(0, 2, 4))
            boxes.append((label, tuple(np.concatenate([moved[:2], np.maximum(moved[2:], moved[:2])]))))
        detections.append(found(*((label, one, float(rng.integers(1, 12)) / 11) for label, one in boxes)))
        annotations.append(ground_truth(*objects))
    return detections, annotations


def test_agrees_with_pycocotools_on_random_images():
    rng = np.random.default_rng(2014)
    values = []
    for case in range(300):
        detections, annotations = random_case(rng, integral=case % 2 == 0)
        expected = pycocotools_ap(detections, annotations)
        ours = coco_ap(detections, annotations, len(CLASSES))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12, err_msg=f"case {case}")
        values += ours.tolist()
    known = [value for value in values if not math.isnan(value)]
    assert len(known) > 400 and len(values) - len(known) > 100
    assert 0.1 < np.mean(known) < 0.9


def test_agrees_with_pycocotools_beyond_a_hundred_detections(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 60, (150, 2)).tolist()
    many = found(*((0, (x, y, x + 20, y + 20), float(rng.random())) for x, y in corners))
    objects = [ground_truth(*((0, (x, y, x + 20, y + 20)) for x, y in corners[:40]))]
    ap = coco_ap([many], objects, 3)
    np.testing.assert_allclose(ap, pycocotools_ap([many], objects), rtol=0, atol=1e-12)
    best = many[np.argsort(-many.scores)[:100]]
    assert ap[0] == coco_ap([best], objects, 3)[0]
    monkeypatch.setattr(coco, "MAX_DETECTIONS", 1000)
    assert ap[0] < coco_ap([many], objects, 3)[0]


@pytest.mark.parametrize(("columns", "thresholds"), [(100, 10), (95, 10), (94, 9), (72, 5), (50, 1), (49, 0)])
def test_a_box_counts_at_the_thresholds_that_its_iou_reaches(columns: int, thresholds: int):
    # IoU of columns / 100.
    ap = coco_ap([found((0, (0, 0, columns, 100), 0.5))], [ground_truth((0, HERE))], 3)
    assert ap[0] == pytest.approx(thresholds / 10)


def test_recall_levels_that_are_not_reached_count_as_zero():
    # A miss, then one hit of two objects: precision 1/2 at recall 0, 0.01 ... 0.5.
    detections = found((0, (400, 400, 500, 500), 0.9), (0, HERE, 0.8))
    ap = coco_ap([detections], [ground_truth((0, HERE), (0, THERE))], 3)
    assert ap[0] == pytest.approx(51 / 101 / 2)


def test_a_detection_matches_a_free_object_where_the_better_one_is_taken():
    low, high = (0, 0, 100, 100), (0, 0, 100, 140)
    # IoU with the taken one 100/110, with the free one 110/140: enough at 0.5 to 0.75. VOC counts it as a duplicate.
    detections = found((0, low, 0.9), (0, (0, 0, 100, 110), 0.8))
    ap = coco_ap([detections], [ground_truth((0, low), (0, high))], 3)
    assert ap[0] == pytest.approx((6 * 1 + 4 * 51 / 101) / 10)


def test_crowds_are_no_objects_and_excuse_detections_within():
    crowd, inside = (0, 0, 300, 300), (10, 10, 40, 40)
    both = ground_truth((0, crowd, True), (0, (400, 400, 500, 500)))
    # Two boxes within the crowd are ignored whatever their IoU; one half outside is a miss at 0.55 and above.
    excused = found((0, inside, 0.9), (0, inside, 0.8), (0, (400, 400, 500, 500), 0.7))
    assert coco_ap([excused], [both], 3)[0] == pytest.approx(1)
    outside = found((0, (250, 0, 350, 100), 0.9), (0, (400, 400, 500, 500), 0.7))
    assert coco_ap([outside], [both], 3)[0] == pytest.approx((1 * 1 + 9 * 1 / 2) / 10)
    assert math.isnan(coco_ap([excused], [ground_truth((0, crowd, True))], 3)[0])


def test_classes_without_objects_are_undefined_and_those_not_found_have_zero():
    ap = coco_ap([found((1, HERE, 0.5))], [ground_truth((0, HERE))], 3)
    assert ap[0] == 0
    assert np.isnan(ap[1:]).all()
    assert np.isnan(coco_ap([], [], 3)).all()


def test_detections_and_annotations_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        coco_ap([found()], [], 3)
