import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxless.errors import BoxlessError
from boxless.metrics import METRICS, evaluate_detections, metric, with_boxes
from boxless.metrics.summary import CONVENTIONS, mean_name
from boxless.structures import Annotations, Detections, Sample

CLASSES = ("cat", "dog", "owl")
BUILT_IN = "mAP_11point", "mAP_area", "mAP_50_95", "CorLoc", "classification_mAP", "pointing_mAP"
CAT, DOG, AWAY = (0, 0, 100, 100), (200, 200, 300, 300), (500, 500, 600, 600)


def sample(name: str, tags: set[int], objects: list[tuple[int, tuple[int, int, int, int], bool]]) -> Sample:
    annotations = Annotations(
        np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        np.array([label for label, _, _ in objects], np.int64),
        np.array([difficult for _, _, difficult in objects], np.bool_),
    )
    unsure = {label for label, _, _ in objects} - tags
    return Sample(name, Path(f"{name}.jpg"), frozenset(tags), frozenset(unsure), annotations)


def detections(
    objects: list[tuple[int, tuple[int, int, int, int], float]], image_scores: tuple[float, ...]
) -> Detections:
    return Detections(
        np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in objects], np.float32),
        np.array([label for label, _, _ in objects], np.int64),
        CLASSES,
        (640, 640),
        np.array(image_scores, np.float32),
    )


SAMPLES = [
    sample("a", {0}, [(0, CAT, False), (1, DOG, True)]),
    sample("b", {1}, [(1, DOG, False)]),
    sample("c", {1}, [(1, DOG, False), (1, CAT, False)]),
    sample("d", set(), []),
]
FOUND = [
    detections([(0, CAT, 0.9), (1, DOG, 0.8)], (0.9, 0.9, 0.1)),
    detections([(1, DOG, 0.9)], (0.1, 0.8, 0.2)),
    detections([(1, AWAY, 0.95)], (0.2, 0.6, 0.3)),
    detections([], (0.3, 0.7, 0.4)),
]
POINTS = np.array([[(50, 50), (250, 250), (0, 0)]] * 4, np.float32)


def test_every_score_is_the_hand_computed_one():
    result = evaluate_detections(FOUND, POINTS, SAMPLES, CLASSES)

    # Dogs: a miss (0.95), a hit (0.9), an ignored box (0.8), of three: precision 1/2 up to recall 1/3.
    dog = {
        "mAP_11point": 4 / 11 * 1 / 2,
        "mAP_area": 1 / 3 * 1 / 2,
        # As VOC's, as all boxes are exact: 34 of 101 recall levels are reached.
        "mAP_50_95": 34 / 101 * 1 / 2,
        "CorLoc": 1 / 2,
        # Image a is left out; present, absent, present.
        "classification_mAP": 1 / 2 + 1 / 2 * 2 / 3,
        "pointing_mAP": 1 / 2 + 1 / 2 * 2 / 3,
        "images": 2,
        "objects": 3,
    }
    cat = dict.fromkeys(BUILT_IN, 1.0) | {"images": 1, "objects": 1}
    owl = dict.fromkeys(BUILT_IN) | {"images": 0, "objects": 0}
    assert result["classes"]["cat"] == pytest.approx(cat)
    assert result["classes"]["dog"] == pytest.approx(dog)
    assert result["classes"]["owl"] == owl
    for name in BUILT_IN:
        assert result[name] == pytest.approx((1 + dog[name]) / 2), name
    assert result["images"] == 4


def test_has_exactly_the_documented_keys_and_survives_json():
    result = evaluate_detections(FOUND, POINTS, SAMPLES, CLASSES)

    assert set(result) == {*BUILT_IN, "classes", "images", "conventions"}
    assert list(result["classes"]) == list(CLASSES)
    assert all(set(row) == {*BUILT_IN, "images", "objects"} for row in result["classes"].values())
    assert set(result["conventions"]) == set(BUILT_IN)
    assert all(sentence.endswith(".") for sentence in result["conventions"].values())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_boxes_only_classification_is_measured():
    tags_only = [replace(sample, annotations=None) for sample in SAMPLES]

    result = evaluate_detections(FOUND, POINTS, tags_only, CLASSES)

    boxed = evaluate_detections(FOUND, POINTS, SAMPLES, CLASSES)
    assert result["classification_mAP"] == boxed["classification_mAP"] is not None
    assert [result[key] for key in BUILT_IN if key != "classification_mAP"] == [None] * 5
    assert result["classes"]["dog"]["mAP_area"] is None
    assert result["classes"]["dog"]["objects"] is None
    assert result["classes"]["dog"]["images"] == 2


