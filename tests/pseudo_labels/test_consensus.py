import numpy as np
import pytest

from boxless.methods.cam_threshold import THRESHOLDS, agreement, consistent_threshold
from boxless.methods.mining import NEAR, snap
from boxless.pseudo_labels.consensus import consensus
from boxless.structures import Annotations, FloatArray


def opinion(*rows: tuple[int, list[float]]) -> Annotations:
    """Boxes of classes in one image."""
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    return Annotations(boxes, np.array([label for label, _ in rows], np.int64), np.zeros(len(rows), np.bool_))


def shifted(label: int, iou: float) -> tuple[tuple[int, list[float]], tuple[int, list[float]]]:
    """A box of 10 x 10 and one shifted to the right such that both overlap by `iou`."""
    shift = 10 * (1 - iou) / (1 + iou)
    return (label, [0, 0, 10, 10]), (label, [shift, 0, 10 + shift, 10])


def merged(*overlaps: tuple[int, float], least: float = 0.7) -> list[tuple[bool, float]]:
    """For images of one (class, IoU) each: whether the merged box teaches, and how far right it begins."""
    pairs = [shifted(*one) for one in overlaps]
    found = consensus([opinion(one) for one, _ in pairs], [opinion(other) for _, other in pairs], least)
    assert [row.labels.tolist() for row in found] == [[label] for label, _ in overlaps]
    assert all(row.boxes.dtype == np.float32 and row.boxes.shape == (1, 4) for row in found)
    return [(not bool(row.ignore[0]), float(row.boxes[0, 0])) for row in found]


def test_where_two_opinions_agree_their_mean_teaches_and_the_second_is_set_aside_elsewhere():
    found = merged((0, 0.9), (0, 0.8), (0, 0.71), (0, 0.69), (0, 0.1))
    assert [teaches for teaches, _ in found] == [True, True, True, False, False]
    shifts = [10 * (1 - iou) / (1 + iou) for iou in (0.9, 0.8, 0.71, 0.69, 0.1)]
    wanted = [*(shift / 2 for shift in shifts[:3]), *shifts[3:]]
    assert [left for _, left in found] == pytest.approx(wanted, abs=1e-5)


def test_how_much_they_must_agree_is_given():
    overlaps = [(0, iou) for iou in (0.95, 0.92, 0.8, 0.6, 0.4)]
    for least, teaching in ((0.3, 5), (0.5, 4), (0.7, 3)):
        assert sum(teaches for teaches, _ in merged(*overlaps, least=least)) == teaching


def test_the_best_quarter_of_every_class_teaches_however_poor():
    good = [(0, iou) for iou in (0.9, 0.72, 0.71, 0.6, 0.5)]
    poor = [(1, iou) for iou in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)]
    found = merged(*good, *poor, (4, 0.05))
    # The upper quartile of nine is the seventh, which counts in. A class with one box keeps it.
    teaching = [teaches for teaches, _ in found]
    assert teaching[:5] == [True, True, True, False, False]
    assert teaching[5:] == [False] * 6 + [True] * 4
    # Where they hardly agree the first opinion is what is kept.
    assert [left for _, left in found[11:]] == [0] * 4
    wanted = [10 * (1 - iou) / (1 + iou) for _, iou in (*good[3:], *poor[:6])]
    assert [left for _, left in found[3:11]] == pytest.approx(wanted, abs=1e-5)


def test_boxes_of_a_image_are_judged_each_by_itself():
    (one, near), (other, far) = shifted(2, 0.9), shifted(0, 0.2)
    rest = [shifted(0, 0.6) for _ in range(3)]
    first = [opinion(other, one), opinion(), *(opinion(a) for a, _ in rest)]
    second = [opinion(far, near), opinion(), *(opinion(b) for _, b in rest)]
    found = consensus(first, second, 0.7)
    assert found[0].labels.tolist() == [0, 2] and found[0].ignore.tolist() == [True, False]
    np.testing.assert_allclose(found[0].boxes[0], far[1], rtol=1e-6)
    np.testing.assert_allclose(found[0].boxes[1], np.add(one[1], near[1]) / 2, rtol=1e-6)
    assert [row.ignore.tolist() for row in found[1:]] == [[], [False], [False], [False]]
    assert found[1].boxes.shape == (0, 4)


def test_without_any_boxes_there_is_nothing_to_agree_on():
    (found,) = consensus([opinion()], [opinion()], 0.7)
    assert found.boxes.shape == (0, 4) and found.labels.tolist() == found.ignore.tolist() == []


# How bright a place must be.


def test_agreement_is_what_goes_beyond_chance():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    assert agreement(boxes, boxes) == pytest.approx(1)
    # Each with its own 1/2, with the other 0.
    half = np.array([[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 0.75]], np.float32)
    assert agreement(boxes, half) == pytest.approx(0.5)
    whole = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32)
    assert agreement(whole, whole) == 0
    # With its own (1/2 + 1/2 + 1) / 3, with the others (1 + 1) / 6: two are two looks at one object.
    three = np.array([[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.2], [0.5, 0.5, 1, 1]], np.float32)
    assert agreement(three, three[[1, 0, 2]]) == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3), abs=1e-6)


def pair(overlap: float) -> tuple[FloatArray, FloatArray]:
    """Two objects far from each other, each seen `overlap` alike."""
    boxes = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]], np.float32)
    return boxes, boxes - np.array([0, 0, 0, 0.4 * (1 - overlap)], np.float32)


def test_thresholds_that_agree_as_well_meet_at_their_geometric_mean():
    assert consistent_threshold({0.1: pair(0.8), 0.4: pair(0.8)}) == pytest.approx(0.2, rel=1e-4)
    assert consistent_threshold({0.1: pair(0.9), 0.4: pair(0.3)}) == pytest.approx(0.1, rel=1e-4)
    # 0.02 more agreement is e times the weight.
    mean = np.exp((np.e * np.log(0.1) + np.log(0.4)) / (np.e + 1))
    assert consistent_threshold({0.1: pair(0.82), 0.4: pair(0.8)}) == pytest.approx(mean, rel=1e-3)
    assert consistent_threshold({value: pair(0.5) for value in THRESHOLDS}) == pytest.approx(
        np.exp(np.mean(np.log(THRESHOLDS)))
    )


# Edges.


def test_a_box_snaps_to_the_proposals_near_it():
    box = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    # Of 10 x 10 pixels, 10 x 8 and 10 x 7 lie within: IoU 0.8 and 0.7; 10 x 5 is too little.
    proposals = np.array([[0, 0, 10, 8], [0, 0, 10, 7], [0, 0, 10, 5]], np.float32)
    lower = (8 * 0.8**8 + 7 * 0.7**8) / (0.8**8 + 0.7**8)
    found = snap(box, proposals)
    np.testing.assert_allclose(found, [[0, 0, 10, lower], [50, 50, 60, 60]], rtol=1e-5)
    assert found.dtype == np.float32
    assert snap(box, np.array([[0, 0, 10, 10 * NEAR - 0.01]], np.float32)).tolist() == box.tolist()
    assert snap(box[:1], np.array([[0, 0, 10, 10 * NEAR + 0.01]], np.float32))[0, 3] == pytest.approx(6.01)
    assert snap(box[:0], proposals).shape == (0, 4)
