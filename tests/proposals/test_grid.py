import numpy as np
import pytest

from boxless.metrics import iou
from boxless.proposals import grid as module
from boxless.structures import FloatArray

SHAPES = [(500, 375), (375, 500), (500, 500), (640, 360), (1000, 300), (64, 96)]

WORST = np.array([[311.3, 154.6, 473.5, 220.4], [211.0, 149.3, 333.3, 225.3]], np.float32)
"""The least covered boxes of over 5 % and over 2 % that a search found in an image of 500 x 375."""


def grid(width: int, height: int) -> FloatArray:
    return module.grid(np.empty((height, width, 3), np.uint8), 0)


def random_boxes(width: int, height: int, number: int) -> FloatArray:
    """Random boxes inside an image: at least 5 % of its area, no side over three times the other."""
    rng = np.random.default_rng(7)
    areas = np.exp(rng.uniform(np.log(0.05), 0, number)) * width * height
    ratios = np.exp(rng.uniform(-np.log(3), np.log(3), number))
    w, h = np.sqrt(areas * ratios), np.sqrt(areas / ratios)
    w, h = w[(w <= width) & (h <= height)], h[(w <= width) & (h <= height)]
    x, y = rng.random(len(w)) * (width - w), rng.random(len(w)) * (height - h)
    return np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)


@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_every_large_box_is_covered_with_an_iou_of_half(width: int, height: int):
    boxes = random_boxes(width, height, 1500)
    assert len(boxes) > 700
    assert iou(boxes, grid(width, height)).max(axis=1).min() >= 0.5


def test_the_least_covered_boxes_have_an_iou_of_half():
    best = iou(WORST, grid(500, 375)).max(axis=1)
    assert (best >= 0.5).all()
    assert (best < 0.56).all()


@pytest.mark.parametrize(("width", "height"), [*SHAPES, (8, 8), (3000, 20), (8, 2000)])
def test_boxes_are_inside_distinct_and_reach_every_edge(width: int, height: int):
    boxes = grid(width, height)
    assert boxes.dtype == np.float32
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes[:, :2].min(axis=0).tolist() == [0, 0]
    assert boxes[:, 2:].max(axis=0).tolist() == [width, height]
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, 2:] <= (width, height)).all()


def test_scales_and_ratios_in_a_square():
    boxes = grid(100, 100).astype(np.float64)
    sides = np.unique((boxes[:, 2:] - boxes[:, :2]).round(2), axis=0)
    roots = np.sqrt(sides.prod(axis=1)) / 100
    # The smallest scale fits in all seven ratios, the largest but as a square.
    assert (np.abs(roots - 0.14) < 1e-3).sum() == 7
    assert (np.abs(roots - 1) < 1e-3).sum() == 1
    smallest = sides[np.abs(roots - 0.14) < 1e-3]
    ratios = np.sort(smallest[:, 0] / smallest[:, 1])
    np.testing.assert_allclose(ratios, [1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3], rtol=1e-2)


def test_neighbours_are_at_most_two_fifths_of_a_side_apart():
    boxes = grid(400, 300).astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes = np.unique(sides.round(1), axis=0)
    assert len(sizes) > 40
    for size in sizes:
        equal = boxes[(np.abs(sides - size) < 0.2).all(axis=1)]
        for axis in (0, 1):
            corners = np.sort(equal[:, axis])
            assert corners[0] == 0
            assert np.diff(corners).max(initial=0) <= 0.4 * size[axis] + 0.2
