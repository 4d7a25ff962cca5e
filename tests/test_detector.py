from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_iou

from boxless.backbones import Backbone
from boxless.config import (
    Config,
    FastRCNNConfig,
    FCOSConfig,
    InferenceConfig,
    LocalizerConfig,
    MILConfig,
    ProposalConfig,
    ViewConfig,
    resolve,
)
from boxless.datasets import load_dataset
from boxless.detector import Detector, confident, points_of
from boxless.errors import ImageError
from boxless.features import Batch, View
from boxless.images import read_image
from boxless.methods import FastRCNN, Localizer, ViewOutput
from boxless.methods.fast_rcnn import PreparedView
from boxless.methods.mining import enlarge, largest_component_box, objectness_box, proposal_heatmap, vote
from boxless.methods.presets import preset
from boxless.proposals import propose
from boxless.run_folder import Network, build_network
from boxless.structures import Detections, Heatmaps

CLASSES = ("cat", "dog", "owl")


class Toy(Localizer):
    """A model of one function of a view's map, its size (height, width) and its boxes; its threshold is a half."""

    def __init__(self, say: Callable[[Tensor, tuple[int, int], Any], ViewOutput]) -> None:
        super().__init__(nn.Sequential(), 3, LocalizerConfig(threshold=0.5), 3)
        self.say = say

    def forward(self, batch: Batch) -> list[ViewOutput]:
        assert not self.training
        (height, width), boxes = batch.sizes[0].tolist(), None if batch.boxes is None else batch.boxes[0]
        return [self.say(batch.maps[0], (height, width), boxes)]


class ToyHead(FastRCNN):
    """The same with a head over proposals, which says nothing before it is given any."""

    def __init__(self, say: Callable[[Tensor, tuple[int, int], Any], ViewOutput]) -> None:
        nn.Module.__init__(self)
        self.say, self.localizer = say, Toy(say)

    def prepare_view(self, batch: Batch) -> list[PreparedView]:
        assert not self.training
        return [PreparedView(batch.maps[0], batch.sizes[0], ViewOutput(torch.zeros(3)))]

    def judge(self, views: Sequence[PreparedView], proposals: Sequence[Tensor]) -> list[ViewOutput]:
        ((view, size, _),), (boxes,) = views, proposals
        height, width = size.tolist()
        return [self.say(view, (height, width), boxes)]


def detector(say: Callable[..., ViewOutput], **settings: Any) -> Detector:
    """A detector with a toy model on a small random backbone."""
    torch.manual_seed(0)
    stages = nn.Sequential(nn.Conv2d(3, 3, 3, stride=16, padding=1)).eval()
    backbone = Backbone(stages, 3, 16, (0.5,) * 3, (0.5,) * 3, "random", "none")
    config = Config.model_validate({"method": "toy"} | settings)
    network = Network(backbone, stages, ToyHead(say) if isinstance(config.head, FastRCNNConfig) else Toy(say))
    return Detector(network, config, CLASSES, torch.device("cpu"))


def maps_as_they_are(maps: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
    """Class heatmaps are the features, scores their means."""
    assert boxes is None
    return ViewOutput(maps.mean(dim=(1, 2)), maps=maps)


def localizer(*scales: int, flips: bool = False, say: Any = maps_as_they_are, **inference: Any) -> Detector:
    views = ViewConfig(scales=scales, flips=flips)
    return detector(say, head=LocalizerConfig(), inference=InferenceConfig(views=views, **inference))


# Boxes of heatmaps.


def test_boxes_are_those_of_the_maps_best_class_first():
    maps = torch.zeros(3, 4, 6)
    maps[0, 1:3, 1:3], maps[1, 0:4, 3:6], maps[2, 0, 0] = 0.5, 0.8, 0.1
    found, heat = localizer(96, min_score=0.01).postprocess([maps], None, (96, 64))
    # Means: 4 * 0.5 / 24, 12 * 0.8 / 24 and 0.1 / 24, which is too little.
    np.testing.assert_allclose(found.image_scores, [2 / 24, 9.6 / 24, 0.1 / 24], rtol=1e-5)
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [9.6 / 24, 2 / 24], rtol=1e-5)
    wanted = [largest_component_box(maps[label].numpy(), (96, 64), 0.5) for label in (1, 0)]
    np.testing.assert_array_equal(found.boxes, np.stack(wanted))
    assert found.size == heat.size == (96, 64)
    assert found.classes == heat.classes == CLASSES
    np.testing.assert_array_equal(heat.maps, maps.numpy())
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.image_scores.dtype == np.float32


