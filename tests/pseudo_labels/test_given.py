from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxless.cached_dataset import CachedDataset
from boxless.pseudo_labels.cross_fitting import draw_folds
from boxless.pseudo_labels.given import (
    given_alone,
    replace_classes,
    seed_classes,
    with_given,
    without_contradicting,
    without_given,
)
from boxless.structures import Annotations, Count, Dataset, GivenBoxes, Point, Sample
from boxless.training.training_views import epoch_rows

Rows = list[tuple[int, list[float]]]

LEFT, RIGHT = [0.0, 0, 10, 10], [50.0, 0, 60, 10]


def boxes(rows: Rows, ignore: bool = False) -> Annotations:
    return Annotations(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.array([label for label, _ in rows], np.int64),
        np.full(len(rows), ignore, np.bool_),
    )


def sample(
    tags: set[int],
    right: Rows | None = None,
    wrong: Rows = [],  # noqa: B006 (it is not changed)
    complete: set[int] | None = None,
    unsure: set[int] = set(),  # noqa: B006
) -> Sample:
    given = None
    if right is not None:
        labels = {label for label, _ in right}
        given = GivenBoxes(boxes(right), boxes(wrong), frozenset(labels if complete is None else complete))
    return Sample("", Path(), frozenset(tags), frozenset(unsure), given=given)


def data_of(*samples: Sample) -> CachedDataset:
    keys = tuple(str(row) for row in range(len(samples)))
    dataset = Dataset("some", ("cat", "dog", "owl"), samples)
    return CachedDataset(dataset, keys, ((100, 50),) * len(keys), None, None, {}, {})  # type: ignore[arg-type]


def as_rows(own: Annotations) -> list[tuple[int, list[float], bool]]:
    return list(zip(own.labels.tolist(), own.boxes.tolist(), own.ignore.tolist(), strict=True))


def test_tags_with_a_given_box_need_no_pseudo_label():
    data = data_of(
        sample({0, 1}),
        sample({0, 1}, [(0, LEFT)]),
        sample({0, 1}, [(0, LEFT), (0, RIGHT)], complete=set()),
        sample({1}, [], [(1, LEFT)]),
    )
    assert [set(own.tags) for own in without_given(data).dataset.samples] == [{0, 1}, {1}, {1}, {1}]
    assert [set(own.tags) for own in data.dataset.samples] == [{0, 1}, {0, 1}, {0, 1}, {1}]


def test_given_boxes_are_trained_on_as_they_are_beside_the_pseudo_labels_of_other_tags():
    data = data_of(sample({0}), sample({0, 1}, [(0, LEFT), (0, RIGHT)]))
    pseudo = [boxes([(0, RIGHT)]), boxes([(1, LEFT)], ignore=True)]
    first, second = with_given(pseudo, data)
    assert as_rows(first) == [(0, RIGHT, False)]
    assert as_rows(second) == [(0, LEFT, False), (0, RIGHT, False), (1, LEFT, True)]
    assert second.boxes.dtype == np.float32 and second.labels.dtype == np.int64 and second.ignore.dtype == np.bool_


@pytest.mark.parametrize(
    ("wrong", "ignored"),
    [
        ((0, LEFT), True),
        # Of 10 x 10 pixels: an IoU of 5 / 15, of exactly 8 / 12 and of 10 / 20.
        ((0, [5.0, 0, 15, 10]), False),
        ((0, [2.0, 0, 12, 10]), True),
        ((0, [0.0, 0, 20, 10]), True),
        ((1, LEFT), False),
        ((0, RIGHT), False),
    ],
)
def test_a_pseudo_label_at_a_rejected_box_of_its_class_is_ignored(wrong: tuple[int, list[float]], ignored: bool):
    data = data_of(sample({0, 1}, [], [wrong]))
    pseudo = [boxes([(0, LEFT)])]
    for found in (without_contradicting(pseudo, data), with_given(pseudo, data)):
        assert as_rows(found[0]) == [(0, LEFT, ignored)]
    assert as_rows(pseudo[0]) == [(0, LEFT, False)]


def test_a_pseudo_label_that_holds_no_point_of_its_class_is_ignored():
    given = sample({0, 1}, [(1, LEFT)])
    data = data_of(
        replace(sample({0, 1}), points=(Point(0, 55, 5), Point(0, 5, 5))),
        replace(sample({0, 1}), points=(Point(0, 9.9, 9.9), Point(1, 10, 5))),
        replace(given, points=(Point(1, 55, 5),)),
        replace(sample({0, 1}), points=(Point(0, 55, 5), Point(1, 55, 5)), counts={0: Count(2), 1: Count(1)}),
    )
    pseudo = [boxes([(0, LEFT), (1, LEFT)])] * 2 + [boxes([(0, LEFT)]), boxes([(0, LEFT), (1, LEFT)])]
    first, second, third, fourth = with_given(pseudo, data)
    assert as_rows(first) == [(0, LEFT, False), (1, LEFT, False)]
    assert as_rows(second) == [(0, LEFT, False), (1, LEFT, True)]
    # A right box stays, whatever a point says.
    assert as_rows(third) == [(1, LEFT, False), (0, LEFT, False)]
    # There is another cat than the one with the point.
    assert as_rows(fourth) == [(0, LEFT, False), (1, LEFT, True)]


