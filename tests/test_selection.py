"""Box voting by hand, and suppression beside torchvision's."""

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from boxless.postprocess import box_vote, nms

BOXES = np.array([[0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]], np.float32)
"""IoU with the first: 1, 0.818, 0, 0.2, 0.143."""
SCORES = np.array([[0.6, 0.1], [0.3, 0.1], [0.5, 0.8], [0.1, 0.2], [0.55, 0.7]], np.float32)


def test_votes_are_of_the_boxes_that_overlap_the_best_by_half_weighted_by_squared_scores():
    # 0.36 of a box and 0.09 of one that lies 4 pixels further right; of the other class 0.64 of a box alone.
    found = box_vote(BOXES, SCORES, np.array([1, 0]))
    np.testing.assert_allclose(found, [[60, 40, 100, 80], [0.8, 0, 40.8, 40]], rtol=1e-6)
    assert found.dtype == np.float32
    # An IoU of a third is not enough, half is: of 40 x 40 pixels 32 x 40 is 2/3, 20 x 40 is 1/3.
    three = np.array([[0, 0, 40, 40], [8, 0, 48, 40], [20, 0, 60, 40]], np.float32)
    np.testing.assert_allclose(box_vote(three, np.ones((3, 1), np.float32), np.array([0])), [[4, 0, 44, 40]])
    assert box_vote(BOXES, SCORES, np.zeros(0, np.int64)).shape == (0, 4)


def test_any_row_can_be_moved():
    # Rows 1 and 3 by the scores of the first class: votes of 0.3 and 0.6 for row 1, of 0.1 alone for row 3.
    found = box_vote(BOXES, SCORES, np.array([0, 0, 1]), np.array([1, 3, 1]))
    np.testing.assert_allclose(found, [[0.8, 0, 40.8, 40], [0, 0, 100, 80], [2, 0, 42, 40]], rtol=1e-6)
    # Small scores of the boxes that vote, beside a large one of a box that does not, do not underflow.
    small = SCORES * np.array([1e-25, 1e-25, 1, 1, 1], np.float32)[:, None]
    np.testing.assert_allclose(box_vote(BOXES, small, np.array([0]), np.array([1])), [[0.8, 0, 40.8, 40]], rtol=1e-6)
    # A box without area overlaps nothing and stays.
    flat = np.array([[10, 0, 10, 40], [0, 0, 40, 40]], np.float32)
    np.testing.assert_array_equal(box_vote(flat, np.array([[0.5], [0.1]], np.float32), np.array([0])), flat[:1])


def test_votes_do_not_depend_on_the_scale_of_the_scores():
    expected = box_vote(BOXES, SCORES, np.array([0, 1]))
    np.testing.assert_allclose(box_vote(BOXES, SCORES * np.float32(1e-30), np.array([0, 1])), expected, rtol=1e-6)
    # Where all scores are zero, all boxes count alike.
    zero = box_vote(BOXES, np.zeros((5, 2), np.float32), np.array([1]))
    np.testing.assert_allclose(zero, [[2, 0, 42, 40]])


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_that_of_torchvision(seed: int):
    random = np.random.default_rng(seed)
    corners = random.random((400, 2)) * 200
    boxes = np.concatenate([corners, corners + 20 + random.random((400, 2)) * 60], axis=1).astype(np.float32)
    scores, labels = random.permutation(400).astype(np.float32), random.integers(0, 5, 400)
    given = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels)
    for threshold in (0.1, 0.4, 0.7):
        expected = batched_nms(*given, threshold).numpy()
        assert 20 < len(expected) < 400
        np.testing.assert_array_equal(nms(boxes, scores, labels, threshold, 1000), expected)
        np.testing.assert_array_equal(nms(boxes, scores, labels, threshold, 15), expected[:15])


def test_of_equal_scores_the_first_is_kept_and_nothing_gives_nothing():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.5, 0.7, 0.7], np.float32)
    assert nms(boxes, scores, np.array([0, 0, 0]), 0.4, 9).tolist() == [1]
    assert nms(boxes, scores, np.array([0, 0, 1]), 0.4, 9).tolist() == [1, 2]
    assert nms(boxes[:0], scores[:0], np.zeros(0, np.int64), 0.4, 9).shape == (0,)