def test_nothing_sure_enough_gives_no_boxes():
    found, _ = localizer(96, min_score=0.9).postprocess([torch.full((3, 4, 6), 0.5)], None, (96, 64))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.image_scores.tolist() == [0.5] * 3


def test_a_mirrored_view_is_turned_back():
    torch.manual_seed(0)
    maps = torch.rand(3, 4, 6)
    single, heat = localizer(96).postprocess([maps], None, (96, 64))
    both, turned = localizer(96, flips=True).postprocess([maps, maps.flip(2)], None, (96, 64))
    np.testing.assert_allclose(turned.maps, heat.maps, rtol=1e-6)
    np.testing.assert_allclose(both.boxes, single.boxes)
    np.testing.assert_allclose(both.scores, single.scores, rtol=1e-6)


def test_views_meet_at_the_finest_and_are_averaged():
    torch.manual_seed(0)
    coarse, fine = torch.rand(3, 2, 3), torch.rand(3, 4, 6)
    found, heat = localizer(48, 96).postprocess([coarse, fine], None, (96, 64))
    for label in range(3):
        wanted = (enlarge(coarse[label].numpy(), (6, 4)) + fine[label].numpy()) / 2
        np.testing.assert_allclose(heat.maps[label], wanted, rtol=1e-5)
    means = (coarse.mean(dim=(1, 2)) + fine.mean(dim=(1, 2))) / 2
    np.testing.assert_allclose(found.image_scores, means, rtol=1e-5)


def with_foreground(maps: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
    """The last plane of the features is the foreground."""
    return ViewOutput(maps[:3].mean(dim=(1, 2)), maps=maps[:3], objectness=maps[3])


def test_a_foreground_has_a_say_in_the_boxes_and_is_turned_back_with_its_view():
    torch.manual_seed(0)
    maps = torch.rand(4, 4, 6) * 2 - 0.5
    single, _ = localizer(96, say=with_foreground).postprocess([maps], None, (96, 64))
    planes = maps.numpy()
    wanted = [objectness_box(planes[label], planes[3], (96, 64), 0.5) for label in single.labels]
    np.testing.assert_array_equal(single.boxes, np.stack(wanted))
    alone, _ = localizer(96).postprocess([maps[:3]], None, (96, 64))
    assert not np.array_equal(alone.boxes, single.boxes)
    both, _ = localizer(96, flips=True, say=with_foreground).postprocess([maps, maps.flip(2)], None, (96, 64))
    np.testing.assert_allclose(both.boxes, single.boxes)
    other = torch.rand(4, 8, 12)
    found, _ = localizer(96, 192, say=with_foreground).postprocess([maps, other], None, (96, 64))
    mean = np.stack([(enlarge(plane, (12, 8)) + fine) / 2 for plane, fine in zip(planes, other.numpy(), strict=True)])
    wanted = [objectness_box(mean[label], mean[3], (96, 64), 0.5) for label in found.labels]
    np.testing.assert_array_equal(found.boxes, np.stack(wanted))


def test_classes_that_are_known_to_be_there_get_a_box_each():
    maps = torch.zeros(3, 4, 6)
    maps[0, 1:3, 1:3], maps[2, 0, 0] = 0.5, 0.001
    judge = localizer(96, min_score=0.9)
    assert len(judge.postprocess([maps], None, (96, 64))[0]) == 0
    found = judge.boxes_for_labels([maps], None, (96, 64), [2, 0, 1])
    wanted = [largest_component_box(maps[label].numpy(), (96, 64), 0.5) for label in (2, 0)]
    np.testing.assert_array_equal(found, [*wanted, [0, 0, 96, 64]])
    assert found.dtype == np.float32
    assert judge.boxes_for_labels([maps], None, (96, 64), []).shape == (0, 4)


def test_the_same_detector_in_other_views():
    judge = localizer(96)
    other = judge.with_views([View(48), View(48, True)])
    assert other.views == (View(48), View(48, True)) and judge.views == (View(96),)
    torch.manual_seed(0)
    maps = torch.rand(3, 2, 3)
    wanted = localizer(48).postprocess([maps], None, (96, 64))[1].maps
    np.testing.assert_allclose(other.postprocess([maps, maps.flip(2)], None, (96, 64))[1].maps, wanted, rtol=1e-6)


# Boxes of proposals.

BOXES = np.array([[0, 0, 40, 40], [8, 0, 48, 40], [50, 20, 90, 60], [0, 0, 96, 64]], np.float32)
SCORES = torch.tensor([[0.5, 0.1, 0.0], [0.4, 0.2, 0.0], [0.3, 0.15, 0.0], [0.05, 0.002, 0.0]])


def proposal_detector(*scales: int, flips: bool = False, **inference: Any) -> Detector:
    """The scores of every proposal are `SCORES`."""

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        return ViewOutput(SCORES.sum(dim=0), SCORES[: len(boxes)])

    views = ViewConfig(scales=scales or (96,), flips=flips)
    return detector(say, head=MILConfig(), inference=InferenceConfig(views=views, **inference))


def decided(**inference: Any) -> tuple[Detections, Heatmaps]:
    return proposal_detector(**inference).postprocess([torch.zeros(3, 4, 6)], BOXES, (96, 64))


def rows(found: Detections) -> list[tuple[int, int, float]]:
    """Row of `BOXES`, label and score of every box, in order."""
    index = {tuple(box): row for row, box in enumerate(BOXES.tolist())}
    named = zip(found.boxes.tolist(), found.labels, found.scores, strict=True)
    return [(index[tuple(box)], int(label), round(float(score), 4)) for box, label, score in named]


def test_overlapping_boxes_of_a_class_are_suppressed_best_first():
    # The first two boxes overlap by 32 x 40 of 1920: IoU 2/3. The whole has 1600 / 6144 with each: it stays.
    found, _ = decided(nms=0.4, min_score=1e-3)
    assert rows(found) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 1, 0.15), (3, 0, 0.05), (3, 1, 0.002)]


