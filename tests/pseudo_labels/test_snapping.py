from types import SimpleNamespace

import numpy as np
import pytest

from boxless.pseudo_labels.snapping import SNAP_IOU, snap, snap_all
from boxless.structures import Annotations, Point


def test_a_box_moves_to_the_weighted_mean_of_the_proposals_near_it():
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    # Of 10 x 10 pixels, 10 x 8 and 10 x 7 lie within: IoU 0.8 and 0.7; 10 x 5 is too little.
    proposals = np.array([[0, 0, 10, 8], [0, 0, 10, 7], [0, 0, 10, 5]], np.float32)
    bottom = (8 * 0.8**8 + 7 * 0.7**8) / (0.8**8 + 0.7**8)
    found = snap(boxes, proposals)
    # The second box has no proposal near it and stays.
    np.testing.assert_allclose(found, [[0, 0, 10, bottom], [50, 50, 60, 60]], rtol=1e-5)
    assert found.dtype == np.float32


def test_proposals_from_the_least_iou_on_count():
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    assert snap(boxes, np.array([[0, 0, 10, 10 * SNAP_IOU - 0.01]], np.float32)).tolist() == boxes.tolist()
    found = snap(boxes, np.array([[0, 0, 10, 10 * SNAP_IOU + 0.01]], np.float32))
    assert found[0, 3] == pytest.approx(10 * SNAP_IOU + 0.01)


def test_without_boxes_or_proposals_nothing_moves():
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    assert snap(boxes[:0], boxes).shape == (0, 4)
    assert snap(boxes, boxes[:0]).tolist() == boxes.tolist()


def test_boxes_of_classes_that_were_learned_from_ground_truth_stay():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    labels = [Annotations(boxes, np.array([0, 1]), np.array([True, False]))]
    dataset = SimpleNamespace(samples=[SimpleNamespace(points=())])
    data = SimpleNamespace(proposals_of=lambda row: np.array([[0, 0, 10, 8]], np.float32), dataset=dataset)
    for leave, bottoms in (((), [8, 8]), ([1], [8, 10])):
        (found,) = snap_all(labels, data, leave)  # type: ignore[arg-type]
        assert found.boxes[:, 3].tolist() == bottoms and found.boxes.dtype == np.float32
        assert (found.labels.tolist(), found.ignore.tolist()) == ([0, 1], [True, False])


def test_a_box_that_holds_a_point_does_not_lose_it():
    boxes = np.array([[10, 10, 50, 50], [10, 10, 50, 50]], np.float32)
    labels = [Annotations(boxes, np.array([0, 1]), np.array([False, False]))]
    samples = [SimpleNamespace(points=(Point(0, 11, 30), Point(1, 20, 30)))]
    proposals = np.array([[14, 10, 54, 50]], np.float32)
    data = SimpleNamespace(proposals_of=lambda row: proposals, dataset=SimpleNamespace(samples=samples))
    (found,) = snap_all(labels, data)  # type: ignore[arg-type]
    assert found.boxes.tolist() == [[10, 10, 50, 50], [14, 10, 54, 50]]
