from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from boxless.pseudo_labels.consensus import (
    chance_corrected_ious,
    chance_iou,
    classes_never_kept,
    classes_without_consensus,
    consensus,
    kept_labels,
    label_sets,
)
from boxless.structures import Annotations, Dataset, Sample


def boxes_of(*rows: tuple[int, list[float]]) -> Annotations:
    """Boxes of one image, from label and corners of each."""
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    return Annotations(boxes, np.array([label for label, _ in rows], np.int64), np.zeros(len(rows), np.bool_))


def pair(label: int, iou: float, left: float = 0) -> tuple[tuple[int, list[float]], tuple[int, list[float]]]:
    """A box of 10 x 10 and one shifted to the right such that both overlap by `iou`."""
    return (label, [left, 0, left + 10, 10]), (label, [left + shift(iou), 0, left + 10 + shift(iou), 10])


def shift(iou: float) -> float:
    return 10 * (1 - iou) / (1 + iou)


def merged(*overlaps: tuple[int, float], min_iou: float = 0.7) -> list[tuple[bool, float]]:
    """For images of one (class, IoU) each: whether the merged box is kept, and how far it is shifted.

    No box overlaps that of another image, so that nothing is chance.
    """
    pairs = [pair(*one, 20.0 * row) for row, one in enumerate(overlaps)]
    sizes = [(20 * len(pairs), 10)] * len(pairs)
    found = consensus([boxes_of(one) for one, _ in pairs], [boxes_of(other) for _, other in pairs], sizes, min_iou)
    assert [row.labels.tolist() for row in found] == [[label] for label, _ in overlaps]
    assert all(row.boxes.dtype == np.float32 and row.boxes.shape == (1, 4) for row in found)
    return [(not bool(row.ignore[0]), float(row.boxes[0, 0]) - 20 * index) for index, row in enumerate(found)]


def test_where_both_agree_their_mean_is_kept_and_elsewhere_the_second_is_ignored():
    ious = (0.9, 0.8, 0.71, 0.69, 0.1)
    found = merged(*((0, iou) for iou in ious))
    assert [kept for kept, _ in found] == [True, True, True, False, False]
    expected = [*(shift(iou) / 2 for iou in ious[:3]), *(shift(iou) for iou in ious[3:])]
    assert [left for _, left in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("min_iou", "number"), [(0.3, 5), (0.5, 4), (0.7, 3)])
def test_the_iou_threshold_is_an_argument(min_iou: float, number: int):
    overlaps = [(0, iou) for iou in (0.95, 0.92, 0.8, 0.6, 0.4)]
    assert sum(kept for kept, _ in merged(*overlaps, min_iou=min_iou)) == number


def test_there_is_no_consensus_where_few_of_the_labels_are_kept():
    # Shares of 1/2, 2/3 and 2/3, the mean of which is 0.61; with a class of none it is 0.46.
    flags = [(0, True), (0, False), (1, True), (1, True), (1, False), (3, False), (3, True), (3, True)]
    merged = [replace(boxes_of((label, [0, 0, 1, 1])), ignore=np.array([not kept])) for label, kept in flags]
    assert classes_without_consensus([*merged, boxes_of()], []) == []
    none = replace(boxes_of((4, [0, 0, 1, 1])), ignore=np.array([True]))
    assert classes_without_consensus([*merged, none], []) == [0, 1, 3, 4]
    # Classes with given boxes neither count nor are among them.
    assert classes_without_consensus([*merged, none], boxed=[4, 7]) == []
    # The mean of 1/2 and 2/3 is 0.58; 1/2 alone is less than 0.55.
    assert classes_without_consensus(merged, boxed=[3]) == []
    assert classes_without_consensus(merged, boxed=[1, 3]) == [0]
    assert classes_without_consensus([boxes_of()], []) == classes_without_consensus(merged, boxed=[0, 1, 3]) == []


def test_a_rare_class_does_not_decide_on_consensus():
    flags = [(0, True)] * 6 + [(0, False)] * 4 + [(1, False)] * 4
    merged = [replace(boxes_of((label, [0, 0, 1, 1])), ignore=np.array([not kept])) for label, kept in flags]
    assert classes_without_consensus(merged, []) == []
    assert classes_without_consensus([*merged, merged[-1]], []) == [0, 1]


def test_a_class_without_a_kept_label_is_named():
    flags = [(0, True), (0, False), (1, False), (1, False), (2, True), (3, False)]
    merged = [replace(boxes_of((label, [0, 0, 1, 1])), ignore=np.array([not kept])) for label, kept in flags]
    assert classes_never_kept([*merged, boxes_of()], []) == [1, 3]
    assert classes_never_kept(merged, boxed=[3]) == [1]
    assert classes_never_kept([boxes_of()], []) == []


def test_of_classes_without_consensus_every_box_is_trained_on():
    def boxes(left: float) -> list[Annotations]:
        return [boxes_of((0, [left, 0, left + 1, 1]), (1, [left, 5, left + 1, 6])), boxes_of((1, [left, 7, 9, 9]))]

    merged = [replace(own, ignore=np.ones(len(own.labels), np.bool_)) for own in boxes(0)]
    (alone,) = label_sets(merged, [boxes(1), boxes(2)], [])
    assert alone == merged
    sets = label_sets(merged, [boxes(1), boxes(2), boxes(2)], [1])
    assert len(sets) == 3
    for own, left in zip(sets, (1, 2, 2), strict=True):
        assert own[0].boxes.tolist() == [[0, 0, 1, 1], [left, 5, left + 1, 6]]
        assert own[0].ignore.tolist() == [True, False] and own[0].labels.tolist() == [0, 1]
        assert own[1].boxes.tolist() == [[left, 7, 9, 9]] and own[1].ignore.tolist() == [False]