def test_the_threshold_of_suppression_is_a_setting():
    every, _ = decided(nms=0.7, min_score=0.2)
    assert rows(every) == [(0, 0, 0.5), (1, 0, 0.4), (2, 0, 0.3), (1, 1, 0.2)]
    strict, _ = decided(nms=0.2, min_score=0.01)
    assert rows(strict) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 1, 0.15)]


def test_the_best_boxes_of_all_classes_stay():
    found, _ = decided(nms=0.4, max_boxes=3)
    assert rows(found) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2)]


def test_boxes_that_are_left_move_to_where_those_around_them_vote():
    found, heat = decided(nms=0.4, min_score=1e-3, vote=True)
    plain, other = decided(nms=0.4, min_score=1e-3)
    assert found.labels.tolist() == plain.labels.tolist() and found.scores.tolist() == plain.scores.tolist()
    # Of the first class 0.25 and 0.16 of the first two boxes, of the second 0.01 and 0.04; the others are alone.
    shift = 8 * 0.16 / 0.41
    moved = plain.boxes.copy()
    moved[[0, 2]] = [[shift, 0, 40 + shift, 40], [6.4, 0, 46.4, 40]]
    np.testing.assert_allclose(found.boxes, moved, rtol=1e-5)
    np.testing.assert_array_equal(heat.maps, other.maps)


