import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxless.methods.mining import enlarge, largest_component_box, proposal_heatmap
from boxless.structures import FloatArray


def drawn_map(*rows: str) -> FloatArray:
    """A map of digits, a tenth each."""
    return np.array([[int(cell) / 10 for cell in row] for row in rows], np.float32)


# The largest bright region.


def test_the_box_of_the_larger_of_two_regions():
    heatmap = drawn_map(
        "9000000",
        "0000000",
        "0005500",
        "0005500",
        "0000000",
    )
    box = largest_component_box(heatmap, (7, 5), 0.5)
    assert box.tolist() == [3, 2, 5, 4]
    assert box.dtype == np.float32
    # At a higher threshold the brighter, smaller one is left.
    assert largest_component_box(heatmap, (7, 5), 0.6).tolist() == [0, 0, 1, 1]


def test_the_threshold_is_a_fraction_of_the_maximum_and_counts_in():
    heatmap = np.array([[0, 1, 2, 4, 8, 4, 2, 1]], np.float32)
    assert largest_component_box(heatmap, (8, 1), 0.5).tolist() == [3, 0, 6, 1]
    assert largest_component_box(heatmap, (8, 1), 0.25).tolist() == [2, 0, 7, 1]
    assert largest_component_box(heatmap, (8, 1), 0.51).tolist() == [4, 0, 5, 1]
    assert largest_component_box(heatmap * 100, (8, 1), 0.5).tolist() == [3, 0, 6, 1]


def test_regions_that_touch_at_a_corner_are_one():
    heatmap = drawn_map("9900", "9900", "0090", "0009")
    assert largest_component_box(heatmap, (4, 4), 0.5).tolist() == [0, 0, 4, 4]


def test_the_background_is_no_region():
    # Dark cells are the most and hang together.
    heatmap = np.full((6, 6), -5, np.float32)
    heatmap[1, 2:4] = 1
    assert largest_component_box(heatmap, (6, 6), 0.5).tolist() == [2, 1, 4, 2]


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_map_that_is_nowhere_positive_gives_the_whole_image(value: float):
    assert largest_component_box(np.full((3, 4), value, np.float32), (40, 31), 0.2).tolist() == [0, 0, 40, 31]


def test_a_uniform_map_gives_the_whole_image():
    assert largest_component_box(np.full((3, 4), 0.7, np.float32), (40, 31), 0.2).tolist() == [0, 0, 40, 31]


def test_boxes_are_in_pixels_of_the_image():
    heatmap = drawn_map("0000", "0990", "0990", "0000")
    left, top, right, bottom = largest_component_box(heatmap, (80, 40), 0.5)
    # Cells of 20 x 10 pixels; interpolation moves the edge by less than half a cell.
    assert max(abs(left - 20), abs(right - 60)) <= 10
    assert max(abs(top - 10), abs(bottom - 30)) <= 5
    assert (left + right, top + bottom) == (80, 40)


# Enlarging.


def test_enlarging_interpolates_between_the_centres_of_cells():
    np.testing.assert_allclose(enlarge(np.array([[0, 4]], np.float32), (8, 1)), [[0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]])
    assert enlarge(np.ones((3, 4), np.float32), (31, 17)).shape == (17, 31)
    assert enlarge(np.ones((3, 4), np.float32), (31, 17)).dtype == np.float32


def test_enlarging_to_the_same_size_changes_nothing():
    heatmap = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_array_equal(enlarge(heatmap, (7, 5)), heatmap)


# Heatmaps of proposals.


def literal_heatmap(boxes: FloatArray, scores: FloatArray, size: tuple[int, int], cell: int) -> FloatArray:
    """Cell by cell, box by box."""
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


def test_a_hand_worked_heatmap():
    boxes = np.array([[0, 0, 16, 8], [8, 0, 24, 16]], np.float32)
    maps = proposal_heatmap(boxes, np.array([[0.3, 1], [0.1, 0]], np.float32), (24, 16))
    np.testing.assert_allclose(maps[0], np.array([[3, 4, 1], [0, 1, 1]]) / 4, atol=1e-6)
    np.testing.assert_allclose(maps[1], [[1, 1, 0], [0, 0, 0]], atol=1e-6)
    assert maps.dtype == np.float32


def test_a_cell_belongs_to_a_box_that_covers_its_centre():
    def covered(*box: float) -> list[float]:
        return [float(cell) for cell in proposal_heatmap(np.array([box], np.float32), np.ones((1, 1)), (32, 8))[0, 0]]

    assert covered(4, 0, 20, 8) == [1, 1, 0, 0]
    assert covered(4.1, 0, 20.1, 8) == [0, 1, 1, 0]
    assert covered(0, 3, 32, 8) == [1, 1, 1, 1]
    assert covered(0, 5, 32, 8) == [0, 0, 0, 0]


def test_a_class_without_scores_has_an_empty_map():
    maps = proposal_heatmap(np.array([[0, 0, 16, 16]], np.float32), np.array([[0.0, 0.5]]), (16, 16))
    assert not maps[0].any()
    assert (maps[1] == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 12), st.integers(3, 9), st.integers(0, 2**31))
def test_heatmaps_equal_a_literal_loop(width: int, height: int, number: int, cell: int, seed: int):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, width, (number, 2))), np.sort(rng.uniform(0, height, (number, 2)))
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)
    scores = rng.uniform(0.01, 1, (number, 3)).astype(np.float32)
    found = proposal_heatmap(boxes, scores, (width, height), cell)
    np.testing.assert_allclose(found, literal_heatmap(boxes, scores, (width, height), cell), atol=1e-5)