def test_boxes_of_an_image_are_merged_one_by_one():
    (one, near), (other, far) = pair(2, 0.9), pair(0, 0.2)
    rest = [pair(0, 0.8, left) for left in (20, 40, 60)]
    first = [boxes_of(other, one), boxes_of(), *(boxes_of(a) for a, _ in rest)]
    second = [boxes_of(far, near), boxes_of(), *(boxes_of(b) for _, b in rest)]
    found = consensus(first, second, [(80, 10)] * 5, 0.7)
    assert found[0].labels.tolist() == [0, 2] and found[0].ignore.tolist() == [True, False]
    np.testing.assert_allclose(found[0].boxes[0], far[1], rtol=1e-6)
    np.testing.assert_allclose(found[0].boxes[1], np.add(one[1], near[1]) / 2, rtol=1e-6)
    assert [row.ignore.tolist() for row in found[1:]] == [[], [False], [False], [False]]
    assert found[1].boxes.shape == (0, 4)


def test_chance_corrected_ious_by_hand():
    boxes = np.array([[0, 0, 0.5, 1], [0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
    others = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 1], [0.5, 0, 1, 1]], np.float32)
    # Of the first box: 1/2 with its own; 1/2 and 0 with the others. Of the second: 1/2; 1/2 and 0. Of the third: 1; 0
    # and 1/2.
    expected = [(0.5 - 0.25) / 0.75, (0.5 - 0.25) / 0.75, 1]
    assert chance_corrected_ious(boxes, others, np.zeros(3, np.int64)) == pytest.approx(expected)
    # Only boxes of the same class tell what is chance; a class with one box has no chance.
    labels = np.array([0, 1, 1])
    expected = [0.5, (0.5 - 0) / 1, (1 - 0.5) / 0.5]
    assert chance_corrected_ious(boxes, others, labels) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1, 7])
def test_boxes_that_fill_every_image_do_not_agree_beyond_chance(scale: int):
    # Class 0: 40 x 20 pixels less a margin against the whole image. Class 1: boxes in other places of each image.
    frames = [boxes_of((0, [scale * margin, 0, scale * 40, scale * 20])) for margin in range(8)]
    wholes = [boxes_of((0, [0, 0, scale * 40, scale * 20]))] * 8
    pairs = [pair(1, 0.65, 13.0 * row) for row in range(3)]
    sizes = [(scale * 40, scale * 20)] * 8 + [(40, 20)] * 3
    seeds, held_out = (
        [*frames, *(boxes_of(one) for one, _ in pairs)],
        [*wholes, *(boxes_of(other) for _, other in pairs)],
    )
    ignored = [bool(row.ignore[0]) for row in consensus(seeds, held_out, sizes, 0.6)]
    # The IoU is 0.8 and more for class 0, but no larger than with the boxes of other images.
    assert all(ignored[:8]) and ignored[8:] == [False] * 3


def test_images_without_boxes_stay_without():
    (found,) = consensus([boxes_of()], [boxes_of()], [(5, 5)], 0.7)
    assert found.boxes.shape == (0, 4) and found.labels.tolist() == found.ignore.tolist() == []


def test_kept_labels_are_counted_by_class():
    def sample(name: str, *labels: tuple[int, bool]) -> Sample:
        boxes = boxes_of(*((label, [0, 0, 1, 1]) for label, _ in labels))
        ignore = np.array([not kept for _, kept in labels], np.bool_)
        return Sample(name, __file__, frozenset(), annotations=Annotations(boxes.boxes, boxes.labels, ignore))  # type: ignore[arg-type]

    samples = (sample("a", (0, True), (2, False)), sample("b", (0, False), (0, True)), sample("c"))
    found = kept_labels(Dataset("some", ("cat", "dog", "owl"), samples))
    assert found == {
        "cat": {"kept": 2, "all": 3},
        "dog": {"kept": 0, "all": 0},
        "owl": {"kept": 0, "all": 1},
    }


def test_chance_iou_is_the_mean_with_the_boxes_of_other_rows():
    random = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 7, 2, generator=random)
    boxes, others = (torch.cat([part, part + 0.3], dim=1) for part in corners)
    overlaps = box_iou(boxes, others)
    expected = [(overlaps[row].sum() - overlaps[row, row]) / 6 for row in range(7)]
    torch.testing.assert_close(chance_iou(boxes, others), torch.stack(expected))


def test_chance_iou_of_many_rows_compares_some_of_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.pseudo_labels.consensus.CHANCE_ROWS", 3)
    boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(9, 1)
    others = boxes * torch.tensor([1, 0.5, 1, 1, 1, 0.5, 1, 1, 1])[:, None]
    # Rows 0, 3 and 6 are compared, but never a row with itself.
    others[[0, 3, 6]] = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 0.25, 1]])
    expected = [0.375, 1.75 / 3, 1.75 / 3, 0.625, 1.75 / 3, 1.75 / 3, 0.75, 1.75 / 3, 1.75 / 3]
    torch.testing.assert_close(chance_iou(boxes, others), torch.tensor(expected))
