import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxless.heatmap_boxes import (
    largest_component_box,
    objectness_box,
    proposal_heatmap,
    resize_map,
    separating_proposal,
)
from boxless.structures import FloatArray


def map_of_digits(*rows: str) -> FloatArray:
    """A map of digits, a tenth each."""
    return np.array([[int(cell) / 10 for cell in row] for row in rows], np.float32)


# The largest component of high response.


def test_the_box_of_the_larger_of_two_components():
    heatmap = map_of_digits(
        "9000000",
        "0000000",
        "0005500",
        "0005500",
        "0000000",
    )
    box = largest_component_box(heatmap, (7, 5), 0.5)
    assert box.tolist() == [3, 2, 5, 4]
    assert box.dtype == np.float32
    # At a higher threshold the smaller one of higher response is left.
    assert largest_component_box(heatmap, (7, 5), 0.6).tolist() == [0, 0, 1, 1]


def test_the_threshold_is_an_inclusive_fraction_of_the_maximum():
    heatmap = np.array([[0, 1, 2, 4, 8, 4, 2, 1]], np.float32)
    assert largest_component_box(heatmap, (8, 1), 0.5).tolist() == [3, 0, 6, 1]
    assert largest_component_box(heatmap, (8, 1), 0.25).tolist() == [2, 0, 7, 1]
    assert largest_component_box(heatmap, (8, 1), 0.51).tolist() == [4, 0, 5, 1]
    assert largest_component_box(heatmap * 100, (8, 1), 0.5).tolist() == [3, 0, 6, 1]


def test_components_that_touch_at_a_corner_are_one():
    heatmap = map_of_digits("9900", "9900", "0090", "0009")
    assert largest_component_box(heatmap, (4, 4), 0.5).tolist() == [0, 0, 4, 4]


def test_the_background_is_no_component():
    # Cells of low response are the most and are connected.
    heatmap = np.full((6, 6), -5, np.float32)
    heatmap[1, 2:4] = 1
    assert largest_component_box(heatmap, (6, 6), 0.5).tolist() == [2, 1, 4, 2]


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_map_without_positive_response_gives_the_whole_image(value: float):
    heatmap = np.full((3, 4), value, np.float32)
    assert largest_component_box(heatmap, (40, 31), 0.2).tolist() == [0, 0, 40, 31]
    assert objectness_box(heatmap, np.full((3, 4), 3, np.float32), (40, 31), 0.2).tolist() == [0, 0, 40, 31]


def test_a_uniform_map_gives_the_whole_image():
    assert largest_component_box(np.full((3, 4), 0.7, np.float32), (40, 31), 0.2).tolist() == [0, 0, 40, 31]


def test_boxes_are_in_pixels_of_the_image():
    heatmap = map_of_digits("0000", "0990", "0990", "0000")
    left, top, right, bottom = largest_component_box(heatmap, (80, 40), 0.5)
    # Cells of 20 x 10 pixels; interpolation moves the edge by less than half a cell.
    assert max(abs(left - 20), abs(right - 60)) <= 10
    assert max(abs(top - 10), abs(bottom - 30)) <= 5
    assert (left + right, top + bottom) == (80, 40)


# Objectness.


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_heatmap_and_objectness_together_decide_where_an_object_ends():
    # Cells of one pixel; the threshold is half the maximum, so a location of a quarter halves the odds.
    heatmap = np.array([[0, 1, 2, 4, 2, 1, 0]], np.float32)
    # Odds of the cells are 1/250, 1/2, 1, 2, 1, 1/2, 1/250 times those of objectness.
    for probability, left, right in ((0.501, 2, 5), (0.66, 2, 5), (0.67, 1, 6), (0.49, 3, 4), (0.34, 3, 4)):
        objectness = np.full((1, 7), log_odds(probability), np.float32)
        assert objectness_box(heatmap, objectness, (7, 1), 0.5).tolist() == [left, 0, right, 1], probability
    # Below a third no location is likely, and the heatmap decides alone.
    objectness = np.full((1, 7), log_odds(0.33), np.float32)
    assert objectness_box(heatmap, objectness, (7, 1), 0.5).tolist() == [2, 0, 5, 1]