@pytest.mark.parametrize("head", [FastRCNNConfig(), FCOSConfig()])
def test_scores_of_pseudo_boxes_count_as_far_as_head_and_heatmap_agree(head: FastRCNNConfig | FCOSConfig):
    scores, maps = SCORES.clone(), torch.zeros(3, 4, 6)
    scores[2, 2] = 0.2
    # The left half of the image, and all of it, also for the last class, which is not likely enough to be asked for.
    maps[0, :, :3], maps[1:] = 1, 1

    def say(features: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
        return ViewOutput(torch.tensor([0.9, 0.01, 0.009]), scores, maps=maps, boxes=torch.from_numpy(BOXES))

    inference = InferenceConfig(views=ViewConfig(scales=(96,)), nms=0.4, min_score=1e-2)
    given = [torch.zeros(3, 4, 6)], BOXES, (96, 64)
    found, heat = detector(say, head=head, inference=inference).postprocess(*given)
    # What the best two boxes vote for has 40 x 40 pixels within 48 x 64, and within 96 x 64.
    first, second = (1 + 1600 / (48 * 64)) / 2, (1 + 1600 / (96 * 64)) / 2
    assert rows(found) == [
        (0, 0, round(0.5 * first, 4)),
        (2, 0, round(0.3 * first, 4)),
        (1, 1, round(0.2 * second, 4)),
        (2, 2, 0.1),
        (2, 1, round(0.15 * second, 4)),
        (3, 0, round(0.05 * first, 4)),
    ]
    # True boxes need no second opinion.
    upper_bound = detector(say, head=head, inference=inference, supervision="boxes")
    plain, other = upper_bound.postprocess(*given)
    assert rows(plain) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 2, 0.2), (2, 1, 0.15), (3, 0, 0.05)]
    np.testing.assert_allclose(heat.maps, other.maps, rtol=1e-5)


def test_of_a_large_image_boxes_of_heatmaps_are_as_fine_as_the_view_needs():
    torch.manual_seed(0)
    maps = torch.rand(3, 4, 6)
    large, _ = localizer(96).postprocess([maps], None, (6000, 4000))
    wanted, _ = localizer(96).postprocess([maps], None, (192, 128))
    np.testing.assert_allclose(large.boxes, wanted.boxes * (6000 / 192), rtol=1e-6)
    at_most, _ = localizer(96).postprocess([maps], None, (186, 124))
    exact = [largest_component_box(maps[label].numpy(), (186, 124), 0.5) for label in at_most.labels]
    np.testing.assert_array_equal(at_most.boxes, exact)


def test_the_heatmap_of_boxes_has_cells_of_eight_pixels_or_128_a_side():
    for size, cells in (((96, 64), (8, 12)), ((1024, 512), (64, 128)), ((6000, 4000), (85, 128))):
        say = lambda *_: ViewOutput(SCORES.sum(dim=0), SCORES)  # noqa: E731
        toy = detector(say, head=MILConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
        assert toy.postprocess([torch.zeros(3, 4, 6)], BOXES, size)[1].maps.shape == (3, *cells)


def test_the_heatmap_is_that_of_all_proposals():
    _, heat = decided()
    np.testing.assert_array_equal(heat.maps, proposal_heatmap(BOXES, SCORES.numpy(), (96, 64)))


def test_boxes_of_cells_are_decided_on_like_those_of_proposals():
    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor | None) -> ViewOutput:
        assert boxes is None and size == (128, 192)
        return ViewOutput(SCORES.sum(dim=0), SCORES, boxes=torch.from_numpy(BOXES) * 2)

    inference = {"views": {"scales": [192]}, "nms": 0.4, "min_score": 1e-3}
    cells = detector(say, head=FCOSConfig(), inference=inference, supervision="boxes")
    # Whatever proposals there may be, none are made.
    assert cells.proposals is None
    found, heat = cells.postprocess([torch.zeros(3, 8, 12)], None, (96, 64))
    assert rows(found) == [(0, 0, 0.5), (2, 0, 0.3), (1, 1, 0.2), (2, 1, 0.15), (3, 0, 0.05), (3, 1, 0.002)]
    np.testing.assert_array_equal(heat.maps, proposal_heatmap(BOXES, SCORES.numpy(), (96, 64)))
    wanted = proposal_detector().boxes_for_labels([torch.zeros(3, 4, 6)], BOXES, (96, 64), [1, 0])
    np.testing.assert_array_equal(cells.boxes_for_labels([torch.zeros(3, 8, 12)], None, (96, 64), [1, 0]), wanted)


