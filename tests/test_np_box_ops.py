import numpy as np
import pytest

from boxless.np_box_ops import areas, coverage, iou


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_iou_has_hand_computed_values():
    a = boxes((0, 0, 10, 10), (5, 5, 15, 15), (2, 0, 4, 10))
    b = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30))

    overlaps = iou(a, b)

    expected = [[1, 50 / 150, 0], [25 / 175, 50 / 150, 0], [20 / 100, 0, 0]]
    assert overlaps.dtype == np.float64
    np.testing.assert_allclose(overlaps, expected, rtol=1e-15)


def test_boxes_that_only_touch_have_no_overlap():
    assert iou(boxes((0, 0, 10, 10)), boxes((10, 0, 20, 10), (0, 10, 10, 20))).tolist() == [[0, 0]]


def test_boxes_without_area_have_no_overlap():
    nothing = boxes((5, 5, 5, 5), (0, 5, 10, 5), (8, 8, 2, 2))
    assert not iou(nothing, nothing).any()
    assert not iou(nothing, boxes((0, 0, 10, 10))).any()


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (2, 0)])
def test_no_boxes_give_an_empty_table(n: int, m: int):
    assert iou(np.zeros((n, 4), np.float32), np.zeros((m, 4), np.float32)).shape == (n, m)


def test_voc_convention_is_plain_iou_of_exclusive_boxes():
    random = np.random.default_rng(0)
    corners = np.sort(random.integers(1, 30, (2, 200, 2, 2)), axis=2)
    for (x1, y1), (x2, y2) in corners[0]:
        for (u1, v1), (u2, v2) in corners[1, :20]:
            width, height = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
            shared = width * height if width > 0 and height > 0 else 0
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - shared
            ours = iou(boxes((x1 - 1, y1 - 1, x2, y2)), boxes((u1 - 1, v1 - 1, u2, v2)))
            assert ours[0, 0] == shared / union


def test_coverage_is_the_share_of_the_first_box():
    a = boxes((0, 0, 10, 10), (5, 5, 15, 25), (3, 3, 3, 9))
    b = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (-5, -5, 50, 50))
    expected = [[1, 1 / 2, 0, 1], [25 / 200, 50 / 200, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(coverage(a, b), expected, rtol=1e-15)
    assert coverage(a, b[:0]).shape == (3, 0) and coverage(a[:0], b).shape == (0, 4)


def test_areas_of_boxes():
    assert areas(boxes((0, 0, 10, 20), (-3.5, 1, 0, 3), (5, 5, 5, 9), (8, 8, 2, 2))).tolist() == [200, 7, 0, 0]