def test_where_the_heatmap_is_at_its_threshold_objectness_decides():
    heatmap = np.full((1, 6), 0.5, np.float32)
    heatmap[0, 2] = 1
    objectness = np.array([[-2, 2, 2, 2, -2, -2]], np.float32)
    box = objectness_box(heatmap, objectness, (6, 1), 0.5)
    assert box.tolist() == [1, 0, 4, 1] and box.dtype == np.float32
    # Alone the heatmap gives more, or less.
    assert largest_component_box(heatmap, (6, 1), 0.5).tolist() == [0, 0, 6, 1]
    assert largest_component_box(heatmap, (6, 1), 0.6).tolist() == [2, 0, 3, 1]


def test_the_threshold_shifts_the_odds():
    heatmap = np.array([[8, 4, 2, 1]], np.float32)
    even = np.zeros((1, 4), np.float32) + 1e-6
    for threshold, right in ((0.9, 1), (0.5, 2), (0.25, 3), (0.125, 4)):
        assert objectness_box(heatmap, even, (4, 1), threshold).tolist() == [0, 0, right, 1]


def test_of_several_components_the_one_of_the_largest_summed_response_is_taken():
    objectness = np.array([[5, 5, 5, -9, 5, -9, 5, 5]], np.float32)
    # The maximum is no object location; the largest sum is on the right, though the left has more cells.
    heatmap = np.array([[1, 1, 1, 9, 5, 0, 3, 3]], np.float32)
    assert objectness_box(heatmap, objectness, (8, 1), 0.2).tolist() == [6, 0, 8, 1]
    heatmap[0, 6:] = 1
    assert objectness_box(heatmap, objectness, (8, 1), 0.2).tolist() == [4, 0, 5, 1]
    # Negative values subtract nothing.
    heatmap = np.array([[5, -4, -4, 0, 4, 0, 0, 0]], np.float32)
    assert objectness_box(heatmap, np.where(objectness > 0, 20, objectness), (8, 1), 0.2).tolist() == [0, 0, 3, 1]


def test_components_of_objectness_are_connected_at_their_corners():
    heatmap = map_of_digits("900", "090", "009")
    objectness = np.where(heatmap > 0, 3, -3).astype(np.float32)
    assert objectness_box(heatmap, objectness, (3, 3), 0.5).tolist() == [0, 0, 3, 3]


def test_without_any_object_location_the_heatmap_decides():
    heatmap = map_of_digits("000", "096", "000")
    nothing = np.full((3, 3), -20, np.float32)
    assert objectness_box(heatmap, nothing, (3, 3), 0.5).tolist() == [1, 1, 3, 2]
    assert objectness_box(heatmap, nothing, (3, 3), 0.7).tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("certain", [3.0, 30.0])
def test_one_very_certain_cell_does_not_shift_an_edge(certain: float):
    """Between a location that is certainly object and one that is certainly background the edge is in the middle."""
    heatmap = np.ones((1, 2), np.float32)
    objectness = np.array([[certain, -3]], np.float32)
    assert objectness_box(heatmap, objectness, (40, 20), 0.999).tolist()[2] == pytest.approx(20, abs=1)


# Resizing.


def test_resizing_interpolates_between_the_centres_of_cells():
    expected = [[0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]]
    np.testing.assert_allclose(resize_map(np.array([[0, 4]], np.float32), (8, 1)), expected)
    assert resize_map(np.ones((3, 4), np.float32), (31, 17)).shape == (17, 31)
    assert resize_map(np.ones((3, 4), np.float32), (31, 17)).dtype == np.float32


def test_resizing_to_the_same_size_changes_nothing():
    heatmap = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_array_equal(resize_map(heatmap, (7, 5)), heatmap)


# Heatmaps of proposals.


def slow_proposal_heatmap(boxes: FloatArray, scores: FloatArray, size: tuple[int, int], cell: int) -> FloatArray:
    """From the description, cell by cell and box by box, without a summed-area table."""
    columns, rows = max(1, round(size[0] / cell)), max(1, round(size[1] / cell))
    maps = np.zeros((scores.shape[1], rows, columns))
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * size[0] / columns, (row + 0.5) * size[1] / rows
            for (left, top, right, bottom), score in zip(boxes.tolist(), scores, strict=True):
                if left <= x < right and top <= y < bottom:
                    maps[:, row, column] += score
    best = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, best, out=maps, where=best > 0).astype(np.float32)