def test_a_right_box_stays_even_where_a_box_was_rejected():
    (found,) = with_given([boxes([])], data_of(sample({0}, [(0, LEFT)], [(0, LEFT)])))
    assert as_rows(found) == [(0, LEFT, False)]


def test_a_network_is_trained_on_given_boxes_alone_where_every_tag_has_one():
    data = data_of(
        sample({0}),  # no box
        sample({0}, [(0, LEFT)]),
        sample({0}, [(0, LEFT)], complete=set()),
        sample({0, 1}, [(0, LEFT)]),  # where the dog is, nobody said
        sample({0}, [], [(0, LEFT)]),
        sample({0}, [(0, RIGHT)], unsure={1}),
        sample(set()),
        sample(set(), unsure={2}),  # neither a cat nor a dog
        sample(set(), unsure={0, 1, 2}),
    )
    found = given_alone(data)
    assert found.keys == ("1", "2", "5", "6", "7")
    boxes_of = [as_rows(own.annotations) for own in found.dataset.samples if own.annotations is not None]
    assert boxes_of == [[(0, LEFT, False)], [(0, LEFT, False)], [(0, RIGHT, False)], [], []]


def test_classes_with_five_boxes_are_seeded_by_them():
    boxed = [sample({1}, [(1, LEFT), (1, RIGHT)])] * 2
    others = [sample({0, 2}, [(0, LEFT)])] * 9
    assert seed_classes(data_of(*boxed, *others).dataset) == []
    assert seed_classes(data_of(*boxed, *others, sample({1}, [(1, LEFT)])).dataset) == [1]
    assert seed_classes(data_of(sample({0})).dataset) == []


@pytest.mark.parametrize(
    ("counts", "rows", "complete"),
    [
        ({0: Count(1)}, [(0, LEFT)], {0}),
        ({0: Count(2)}, [(0, LEFT)], set()),
        ({0: Count(2), 1: Count(1)}, [(0, LEFT), (0, RIGHT)], {0}),
        ({0: Count(2, or_more=True)}, [(0, LEFT), (0, RIGHT)], set()),
        ({}, [(0, LEFT)], set()),
    ],
)
def test_a_class_is_complete_if_as_many_right_boxes_are_given_as_were_counted(
    counts: dict[int, Count], rows: Rows, complete: set[int]
):
    one = replace(sample({0, 1}, rows, complete=set()), counts=counts)
    assert one.complete == complete
    # Beside what a person said, and whatever pseudo labels there are.
    assert replace(sample({0, 1}, rows, complete={1}), counts=counts).complete == complete | {1}
    assert replace(sample({0, 1}), counts=counts, annotations=boxes(rows)).complete == set()


def test_boxes_of_these_classes_come_from_the_second():
    one, other = boxes([(0, LEFT), (2, LEFT)]), boxes([(0, RIGHT), (2, RIGHT)])
    assert [as_rows(own) for own in replace_classes([one], [other], [2])] == [[(0, LEFT, False), (2, RIGHT, False)]]


def test_images_that_need_no_prediction_are_in_no_fold_and_the_others_in_folds_of_equal_size():
    plain = [sample({0}), sample({0, 1}, [(0, LEFT)])]
    folds = draw_folds(data_of(*plain * 6, *[sample({0}, [(0, LEFT)])] * 30), 3, 5).tolist()
    assert sorted(folds[:12]) == sorted([0, 1, 2] * 4) and set(folds[12:]) == {-1}
    # With fewer such images than folds each has one of its own.
    assert draw_folds(data_of(sample({0}), *[sample({0}, [(0, LEFT)])] * 5), 3, 5).tolist() == [0, *[-1] * 5]


@pytest.mark.parametrize(("given", "images", "length"), [(1, 301, 400), (3, 99, 128), (30, 100, 100), (4, 4, 4)])
def test_images_with_given_boxes_are_a_quarter_of_an_epoch_or_more(given: int, images: int, length: int):
    rows = [sample({0}, [(0, LEFT)])] * given + [sample({0})] * (images - given)
    found = epoch_rows(data_of(*rows).dataset)
    assert set(found.tolist()) == set(range(images))
    assert len(found) == length
    assert (found < given).mean() >= 0.25
    # Each as often as another.
    counts = np.bincount(found)
    assert set(counts[given:]) <= {1} and np.ptp(counts[:given]) <= 1


def test_without_right_boxes_an_epoch_has_every_image_once():
    assert epoch_rows(data_of(*[sample({0})] * 7).dataset).tolist() == list(range(7))
    assert epoch_rows(data_of(*[sample({0})] * 6, sample({0}, [], [(0, LEFT)])).dataset).tolist() == list(range(7))
