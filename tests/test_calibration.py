"""Calibration of scores by tags: what is fitted, what a score then means, and that ranks stay."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from test_structures import CLASSES, detections

from boxless import calibration as module
from boxless.calibration import (
    MAX_SLOPE,
    MIN_SLOPE,
    Calibration,
    best_scores,
    choose_images,
    expected_calibration_error,
    fit_calibration,
    read_calibration,
    reliability,
)
from boxless.errors import BoxlessError
from boxless.metrics import coco_ap, detection_outcomes, voc_ap
from boxless.structures import Annotations, FloatArray


def drawn(number: int, slope: float, intercept: float, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Scores of images, and tags that these explain by a known slope and intercept: (number, 1) each."""
    random = np.random.default_rng(seed)
    scores = random.beta(0.5, 1.5, (number, 1)).astype(np.float32)
    odds = np.exp(intercept) * (scores / (1 - scores)) ** slope
    return scores, (random.random((number, 1)) < odds / (1 + odds)).astype(np.float32)


def test_the_numbers_are_those_of_logistic_regression_with_the_targets_of_platt() -> None:
    scores, tags = drawn(60, 1.7, -0.4)
    found = fit_calibration(scores, tags)
    positives, negatives = int(tags.sum()), int((1 - tags).sum())
    target = np.where(tags[:, 0] == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    logits = np.log(scores.astype(float) / (1 - scores.astype(float)))
    # An independent implementation takes a soft target as two rows of complementary weights.
    model = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000)
    model.fit(np.concatenate([logits, logits]), np.repeat([1, 0], 60), np.concatenate([target, 1 - target]))
    np.testing.assert_allclose(found.slopes, model.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(found.intercepts, model.intercept_, atol=1e-4)


def test_a_known_relation_is_found_and_scores_become_shares() -> None:
    found = fit_calibration(*drawn(40_000, 1.7, -0.4))
    assert found.slopes == pytest.approx([1.7], abs=0.05) and found.intercepts == pytest.approx([-0.4], abs=0.05)
    scores, tags = drawn(20_000, 1.7, -0.4, seed=1)
    calibrated = found(scores[:, 0], np.zeros(len(scores), np.int64))[:, None]
    raw, after = (expected_calibration_error(reliability(values, tags)) for values in (scores, calibrated))
    assert raw is not None and after is not None
    assert raw > 0.05 and after < 0.01


def test_images_chosen_by_class_are_weighted_back_to_the_frequency_of_the_class() -> None:
    scores, tags = drawn(40_000, 1.2, -3.0)
    have, lack = (np.flatnonzero(tags[:, 0] == value) for value in (1, 0))
    rows = np.concatenate([have, lack[: len(have)]])
    found = fit_calibration(scores[rows], tags[rows], tags.mean(axis=0))
    assert found.slopes == pytest.approx([1.2], abs=0.1) and found.intercepts == pytest.approx([-3.0], abs=0.15)
    assert fit_calibration(scores[rows], tags[rows]).intercepts[0] > -2


def test_ranks_stay_also_of_scores_that_tell_nothing_or_the_contrary() -> None:
    scores, tags = drawn(4000, 1.0, 0.0)
    for image_labels in (tags, 1 - tags, np.random.default_rng(5).permutation(tags)):
        found = fit_calibration(scores, image_labels)
        many = np.linspace(0.001, 0.999, 500, dtype=np.float32)
        calibrated = found(many, np.zeros(500, np.int64))
        assert (np.diff(calibrated) > 0).all() and calibrated.dtype == np.float32
    assert fit_calibration(scores, 1 - tags).slopes.tolist() == [MIN_SLOPE]
    # Then every score is about the share of images that have the class.
    worthless = fit_calibration(scores, 1 - tags)(many, np.zeros(500, np.int64))
    np.testing.assert_allclose(worthless, 1 - tags.mean(), atol=0.03)


def test_scores_that_are_nearly_the_same_do_not_become_0_and_1() -> None:
    scores = np.linspace(0.28, 0.3, 40, dtype=np.float32)[:, None]
    found = fit_calibration(scores, (scores > 0.29).astype(np.float32))
    assert found.slopes.tolist() == [MAX_SLOPE]
    # Half of the images have the class.
    assert found(np.array([0.29], np.float32), np.zeros(1, np.int64)) == pytest.approx(0.5, abs=0.02)
    assert found(np.array([0.6], np.float32), np.zeros(1, np.int64)) < 1


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_scores_that_are_all_the_same_become_the_share_of_images(score: float) -> None:
    tags = (np.arange(16_000)[:, None] % 4 == 0).astype(np.float32)
    found = fit_calibration(np.full_like(tags, score), tags)
    calibrated = found(np.full(1, score, np.float32), np.zeros(1, np.int64))
    assert calibrated == pytest.approx(0.25, abs=1e-3)


def test_a_class_of_which_nothing_is_known_keeps_its_scores() -> None:
    found = fit_calibration(np.full((3, 1), 0.5, np.float32), np.full((3, 1), np.nan, np.float32))
    assert (found.slopes.tolist(), found.intercepts.tolist()) == ([1], [0])


def test_few_images_give_no_certainty() -> None:
    scores = np.array([[0.9], [0.8], [0.1], [0.05], [0.02]], np.float32)
    found = fit_calibration(scores, (scores > 0.5).astype(np.float32))
    # Two of two and none of three: Platt's targets are 3/4 and 1/5.
    calibrated = found(scores[:, 0], np.zeros(5, np.int64))
    assert calibrated[0] < 0.85 and calibrated[-1] > 0.1


def test_a_class_that_all_or_no_images_have_keeps_its_scores_and_unknown_tags_are_left_out() -> None:
    scores, tags = drawn(200, 1.3, 0.5)
    three = np.concatenate([tags, np.ones_like(tags), np.zeros_like(tags)], axis=1)
    found = fit_calibration(np.repeat(scores, 3, axis=1), three)
    assert (found.slopes[1:].tolist(), found.intercepts[1:].tolist()) == ([1, 1], [0, 0])
    np.testing.assert_allclose(found(scores[:, 0], np.ones(200, np.int64)), scores[:, 0], atol=2e-6)
    garbage = np.concatenate([scores, np.full((50, 1), 0.99, np.float32)])
    unknown = fit_calibration(garbage, np.concatenate([tags, np.full((50, 1), np.nan, np.float32)]))
    assert unknown.slopes[0] == found.slopes[0] and unknown.intercepts[0] == found.intercepts[0]


def test_detections_get_calibrated_scores_best_first_and_keep_the_others() -> None:
    found = detections([0.8, 0.5, 0.4, 0.2], [0, 1, 0, 2])
    calibration = Calibration(np.array([1.0, 2, 1]), np.array([-2.0, 3, 0]))
    after = calibration.apply(found)
    by_hand = [1 / (1 + np.e**-3), 4 / (4 + np.e**2), 0.2, 2 / (2 + 3 * np.e**2)]
    np.testing.assert_allclose(after.scores, by_hand, rtol=1e-5)
    assert after.raw_scores is not None
    assert after.raw_scores.tolist() == np.array([0.5, 0.8, 0.2, 0.4], np.float32).tolist()
    np.testing.assert_array_equal(after.boxes, found.boxes[[1, 0, 3, 2]])
    assert after.labels.tolist() == [1, 0, 2, 0]
    assert after[[2, 0]].raw_scores.tolist() == np.array([0.2, 0.5], np.float32).tolist()  # type: ignore[union-attr]
    np.testing.assert_allclose(best_scores([after, found[:1]]), [[by_hand[1], by_hand[0], 0.2], [0.8, 0, 0]], rtol=1e-5)
    np.testing.assert_allclose(best_scores([after], raw=True), [[0.8, 0.5, 0.2]])


def test_ranks_are_those_before_calibration() -> None:
    # Both are 1 after it, in single precision.
    wrong, right = detections([0.986], [0]), detections([0.999], [0])
    calibrate = Calibration(np.full(3, 2.35), np.full(3, 14.0)).apply
    after = [calibrate(wrong), calibrate(right)]
    assert [one.scores.tolist() for one in after] == [[1], [1]]
    nothing = Annotations(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    ground_truth = [nothing, Annotations(right.boxes, np.array([0]), np.array([False]))]
    for order in (1, -1):
        found, objects = after[::order], ground_truth[::order]
        assert voc_ap(found, objects, 0) == {"11point": 1, "area": 1}
        assert coco_ap(found, objects, 1) == pytest.approx(1)
        assert detection_outcomes(found, objects, 0)[0] == ["correct"]


def test_confident_boxes_are_those_of_classes_that_are_likelier_than_not() -> None:
    # Image scores are of no account any more: they say that class 0 is certain and class 1 is not there.
    found = detections([0.8, 0.5, 0.45, 0.3, 0.2], [0, 1, 0, 1, 1], (0.9, 0.1, 0.1))
    after = Calibration(np.ones(3), np.array([-2.0, 3, 0])).apply(found)
    shown = after.confident()
    # Of class 1 the boxes that score half as much as the best before calibration; calibrated, the third has 0.83.
    assert shown.labels.tolist() == [1, 1]
    assert shown.raw_scores.tolist() == np.array([0.5, 0.3], np.float32).tolist()  # type: ignore[union-attr]
    assert len(after[:0].confident()) == 0


def test_a_reliability_diagram_by_hand() -> None:
    scores = np.array([[0.05, 0.95], [0.15, 1.0], [0.11, 0.0], [0.5, 0.7]], np.float32)
    tags = np.array([[0, 1], [1, 1], [0, 1], [np.nan, 0]], np.float32)
    diagram = reliability(scores, tags)
    assert [number for *_, number in diagram] == [1, 2, 1, 2]
    np.testing.assert_allclose([row[:2] for row in diagram], [[0.05, 0], [0.13, 0.5], [0.7, 0], [0.975, 1]], atol=1e-6)
    by_hand = (0.05 + 2 * 0.37 + 0.7 + 2 * 0.025) / 6
    assert expected_calibration_error(diagram) == pytest.approx(by_hand)
    assert expected_calibration_error(reliability(np.zeros((2, 1), np.float32), tags[:2, :1])) is None


def test_images_are_chosen_for_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES_PER_CLASS", 5)
    tags = np.zeros((1000, 2), np.float32)
    tags[:300, 0] = 1
    tags[990:997, 1] = 1
    tags[997:, 1] = np.nan
    rows = choose_images(tags, np.arange(100, 1000), seed=0)
    assert (np.diff(rows) > 0).all() and rows.min() >= 100 and len(rows) <= 20
    assert [int((tags[rows, label] == 1).sum()) >= 5 for label in (0, 1)] == [True, True]
    assert int((tags[rows, 1] == 1).sum()) == 5
    np.testing.assert_array_equal(rows, choose_images(tags, np.arange(100, 1000), seed=0))
    assert len(choose_images(tags, np.array([], np.int64), seed=0)) == 0


def test_it_is_read_back_from_json() -> None:
    calibration = Calibration(np.array([0.1, 1 / 3, 7.0]), np.array([-1e-9, 2 / 3, 0.0]))
    content = json.loads(json.dumps(calibration.by_class(CLASSES)))
    assert list(content) == list(CLASSES)
    found = read_calibration(content, CLASSES)
    assert found is not None
    assert (found.slopes.tolist(), found.intercepts.tolist()) == ([0.1, 1 / 3, 7.0], [-1e-9, 2 / 3, 0.0])
    assert read_calibration(None, CLASSES) is None


@pytest.mark.parametrize(
    "change",
    [
        {},
        [],
        {"cat": {"slope": 0.0, "intercept": 0.0}},
        {"cat": {"slope": float("inf"), "intercept": 0.0}},
        {"cat": {"slope": 1e308, "intercept": -1e308}},
        {"cat": {"slope": "steep", "intercept": 0.0}},
        {"cat": {"slope": 1.0}},
        {"cat": None},
        {"cow": {"slope": 1.0, "intercept": 0.0}},
    ],
)
def test_a_damaged_one_is_refused(change: Any) -> None:
    fine: dict[str, Any] = {name: {"slope": 1.0, "intercept": 0.0} for name in CLASSES}
    with pytest.raises(ValueError, match=r"^the calibration "):
        read_calibration(fine | change if change else change, CLASSES)


def test_raw_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BoxlessError, match=r"Detections: raw_scores has shape \(2,\)"):
        replace(detections([0.5], [0]), raw_scores=np.zeros(2, np.float32))