def test_proposals_are_moved_into_every_view_and_scores_averaged():
    seen: list[tuple[tuple[int, int], list[list[float]]]] = []

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        seen.append((size, boxes.tolist()))
        scores = torch.full((1, 3), float(len(seen)))
        return ViewOutput(scores[0] / 10, scores)

    views = ViewConfig(scales=(48, 192), flips=True)
    toy = detector(say, head=MILConfig(), inference=InferenceConfig(views=views))
    found, _ = toy.postprocess([torch.zeros(3, 2, 2)] * 4, np.array([[10, 4, 40, 60]], np.float32), (96, 64))
    assert seen == [
        ((32, 48), [[5, 2, 20, 30]]),
        ((128, 192), [[20, 8, 80, 120]]),
        ((32, 48), [[28, 2, 43, 30]]),
        ((128, 192), [[112, 8, 172, 120]]),
    ]
    assert found.scores.tolist() == [2.5] * 3
    np.testing.assert_allclose(found.image_scores, [0.25] * 3)
    # The boxes are those of the image.
    assert found.boxes.tolist() == [[10, 4, 40, 60]] * 3


def test_boxes_within_a_better_one_of_their_class_score_less():
    whole, head, beside, rest = [0.0, 0, 60, 60], [10.0, 10, 20, 20], [57.0, 0, 72, 10], [70.0, 0, 90, 60]
    boxes = np.array([whole, head, beside, rest], np.float32)
    scores = torch.tensor([[0.5, 0, 0], [0.4, 0.2, 0], [0.38, 0, 0], [0.3, 0.1, 0]])

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        return ViewOutput(scores.amax(dim=0), scores, maps=torch.zeros(3, 4, 6))

    settings = {"views": ViewConfig(scales=(96,)), "min_score": 0.05}
    found = {}
    for parts in (False, True):
        judge = detector(say, head=MILConfig(), inference=InferenceConfig(parts=parts, **settings))
        found[parts], _ = judge.postprocess([torch.zeros(3, 4, 6)], boxes, (96, 64))
    assert found[False].boxes.tolist() == [whole, head, beside, rest, head, rest]
    # A fifth of what stands beside lies in the whole; nobody knows a better box of the other class around the head.
    assert found[True].boxes.tolist() == [whole, beside, rest, head, head, rest]
    np.testing.assert_allclose(found[True].scores, [0.5, 0.38, 0.3, 0.28, 0.2, 0.1], rtol=1e-6)
    assert found[True].labels.tolist() == [0, 0, 0, 0, 1, 1]


def test_of_proposals_those_that_score_best_vote_for_the_box_of_a_known_class():
    judge = proposal_detector(96, min_score=0.9)
    found = judge.boxes_for_labels([torch.zeros(3, 4, 6)], BOXES, (96, 64), [0, 1])
    # The first two overlap by 2/3: of the first class 0.25 and 0.16 of them, of the second 0.01 and 0.04.
    np.testing.assert_allclose(found, [[8 * 0.16 / 0.41, 0, 40 + 8 * 0.16 / 0.41, 40], [6.4, 0, 46.4, 40]], rtol=1e-5)
    assert judge.boxes_for_labels([torch.zeros(3, 4, 6)], BOXES, (96, 64), []).shape == (0, 4)


