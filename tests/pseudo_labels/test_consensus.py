import numpy as np
import pytest

from boxless.pseudo_labels.consensus import consensus, kept_labels
from boxless.structures import Annotations, Dataset, Sample


def boxes_of(*rows: tuple[int, list[float]]) -> Annotations:
    """Boxes of one image, from label and corners of each."""
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    return Annotations(boxes, np.array([label for label, _ in rows], np.int64), np.zeros(len(rows), np.bool_))


def pair(label: int, iou: float) -> tuple[tuple[int, list[float]], tuple[int, list[float]]]:
    """A box of 10 x 10 and one shifted to the right such that both overlap by `iou`."""
    return (label, [0, 0, 10, 10]), (label, [shift(iou), 0, 10 + shift(iou), 10])


def shift(iou: float) -> float:
    return 10 * (1 - iou) / (1 + iou)


def merged(*overlaps: tuple[int, float], min_iou: float = 0.7) -> list[tuple[bool, float]]:
    """For images of one (class, IoU) each: whether the merged box is kept, and its left side."""
    pairs = [pair(*one) for one in overlaps]
    found = consensus([boxes_of(one) for one, _ in pairs], [boxes_of(other) for _, other in pairs], min_iou)
    assert [row.labels.tolist() for row in found] == [[label] for label, _ in overlaps]
    assert all(row.boxes.dtype == np.float32 and row.boxes.shape == (1, 4) for row in found)
    return [(not bool(row.ignore[0]), float(row.boxes[0, 0])) for row in found]


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


def test_the_quarter_of_highest_iou_of_every_class_is_kept():
    good = [(0, iou) for iou in (0.9, 0.72, 0.71, 0.6, 0.5)]
    poor = [(1, iou) for iou in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)]
    found = merged(*good, *poor, (4, 0.05))
    # The upper quartile of nine is the seventh, inclusive. A class with one box keeps it.
    kept = [own for own, _ in found]
    assert kept[:5] == [True, True, True, False, False]
    assert kept[5:] == [False] * 6 + [True] * 4
    # Below the IoU threshold the seed's box itself is kept.
    assert [left for _, left in found[11:]] == [0] * 4
    expected = [shift(iou) for _, iou in (*good[3:], *poor[:6])]
    assert [left for _, left in found[3:11]] == pytest.approx(expected, abs=1e-5)


def test_boxes_of_an_image_are_merged_one_by_one():
    (one, near), (other, far) = pair(2, 0.9), pair(0, 0.2)
    rest = [pair(0, 0.6) for _ in range(3)]
    first = [boxes_of(other, one), boxes_of(), *(boxes_of(a) for a, _ in rest)]
    second = [boxes_of(far, near), boxes_of(), *(boxes_of(b) for _, b in rest)]
    found = consensus(first, second, 0.7)
    assert found[0].labels.tolist() == [0, 2] and found[0].ignore.tolist() == [True, False]
    np.testing.assert_allclose(found[0].boxes[0], far[1], rtol=1e-6)
    np.testing.assert_allclose(found[0].boxes[1], np.add(one[1], near[1]) / 2, rtol=1e-6)
    assert [row.ignore.tolist() for row in found[1:]] == [[], [False], [False], [False]]
    assert found[1].boxes.shape == (0, 4)


def test_images_without_boxes_stay_without():
    (found,) = consensus([boxes_of()], [boxes_of()], 0.7)
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
