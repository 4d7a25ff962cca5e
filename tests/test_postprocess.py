"""From the outputs of a model, of several views, to boxes and heatmaps."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from toy_detectors import CLASSES, Predict, detector

from boxless.config import InferenceConfig, ViewConfig
from boxless.detector import CachedImage, Detector
from boxless.heatmap_boxes import largest_component_box, objectness_box, proposal_heatmap, resize_map
from boxless.methods import CAMConfig, FastRCNNConfig, FCOSConfig, MILConfig, ViewOutput
from boxless.postprocess import box_vote, points_of
from boxless.structures import Detections, FloatArray, Heatmaps
from boxless.views import View


def image(*maps: Tensor, proposals: FloatArray | None = None, size: tuple[int, int] = (96, 64)) -> CachedImage:
    return CachedImage(maps, proposals, size)


def maps_as_they_are(maps: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
    """Class heatmaps are the features, scores their means."""
    assert boxes is None
    return ViewOutput(maps.mean(dim=(1, 2)), maps=maps)


def cam(*scales: int, flips: bool = False, predict: Predict = maps_as_they_are, **inference: Any) -> Detector:
    views = ViewConfig(scales=scales, flips=flips)
    return detector(predict, CAMConfig(), inference=InferenceConfig(views=views, **inference))


# Boxes of heatmaps.


def test_boxes_are_those_of_the_maps_best_class_first():
    maps = torch.zeros(3, 4, 6)
    maps[0, 1:3, 1:3], maps[1, 0:4, 3:6], maps[2, 0, 0] = 0.5, 0.8, 0.1
    ((found, heatmaps),) = cam(96, min_score=0.01).postprocess_with_heatmaps([image(maps)])
    # Means: 4 * 0.5 / 24, 12 * 0.8 / 24 and 0.1 / 24, which is too little.
    np.testing.assert_allclose(found.image_scores, [2 / 24, 9.6 / 24, 0.1 / 24], rtol=1e-5)
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [9.6 / 24, 2 / 24], rtol=1e-5)
    expected = [largest_component_box(maps[label].numpy(), (96, 64), 0.5) for label in (1, 0)]
    np.testing.assert_array_equal(found.boxes, np.stack(expected))
    assert found.size == heatmaps.size == (96, 64)
    assert found.classes == heatmaps.classes == CLASSES
    np.testing.assert_array_equal(heatmaps.maps, maps.numpy())
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.image_scores.dtype == np.float32


def test_classes_below_the_least_score_give_no_boxes():
    found = cam(96, min_score=0.9).postprocess(image(torch.full((3, 4, 6), 0.5)))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.image_scores.tolist() == [0.5] * 3


def test_maps_of_mirrored_views_are_mirrored_back():
    torch.manual_seed(0)
    maps = torch.rand(3, 4, 6)
    ((single, heatmaps),) = cam(96).postprocess_with_heatmaps([image(maps)])
    ((both, mirrored),) = cam(96, flips=True).postprocess_with_heatmaps([image(maps, maps.flip(2))])
    np.testing.assert_allclose(mirrored.maps, heatmaps.maps, rtol=1e-6)
    np.testing.assert_allclose(both.boxes, single.boxes)
    np.testing.assert_allclose(both.scores, single.scores, rtol=1e-6)


def test_maps_are_averaged_at_the_finest_resolution():
    torch.manual_seed(0)
    coarse, fine = torch.rand(3, 2, 3), torch.rand(3, 4, 6)
    ((found, heatmaps),) = cam(48, 96).postprocess_with_heatmaps([image(coarse, fine)])
    for label in range(3):
        expected = (resize_map(coarse[label].numpy(), (6, 4)) + fine[label].numpy()) / 2
        np.testing.assert_allclose(heatmaps.maps[label], expected, rtol=1e-5)
    means = (coarse.mean(dim=(1, 2)) + fine.mean(dim=(1, 2))) / 2
    np.testing.assert_allclose(found.image_scores, means, rtol=1e-5)


def with_objectness(maps: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
    """The last plane of the features is objectness."""
    return ViewOutput(maps[:3].mean(dim=(1, 2)), maps=maps[:3], objectness=maps[3])


def test_objectness_is_combined_with_the_maps_and_averaged_over_views():
    torch.manual_seed(0)
    maps = torch.rand(4, 4, 6) * 2 - 0.5
    single = cam(96, predict=with_objectness).postprocess(image(maps))
    planes = maps.numpy()
    expected = [objectness_box(planes[label], planes[3], (96, 64), 0.5) for label in single.labels]
    np.testing.assert_array_equal(single.boxes, np.stack(expected))
    alone = cam(96).postprocess(image(maps[:3]))
    assert not np.array_equal(alone.boxes, single.boxes)
    both = cam(96, flips=True, predict=with_objectness).postprocess(image(maps, maps.flip(2)))
    np.testing.assert_allclose(both.boxes, single.boxes)
    other = torch.rand(4, 8, 12)
    found = cam(96, 192, predict=with_objectness).postprocess(image(maps, other))
    mean = np.stack(
        [(resize_map(plane, (12, 8)) + fine) / 2 for plane, fine in zip(planes, other.numpy(), strict=True)]
    )
    expected = [objectness_box(mean[label], mean[3], (96, 64), 0.5) for label in found.labels]
    np.testing.assert_array_equal(found.boxes, np.stack(expected))


def test_known_labels_get_a_cam_box_each():
    maps = torch.zeros(3, 4, 6)
    maps[0, 1:3, 1:3], maps[2, 0, 0] = 0.5, 0.001
    toy = cam(96, min_score=0.9)
    assert len(toy.postprocess(image(maps))) == 0
    found = toy.boxes_for_labels(image(maps), np.array([2, 0, 1]))
    expected = [largest_component_box(maps[label].numpy(), (96, 64), 0.5) for label in (2, 0)]
    np.testing.assert_array_equal(found, [*expected, [0, 0, 96, 64]])
    assert found.dtype == np.float32
    assert toy.boxes_for_labels(image(maps), np.array([], np.int64)).shape == (0, 4)


def test_a_detector_with_other_views_leaves_the_first_unchanged():
    toy = cam(96)
    other = toy.with_views([View(48), View(48, True)])
    assert other.views == (View(48), View(48, True)) and toy.views == (View(96),)
    torch.manual_seed(0)
    maps = torch.rand(3, 2, 3)
    ((_, expected),) = cam(48).postprocess_with_heatmaps([image(maps)])
    ((_, found),) = other.postprocess_with_heatmaps([image(maps, maps.flip(2))])
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-6)


# Boxes of proposals.

BOXES = np.array([[0, 0, 40, 40], [8, 0, 48, 40], [50, 20, 90, 60], [0, 0, 96, 64]], np.float32)
SCORES = torch.tensor([[0.5, 0.1, 0.0], [0.4, 0.2, 0.0], [0.3, 0.15, 0.0], [0.05, 0.002, 0.0]])


def proposal_detector(*scales: int, flips: bool = False, **inference: Any) -> Detector:
    """The scores of every proposal are `SCORES`."""

    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        return ViewOutput(SCORES.sum(dim=0), SCORES[: len(boxes)])

    views = ViewConfig(scales=scales or (96,), flips=flips)
    return detector(predict, MILConfig(), inference=InferenceConfig(views=views, **inference))


def selected(**inference: Any) -> tuple[Detections, Heatmaps]:
    return proposal_detector(**inference).postprocess_with_heatmaps([image(torch.zeros(3, 4, 6), proposals=BOXES)])[0]


def rows(found: Detections) -> list[tuple[int, int, float]]:
    """Row of `BOXES`, label and score of every box, in order."""
    index = {tuple(box): row for row, box in enumerate(BOXES.tolist())}
    named = zip(found.boxes.tolist(), found.labels, found.scores, strict=True)
    return [(index[tuple(box)], int(label), round(float(score), 4)) for box, label, score in named]


def test_overlapping_boxes_of_a_class_are_suppressed_best_first():
    # The first two boxes overlap by 32 x 40 of 1920: IoU 2/3. The whole has 1600 / 6144 with each: it stays.
    found, _ = selected(nms=0.4, min_score=1e-3)
    assert rows(found) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 1, 0.15), (3, 0, 0.05), (3, 1, 0.002)]


def test_the_iou_of_suppression_is_a_setting():
    every, _ = selected(nms=0.7, min_score=0.2)
    assert rows(every) == [(0, 0, 0.5), (1, 0, 0.4), (2, 0, 0.3), (1, 1, 0.2)]
    strict, _ = selected(nms=0.2, min_score=0.01)
    assert rows(strict) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 1, 0.15)]


def test_the_best_boxes_of_all_classes_are_kept():
    found, _ = selected(nms=0.4, max_boxes=3)
    assert rows(found) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2)]


def test_kept_boxes_move_to_the_votes_of_those_around_them():
    found, heatmaps = selected(nms=0.4, min_score=1e-3, vote=True)
    plain, other = selected(nms=0.4, min_score=1e-3)
    assert found.labels.tolist() == plain.labels.tolist() and found.scores.tolist() == plain.scores.tolist()
    # Weights of the first two boxes: 0.25 and 0.16 for the first class, 0.01 and 0.04 for the second.
    shift = 8 * 0.16 / 0.41
    moved = plain.boxes.copy()
    moved[[0, 2]] = [[shift, 0, 40 + shift, 40], [6.4, 0, 46.4, 40]]
    np.testing.assert_allclose(found.boxes, moved, rtol=1e-5)
    np.testing.assert_array_equal(heatmaps.maps, other.maps)


def test_cam_boxes_of_large_images_are_computed_at_twice_the_view():
    torch.manual_seed(0)
    maps = torch.rand(3, 4, 6)
    large = cam(96).postprocess(image(maps, size=(6000, 4000)))
    expected = cam(96).postprocess(image(maps, size=(192, 128)))
    np.testing.assert_allclose(large.boxes, expected.boxes * (6000 / 192), rtol=1e-6)
    at_most = cam(96).postprocess(image(maps, size=(186, 124)))
    exact = [largest_component_box(maps[label].numpy(), (186, 124), 0.5) for label in at_most.labels]
    np.testing.assert_array_equal(at_most.boxes, exact)


def test_proposal_heatmaps_have_cells_of_eight_pixels_or_128_a_side():
    for size, cells in (((96, 64), (8, 12)), ((1024, 512), (64, 128)), ((6000, 4000), (85, 128))):
        toy = proposal_detector(96)
        ((_, heatmaps),) = toy.postprocess_with_heatmaps([image(torch.zeros(3, 4, 6), proposals=BOXES, size=size)])
        assert heatmaps.maps.shape == (3, *cells)


def test_the_heatmap_counts_all_proposals():
    _, heatmaps = selected()
    np.testing.assert_array_equal(heatmaps.maps, proposal_heatmap(BOXES, SCORES.numpy(), (96, 64)))


def test_boxes_of_cells_are_selected_like_those_of_proposals():
    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
        assert boxes is None and size == (128, 192)
        return ViewOutput(SCORES.sum(dim=0), SCORES, boxes=torch.from_numpy(BOXES) * 2)

    inference = {"views": {"scales": [192]}, "nms": 0.4, "min_score": 1e-3}
    cells = detector(predict, FCOSConfig(), inference=inference, supervision="boxes")
    # It needs no proposals.
    assert cells.proposals is None
    ((found, heatmaps),) = cells.postprocess_with_heatmaps([image(torch.zeros(3, 8, 12))])
    assert rows(found) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 1, 0.15), (3, 0, 0.05), (3, 1, 0.002)]
    np.testing.assert_array_equal(heatmaps.maps, proposal_heatmap(BOXES, SCORES.numpy(), (96, 64)))
    expected = proposal_detector().boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=BOXES), np.array([1, 0]))
    np.testing.assert_array_equal(
        cells.boxes_for_labels(image(torch.zeros(3, 8, 12)), np.array([1, 0])),
        expected,
    )


def test_proposals_are_moved_into_every_view_and_scores_averaged():
    calls: list[tuple[tuple[int, int], list[list[float]]]] = []

    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        calls.append((size, boxes.tolist()))
        scores = torch.full((1, 3), float(len(calls)))
        return ViewOutput(scores[0] / 10, scores)

    views = ViewConfig(scales=(48, 192), flips=True)
    toy = detector(predict, MILConfig(), inference=InferenceConfig(views=views))
    found = toy.postprocess(CachedImage([torch.zeros(3, 2, 2)] * 4, np.array([[10, 4, 40, 60]], np.float32), (96, 64)))
    assert calls == [
        ((32, 48), [[5, 2, 20, 30]]),
        ((128, 192), [[20, 8, 80, 120]]),
        ((32, 48), [[28, 2, 43, 30]]),
        ((128, 192), [[112, 8, 172, 120]]),
    ]
    assert found.scores.tolist() == [2.5] * 3
    np.testing.assert_allclose(found.image_scores, [0.25] * 3)
    # The boxes are those of the image.
    assert found.boxes.tolist() == [[10, 4, 40, 60]] * 3


def test_known_labels_get_the_votes_of_their_best_proposals():
    toy = proposal_detector(96, min_score=0.9)
    found = toy.boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=BOXES), np.array([0, 1]))
    # The first two overlap by 2/3; their weights are 0.25 and 0.16 for the first class, 0.01 and 0.04 for the second.
    np.testing.assert_allclose(found, [[8 * 0.16 / 0.41, 0, 40 + 8 * 0.16 / 0.41, 40], [6.4, 0, 46.4, 40]], rtol=1e-5)
    assert toy.boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=BOXES), np.array([], np.int64)).shape == (0, 4)


def test_known_labels_are_searched_from_coarse_to_fine():
    scored: list[list[list[float]]] = []
    # Two objects; the score of every proposal is its IoU with them.
    objects = torch.tensor([[10.0, 10, 40, 40], [60, 20, 90, 60]])

    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        scored.append(boxes.tolist())
        scores = torch.cat([box_iou(boxes, objects), torch.zeros(len(boxes), 1)], dim=1)
        return ViewOutput(scores.amax(dim=0), scores)

    torch.manual_seed(0)
    corners = torch.rand(200, 2) * 40
    proposals = torch.cat([corners, corners + 20 + torch.rand(200, 2) * 20], dim=1).numpy()
    toy = detector(predict, FastRCNNConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
    found = toy.boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=proposals), np.array([1, 0]))
    first, second = scored
    assert first == proposals[::4].tolist() and 0 < len(second) < 100
    scores = box_iou(torch.from_numpy(proposals), objects)
    expected = box_vote(proposals, scores.numpy(), np.array([1, 0]))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert toy.boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=proposals), np.array([], np.int64)).shape == (
        0,
        4,
    )


def test_the_best_coarse_proposal_is_scored_again_however_far_it_is_regressed():
    scored: list[list[list[float]]] = []
    proposals = torch.tensor([[8.0 * left, 0, 8 * left + 8, 8] for left in range(12)])

    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        scored.append(boxes.tolist())
        # The fifth is the best of the first class and is regressed to where the ninth is, the ninth of the second one
        # far from all proposals.
        rows = (boxes[:, 0] / 8).long()
        scores = torch.stack([rows == 4, rows == 8, rows < 0], dim=1) * 0.5 + 0.1
        moves = torch.where((rows == 4)[:, None], torch.tensor([32.0, 0, 32, 0]), 0)
        moves = torch.where((rows == 8)[:, None], torch.tensor([0.0, 40, 0, 40]), moves)
        return ViewOutput(scores.amax(dim=0), scores, boxes=boxes + moves)

    toy = detector(predict, FastRCNNConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
    found = toy.boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=proposals.numpy()), np.array([0, 1]))
    assert [[int(box[0] / 8) for box in boxes] for boxes in scored] == [[0, 4, 8], [4, 8]]
    np.testing.assert_allclose(found, [[64, 0, 72, 8], [64, 40, 72, 48]])


def test_multiple_instance_heads_score_all_proposals():
    scored: list[int] = []

    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        scored.append(len(boxes))
        return ViewOutput(SCORES.sum(dim=0), SCORES)

    toy = detector(predict, MILConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
    toy.boxes_for_labels(image(torch.zeros(3, 4, 6), proposals=BOXES), np.array([0, 1]))
    assert scored == [4]


def test_regressed_proposals_are_mirrored_back_averaged_and_voted_for():
    """One view regresses everything by 4 of its pixels to the right, the mirrored one does not."""

    def predict(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        shift = torch.tensor([4.0, 0, 4, 0]) * maps[0, 0, 0]
        return ViewOutput(SCORES.sum(dim=0), SCORES, boxes=boxes + shift)

    views = ViewConfig(scales=(192,), flips=True)
    toy = detector(predict, MILConfig(), inference=InferenceConfig(views=views))
    maps = [torch.ones(3, 8, 12), torch.zeros(3, 8, 12)]
    # 4 pixels of a view twice as large are 2 of the image; their mean with none is 1.
    found = toy.boxes_for_labels(image(*maps, proposals=BOXES), np.array([1]))
    np.testing.assert_allclose(found, [[7.4, 0, 47.4, 40]], rtol=1e-5)
    mirrored = toy.boxes_for_labels(image(*maps[::-1], proposals=BOXES), np.array([1]))
    np.testing.assert_allclose(mirrored, [[5.4, 0, 45.4, 40]], rtol=1e-5)


# Points.


def test_points_are_the_centres_of_the_best_cells():
    maps = np.zeros((3, 4, 5), np.float32)
    maps[0, 0, 0], maps[1, 3, 4], maps[2, 1, 2] = 1, 2, 3
    points = points_of(Heatmaps(maps, CLASSES, (100, 60)))
    # Cells of 20 x 15 pixels; x comes first.
    assert points.tolist() == [[10, 7.5], [90, 52.5], [50, 22.5]]
    assert points.dtype == np.float32


def test_points_of_negative_maps_are_their_least_negative_cells():
    maps = np.full((1, 2, 2), -3, np.float32)
    maps[0, 1, 0] = -1
    assert points_of(Heatmaps(maps, CLASSES[:1], (40, 20))).tolist() == [[10, 15]]