def test_to_find_known_classes_proposals_near_the_likeliest_of_every_fourth_are_enough():
    asked: list[list[list[float]]] = []
    # Two objects; every proposal is as likely as it overlaps them.
    objects = torch.tensor([[10.0, 10, 40, 40], [60, 20, 90, 60]])

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        asked.append(boxes.tolist())
        scores = torch.cat([box_iou(boxes, objects), torch.zeros(len(boxes), 1)], dim=1)
        return ViewOutput(scores.amax(dim=0), scores)

    torch.manual_seed(0)
    corners = torch.rand(200, 2) * 40
    proposals = torch.cat([corners, corners + 20 + torch.rand(200, 2) * 20], dim=1).numpy()
    judge = detector(say, head=FastRCNNConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
    found = judge.boxes_for_labels([torch.zeros(3, 4, 6)], proposals, (96, 64), [1, 0])
    first, second = asked
    assert first == proposals[::4].tolist() and 0 < len(second) < 100
    scores = box_iou(torch.from_numpy(proposals), objects)
    wanted = vote(torch.from_numpy(proposals), scores, torch.tensor([1, 0]))
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert judge.boxes_for_labels([torch.zeros(3, 4, 6)], proposals, (96, 64), []).shape == (0, 4)


def test_a_likeliest_proposal_is_found_however_far_it_moves():
    asked: list[list[list[float]]] = []
    proposals = torch.tensor([[8.0 * left, 0, 8 * left + 8, 8] for left in range(12)])

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        asked.append(boxes.tolist())
        # The fifth is the likeliest of the first class, and moves to where the ninth is, the ninth of the second, far
        # from all that there is.
        rows = (boxes[:, 0] / 8).long()
        scores = torch.stack([rows == 4, rows == 8, rows < 0], dim=1) * 0.5 + 0.1
        moves = torch.where((rows == 4)[:, None], torch.tensor([32.0, 0, 32, 0]), 0)
        moves = torch.where((rows == 8)[:, None], torch.tensor([0.0, 40, 0, 40]), moves)
        return ViewOutput(scores.amax(dim=0), scores, boxes=boxes + moves)

    judge = detector(say, head=FastRCNNConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
    found = judge.boxes_for_labels([torch.zeros(3, 4, 6)], proposals.numpy(), (96, 64), [0, 1])
    assert [[int(box[0] / 8) for box in boxes] for boxes in asked] == [[0, 4, 8], [4, 8]]
    np.testing.assert_allclose(found, [[64, 0, 72, 8], [64, 40, 72, 48]])


def test_methods_whose_scores_peak_are_asked_about_all_proposals():
    asked: list[int] = []

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        asked.append(len(boxes))
        return ViewOutput(SCORES.sum(dim=0), SCORES)

    judge = detector(say, head=MILConfig(), inference=InferenceConfig(views=ViewConfig(scales=(96,))))
    judge.boxes_for_labels([torch.zeros(3, 4, 6)], BOXES, (96, 64), [0, 1])
    assert asked == [4]


def test_moved_proposals_are_turned_back_averaged_and_voted_for():
    """One view moves everything by 4 of its pixels to the right, the mirrored one does not."""

    def say(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
        shift = torch.tensor([4.0, 0, 4, 0]) * maps[0, 0, 0]
        return ViewOutput(SCORES.sum(dim=0), SCORES, boxes=boxes + shift)

    views = ViewConfig(scales=(192,), flips=True)
    judge = detector(say, head=MILConfig(), inference=InferenceConfig(views=views))
    maps = [torch.ones(3, 8, 12), torch.zeros(3, 8, 12)]
    # 4 pixels of a view twice as large are 2 of the image; their mean with none is 1.
    found = judge.boxes_for_labels(maps, BOXES, (96, 64), [1])
    np.testing.assert_allclose(found, [[7.4, 0, 47.4, 40]], rtol=1e-5)
    mirrored = judge.boxes_for_labels(maps[::-1], BOXES, (96, 64), [1])
    np.testing.assert_allclose(mirrored, [[5.4, 0, 45.4, 40]], rtol=1e-5)


# Images.


def counting(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
    """Scores of proposals that depend on all that a view is."""
    scores = torch.linspace(0.1, 1, len(boxes) * 3).reshape(-1, 3) * maps.abs().mean()
    return ViewOutput(scores.mean(dim=0), scores)


@pytest.fixture
def whole() -> Detector:
    proposals = ProposalConfig(generator="grid", min_area=0.2)
    return detector(counting, head=MILConfig(), proposals=proposals, views=ViewConfig(scales=(64, 96)))


def test_a_image_is_decided_from_its_views_and_proposals(demo: Path, whole: Detector):
    path = load_dataset(demo, "val").samples[0].path
    image = read_image(path)
    size = (image.shape[1], image.shape[0])
    maps = [whole.features.extract(image, view) for view in whole.views]
    wanted, heat = whole.postprocess(maps, propose(image, whole.config.proposals), size)
    assert len(wanted) > 0
    for given in (path, str(path), image, Image.fromarray(image)):
        found, heatmaps = whole.look(given)
        np.testing.assert_array_equal(found.boxes, wanted.boxes)
        np.testing.assert_array_equal(found.scores, wanted.scores)
        np.testing.assert_array_equal(heatmaps.maps, heat.maps)
        assert found.size == size
    np.testing.assert_array_equal(whole.predict(path).boxes, wanted.boxes)
    np.testing.assert_array_equal(whole.heatmap(path).maps, heat.maps)


@pytest.mark.parametrize(
    "array",
    [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 4), np.uint8), np.zeros((20, 30, 3), np.float32)],
    ids=["grey", "four", "float"],
)
def test_an_array_that_is_no_image_is_refused(whole: Detector, array: NDArray[Any]):
    with pytest.raises(ImageError, match=r"\(h, w, 3\) uint8"):
        whole.predict(array)


def test_a_file_that_is_no_image_is_named(whole: Detector, tmp_path: Path):
    (tmp_path / "no.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"no\.jpg"):
        whole.predict(tmp_path / "no.jpg")


def test_a_walk_over_files_goes_on_past_broken_ones(demo: Path, whole: Detector, tmp_path: Path):
    good = [sample.path for sample in load_dataset(demo, "val").samples[:2]]
    (tmp_path / "no.jpg").write_bytes(b"no image")
    skipped: dict[Path, str] = {}
    found = list(whole.look_all([good[0], tmp_path / "no.jpg", good[1], tmp_path / "gone.jpg"], skipped))
    assert [path for path, *_ in found] == good
    assert list(skipped) == [tmp_path / "no.jpg", tmp_path / "gone.jpg"]
    assert all(str(path) in reason for path, reason in skipped.items())
    for path, pixels, *_ in found:
        np.testing.assert_array_equal(pixels, read_image(path))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_image_gives_the_same_bits_whatever_the_number_of_images_and_cores(
    demo: Path, threads: Callable[[int], None]
):
    # The network of the default method: there the number of torch's threads changes the last bits of a map.
    config = resolve(preset("seeded"), options=["views.scales=[320]"])
    default = Detector(build_network(config, 6), config, list("abcdef"), torch.device("cpu"))
    files = [sample.path for sample in load_dataset(demo, "val").samples[:3]]
    threads(1)
    wanted = [default.look(path) for path in files]
    for number in (2, 3):
        threads(number)
        together = [look[2:] for look in default.look_all(files, {})]
        alone = [look[2:] for path in files for look in default.look_all([path], {})]
        assert torch.get_num_threads() == number
        for looks in (together, alone):
            for one, other in zip(looks, wanted, strict=True):
                assert_same_look(one, other)


def assert_same_look(one: tuple[Detections, Heatmaps], other: tuple[Detections, Heatmaps]) -> None:
    (found, heat), (wanted, maps) = one, other
    assert found.boxes.tobytes() == wanted.boxes.tobytes() and len(found) > 0
    assert found.scores.tobytes() == wanted.scores.tobytes()
    assert found.image_scores.tobytes() == wanted.image_scores.tobytes()
    assert heat.maps.tobytes() == maps.maps.tobytes()


def test_a_walk_that_is_left_early_gives_the_threads_back(demo: Path, whole: Detector, threads: Callable[[int], None]):
    threads(3)
    walk = whole.look_all([sample.path for sample in load_dataset(demo, "val").samples], {})
    next(walk)
    assert torch.get_num_threads() == 1
    walk.close()
    assert torch.get_num_threads() == 3


# What is shown.


def detections(scores: list[float], labels: list[int], image_scores: list[float]) -> Detections:
    boxes = np.arange(4 * len(scores), dtype=np.float32).reshape(-1, 4)
    return Detections(
        boxes,
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        CLASSES,
        (96, 64),
        np.array(image_scores, np.float32),
    )


def test_confident_boxes_are_half_as_good_as_the_best_of_a_likely_class():
    everything = detections([0.4, 0.3, 0.2, 0.19, 0.1, 0.05, 0.04], [0, 2, 0, 0, 1, 1, 1], [0.9, 0.5, 0.49])
    shown = confident(everything)
    # Class 0 from 0.2 on, class 1 from 0.05 on; class 2 is less likely than not.
    assert shown.scores.tolist() == np.array([0.4, 0.2, 0.1, 0.05], np.float32).tolist()
    assert shown.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(shown.boxes, everything.boxes[[0, 2, 4, 5]])
    assert shown.image_scores is everything.image_scores


def test_an_unlikely_image_has_no_confident_box():
    assert len(confident(detections([0.9, 0.8], [0, 1], [0.1, 0.2, 0.3]))) == 0
    assert len(confident(detections([], [], [0.9, 0.9, 0.9]))) == 0


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
