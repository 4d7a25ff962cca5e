"""Boxes of objects that were counted or pointed at."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from boxless.cached_dataset import CachedDataset
from boxless.pseudo_labels.counted import choose_objects, counted_tags, with_counted
from boxless.structures import Annotations, Count, Dataset, Detections, GivenBoxes, Point, Sample

GROUP, LEFT, RIGHT, FAR = [0.0, 0, 40, 20], [0.0, 0, 20, 20], [20.0, 0, 40, 20], [80.0, 30, 90, 40]
Rows = list[tuple[int, list[float]]]

PART, OTHER_PART = [0.0, 0, 20, 9], [0.0, 11, 20, 20]
NONE = np.zeros((0, 2), np.float32)


def choose(scores: dict[str, float], number: int, *points: tuple[float, float]) -> list[str]:
    """The names of the boxes that are chosen among these, which have the best score first."""
    boxes = {"group": GROUP, "left": LEFT, "right": RIGHT, "far": FAR, "part": PART, "other part": OTHER_PART}
    own = np.array([boxes[name] for name in scores], np.float32).reshape(-1, 4)
    values = np.array(list(scores.values()), np.float32)
    given = np.array(points, np.float32).reshape(-1, 2)
    return [list(scores)[row] for row in choose_objects(own, values, number, given)]


@pytest.mark.parametrize(
    ("scores", "number", "chosen"),
    [
        # The group and what is far: 0.9 * 0.1; its two objects: 0.4 * 0.4.
        ({"group": 0.9, "left": 0.4, "right": 0.4, "far": 0.1}, 2, ["left", "right"]),
        # What is far is as likely as one of the two.
        ({"group": 0.9, "left": 0.4, "right": 0.4, "far": 0.4}, 3, ["left", "right", "far"]),
        ({"group": 0.9, "far": 0.8, "left": 0.3, "right": 0.3}, 2, ["group", "far"]),
        # Two parts of one object, 0.25 * 0.25, are less likely than it and another one that was not found: 0.9 * 0.09.
        ({"left": 0.9, "part": 0.25, "other part": 0.25}, 2, ["left"]),
        ({"left": 0.9, "part": 0.5, "other part": 0.5}, 2, ["part", "other part"]),
        # Less than a tenth of the best.
        ({"left": 0.9, "right": 0.08}, 2, ["left"]),
        ({"left": 0.9, "right": 0.1}, 2, ["left", "right"]),
        ({"left": 0.9, "right": 0.8, "far": 0.7}, 2, ["left", "right"]),
        ({}, 2, []),
    ],
)
def test_so_many_boxes_that_hardly_overlap_are_chosen_as_are_likeliest_together(
    scores: dict[str, float], number: int, chosen: list[str]
):
    assert choose(scores, number) == chosen


@pytest.mark.parametrize(("shift", "apart"), [(0, True), (6, True), (7, False)])
def test_boxes_of_two_objects_share_less_than_a_third_of_the_smaller_one(shift: int, apart: bool):
    # Of 20 pixels 6 are 0.3.
    boxes = np.array([[0, 0, 20, 20], [20 - shift, 0, 40 - shift, 20]], np.float32)
    assert choose_objects(boxes, np.array([0.9, 0.8], np.float32), 2, NONE) == ([0, 1] if apart else [0])


def test_every_point_lies_in_a_box_of_its_own():
    scores = {"group": 0.9, "left": 0.3, "right": 0.2, "far": 0.1}
    assert choose(scores, 1, (30, 10)) == ["group"]
    assert choose(scores, 1, (85, 35)) == ["far"]
    # The group holds both points, and would have to score ten times as much.
    assert choose(scores, 1, (30, 10), (10, 10)) == ["right", "left"]
    assert choose({**scores, "left": 0.05}, 1, (10, 10), (30, 10)) == ["group"]
    assert choose(scores, 1, (60, 10)) == []
    # The upper left corner belongs to a box, the lower right one does not.
    assert choose({"left": 0.9}, 1, (0, 0)) == ["left"] and choose({"left": 0.9}, 1, (20, 20)) == []


def test_a_count_beyond_the_points_is_filled_with_boxes_without_a_point():
    scores = {"group": 0.9, "left": 0.8, "right": 0.7, "far": 0.6}
    assert choose(scores, 2, (85, 35)) == ["far", "group"]
    assert choose(scores, 3, (85, 35)) == ["far", "left", "right"]
    assert choose(scores, 2, (85, 35), (10, 10)) == ["far", "group"]


def sample(tags: set[int], counts: dict[int, Count] | None = None, *points: Point, wrong: Rows | None = None) -> Sample:
    given = None if wrong is None else GivenBoxes(boxes([]), boxes(wrong))
    return Sample("", Path(), frozenset(tags), given=given, counts=counts or {}, points=points)


def boxes(rows: Rows, *ignored: int) -> Annotations:
    return Annotations(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.array([label for label, _ in rows], np.int64),
        np.array([row in ignored for row in range(len(rows))], np.bool_),
    )


def as_rows(own: Annotations) -> list[tuple[int, list[float], bool]]:
    return list(zip(own.labels.tolist(), own.boxes.tolist(), own.ignore.tolist(), strict=True))


def test_tags_with_several_objects_or_a_point_are_counted():
    assert counted_tags(sample({0, 1, 2}, {0: Count(1), 1: Count(2), 2: Count(2, True)})) == [1, 2]
    assert counted_tags(sample({0, 1}, None, Point(1, 5, 5), Point(2, 5, 5))) == [1]
    assert counted_tags(sample({0}, {1: Count(4)})) == []
    assert counted_tags(sample({0}, {0: Count(1, True)})) == []


class Network:
    """A network that finds the same in every image, and records which images it predicts."""

    def __init__(self, rows: list[tuple[int, list[float], float]]) -> None:
        self.rows, self.predicted = rows, list[int]()

    def in_parallel(self) -> AbstractContextManager[int]:
        return nullcontext(1)

    def read(self, data: CachedDataset, row: int) -> int:
        return row

    def postprocess(self, row: int) -> Detections:
        self.predicted.append(row)
        labels, found, scores = zip(*self.rows, strict=True)
        names = ("cat", "dog", "owl")
        return Detections(
            np.array(found, np.float32),
            np.array(scores, np.float32),
            np.array(labels),
            names,
            (100, 50),
            np.ones(3, np.float32),
        )


def data_of(*samples: Sample) -> CachedDataset:
    keys, store = tuple(map(str, range(len(samples)))), SimpleNamespace()
    dataset = Dataset("some", ("cat", "dog", "owl"), samples)
    return CachedDataset(dataset, keys, ((100, 50),) * len(keys), store, None, {}, {})  # type: ignore[arg-type]


def test_pseudo_labels_of_counted_tags_are_those_of_the_network_of_their_fold():
    first = Network([(0, GROUP, 0.9), (1, FAR, 0.8), (0, LEFT, 0.5), (0, RIGHT, 0.4)])
    second = Network([(1, LEFT, 0.9), (1, FAR, 0.8)])
    data = data_of(
        sample({0, 1}, {0: Count(2)}),
        sample({0, 1}, {0: Count(1), 1: Count(1)}),
        sample({1}, None, Point(1, 85, 35)),
        sample({0}, {0: Count(3)}),
        sample({0}, {0: Count(2)}, wrong=[(0, LEFT), (1, RIGHT)]),
        sample({0}, {0: Count(2)}),
    )
    old = [
        boxes([(0, GROUP), (1, LEFT)], 1),
        boxes([(0, GROUP), (1, LEFT)]),
        *(boxes([(tag, GROUP)]) for tag in (1, 0, 0, 0)),
    ]
    detectors = [first, second]
    other = [boxes([(0, FAR)])] * 6
    found, second_set = with_counted([old, other], detectors, data, np.array([0, 0, 1, 1, 0, -1]))  # type: ignore[arg-type]
    # The other tag of the image stays as it was.
    assert as_rows(found[0]) == [(1, LEFT, True), (0, LEFT, False), (0, RIGHT, False)]
    assert found[1] is old[1]
    assert as_rows(found[2]) == [(1, FAR, False)]
    # The network found none.
    assert as_rows(found[3]) == [(0, GROUP, True)]
    # The left one was rejected, with which the group has an IoU of 0.5.
    assert as_rows(found[4]) == [(0, RIGHT, False)]
    # It needs no pseudo label.
    assert found[5] is old[5]
    # Of another set the same tags are replaced, without another prediction.
    assert as_rows(second_set[0]) == [(0, LEFT, False), (0, RIGHT, False)]
    assert as_rows(second_set[3]) == [(0, FAR, True)]
    assert second_set[1] is other[1]
    assert (sorted(first.predicted), sorted(second.predicted)) == ([0, 4], [2, 3])


def test_without_counts_and_points_nothing_is_predicted_and_no_label_changes():
    network, old = Network([]), [boxes([(0, LEFT)]), boxes([])]
    (found,) = with_counted([old], [network], data_of(sample({0}), sample(set())), np.array([0, 0]))  # type: ignore[arg-type]
    assert all(one is other for one, other in zip(found, old, strict=True)) and not network.predicted