def test_without_points_only_pointing_is_missing():
    result = evaluate_detections(FOUND, None, SAMPLES, CLASSES)
    assert result["pointing_mAP"] is None
    assert all(result[key] is not None for key in BUILT_IN if key != "pointing_mAP")


def test_images_whose_boxes_are_unknown_do_not_change_metrics_of_boxes():
    # Its false alarms would cost precision if it counted as an image without objects.
    unknown = replace(sample("e", {1}, []), annotations=None)
    alarms = detections([(0, CAT, 1.0), (1, DOG, 1.0)], (0.0, 1.0, 0.0))
    result = evaluate_detections([alarms, *FOUND], np.concatenate([POINTS[:1], POINTS]), [unknown, *SAMPLES], CLASSES)
    known = evaluate_detections(FOUND, POINTS, SAMPLES, CLASSES)
    for name in BUILT_IN:
        assert (result[name] == known[name]) == (name != "classification_mAP"), name


def test_the_mean_says_over_how_many_classes_it_is():
    # No image shows an owl.
    assert mean_name(evaluate_detections(FOUND, POINTS, SAMPLES, CLASSES)) == "mean (2 of 3 classes)"
    # Tags tell of one, whose boxes are unknown.
    owl = replace(SAMPLES[3], tags=frozenset({2}), annotations=None)
    scores = evaluate_detections(FOUND, POINTS, [*SAMPLES[:3], owl], CLASSES)
    assert mean_name(scores) == "mean (2 to 3 of 3 classes)"
    bare = [replace(one, annotations=None) for one in [*SAMPLES[:3], owl]]
    assert mean_name(evaluate_detections(FOUND, POINTS, bare, CLASSES)) == "mean"
    assert mean_name(evaluate_detections([], None, [], CLASSES)) == "mean"


def test_without_images_every_score_is_undefined():
    result = evaluate_detections([], None, [], CLASSES)
    assert [result[key] for key in BUILT_IN] == [None] * 6
    assert result["images"] == 0


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(BoxlessError, match="3 detections for 4 images"):
        evaluate_detections(FOUND[:3], POINTS, SAMPLES, CLASSES)
    with pytest.raises(BoxlessError, match=r"points have shape \(3, 3, 2\)"):
        evaluate_detections(FOUND, POINTS[:3], SAMPLES, CLASSES)
    with pytest.raises(
        BoxlessError, match=r"a\.jpg: detected with classes cat, dog, owl, but the ground truth has dog, cat"
    ):
        evaluate_detections(FOUND, None, SAMPLES, ("dog", "cat", "owl"))


def test_metrics_do_not_load_torch():
    code = "import sys, boxless.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_registered_metric_is_a_score_like_the_others():
    @metric("boxes_per_image", "Mean number of boxes of the class in the images whose boxes are known.")
    def boxes_per_image(detections, points, samples, classes):
        found, annotations = with_boxes(detections, samples)
        assert len(found) == len(annotations)
        return np.array([np.mean([np.sum(one.labels == label) for one in found]) for label in range(len(classes))])

    try:
        unknown = replace(SAMPLES[0], annotations=None)
        result = evaluate_detections(FOUND, POINTS, [unknown, *SAMPLES[1:]], CLASSES)
        with pytest.raises(BoxlessError, match="metric 'boxes_per_image' is registered already"):
            metric("boxes_per_image", "Again.")(boxes_per_image)
    finally:
        del METRICS["boxes_per_image"], CONVENTIONS["boxes_per_image"]
    assert [result["classes"][name]["boxes_per_image"] for name in CLASSES] == [0, 2 / 3, 0]
    assert result["boxes_per_image"] == pytest.approx(2 / 9)
    assert result["conventions"]["boxes_per_image"].startswith("Mean number of boxes")
    assert result["CorLoc"] is not None


def test_a_metric_must_give_one_value_per_class():
    metric("wrong", "Gives one number.")(lambda *_: np.zeros(1))
    try:
        with pytest.raises(BoxlessError, match=r"metric 'wrong' gives shape \(1,\) for 3 classes"):
            evaluate_detections(FOUND, POINTS, SAMPLES, CLASSES)
    finally:
        del METRICS["wrong"], CONVENTIONS["wrong"]