def test_a_proposal_heatmap_by_hand():
    boxes = np.array([[0, 0, 16, 8], [8, 0, 24, 16]], np.float32)
    maps = proposal_heatmap(boxes, np.array([[0.3, 1], [0.1, 0]], np.float32), (24, 16))
    np.testing.assert_allclose(maps[0], np.array([[3, 4, 1], [0, 1, 1]]) / 4, atol=1e-6)
    np.testing.assert_allclose(maps[1], [[1, 1, 0], [0, 0, 0]], atol=1e-6)
    assert maps.dtype == np.float32


def test_a_box_covers_the_cells_whose_centre_is_in_it():
    def covered(*box: float) -> list[float]:
        return [float(cell) for cell in proposal_heatmap(np.array([box], np.float32), np.ones((1, 1)), (32, 8))[0, 0]]

    assert covered(4, 0, 20, 8) == [1, 1, 0, 0]
    assert covered(4.1, 0, 20.1, 8) == [0, 1, 1, 0]
    assert covered(0, 3, 32, 8) == [1, 1, 1, 1]
    assert covered(0, 5, 32, 8) == [0, 0, 0, 0]


def test_a_class_without_scores_has_a_map_of_zeros():
    maps = proposal_heatmap(np.array([[0, 0, 16, 16]], np.float32), np.array([[0.0, 0.5]]), (16, 16))
    assert not maps[0].any()
    assert (maps[1] == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 12), st.integers(3, 9), st.integers(0, 2**31))
def test_proposal_heatmaps_equal_a_slow_reference(width: int, height: int, number: int, cell: int, seed: int):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, width, (number, 2))), np.sort(rng.uniform(0, height, (number, 2)))
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)
    scores = rng.uniform(0.01, 1, (number, 3)).astype(np.float32)
    found = proposal_heatmap(boxes, scores, (width, height), cell)
    np.testing.assert_allclose(found, slow_proposal_heatmap(boxes, scores, (width, height), cell), atol=1e-5)


# The proposal that separates a map.


def between_class_variance(heatmap: FloatArray, box: FloatArray) -> float:
    """Otsu's criterion, cell by cell; -1 where the values inside are not higher."""
    left, top, right, bottom = box.astype(int)
    inside = np.zeros(heatmap.shape, bool)
    inside[top:bottom, left:right] = True
    if inside.all() or heatmap[inside].mean() <= heatmap[~inside].mean():
        return -1
    share = inside.mean()
    return float(share * (1 - share) * (heatmap[inside].mean() - heatmap[~inside].mean()) ** 2)


def proposals_of(random: np.random.Generator, number: int) -> FloatArray:
    corners = np.sort(random.integers(0, 65, (number, 2, 2)), axis=1)
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 1)
    return np.clip(corners.reshape(-1, 4), [0, 0, 1, 1], [63, 47, 64, 48]).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_the_separating_proposal_is_the_best_by_otsus_criterion(seed: int):
    random = np.random.default_rng(seed)
    heatmap, proposals = random.normal(size=(48, 64)).astype(np.float32), proposals_of(random, 40)
    heatmap[10:30, 20:50] += 1
    values = [between_class_variance(heatmap, box) for box in proposals]
    assert separating_proposal(heatmap, proposals, (64, 48)) == int(np.argmax(values))
    # Neither the zero of the map nor its scale matters, nor the size of the image.
    assert separating_proposal(7 * heatmap - 3, proposals * 10, (640, 480)) == int(np.argmax(values))


def test_the_separating_proposal_fits_a_plateau():
    heatmap = np.zeros((32, 64), np.float32)
    heatmap[8:16, 16:40] = 1
    proposals = np.array([[0, 0, 64, 32], [16, 8, 30, 16], [16, 8, 40, 16], [14, 6, 44, 20]], np.float32)
    assert separating_proposal(heatmap, proposals, (64, 32)) == 2
    assert separating_proposal(-heatmap, proposals[1:], (64, 32)) == 0


def test_a_proposal_below_a_cell_has_the_value_of_its_cell():
    heatmap = np.zeros((32, 64), np.float32)
    heatmap[31, 63] = 1
    proposals = np.array([[0, 0, 5, 5], [6398, 3198, 6400, 3200]], np.float32)
    assert separating_proposal(heatmap, proposals, (6400, 3200)) == 1
