import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from box_supervision import (
    image_scores,
    item,
    loss_tensors,
    losses,
    mirrored,
    outputs,
    slow_pca,
    small_backbone,
    with_ignored,
    with_large_weights,
)
from torch import Tensor, nn

from boxless.features import Item, Targets
from boxless.methods import FCOS, FCOSConfig
from boxless.methods.fcos import FAR_WEIGHT, match_cells

SMALL: dict[str, Any] = {"pca_dims": (4, 3), "channels": 5}


def make(classes: int = 3) -> FCOS:
    """A head with weights far from zero, whose boxes are a few cells wide."""
    model = with_large_weights(FCOS(small_backbone(), FCOSConfig(**SMALL), classes))
    with torch.no_grad():
        model.scale.fill_(0.7)
        # Sides that overflow, or are all the same, would hide errors.
        model.ltrb.weight.mul_(0.05)
        model.classify.weight.mul_(0.2)
        model.quality.weight.mul_(0.2)
    return model


def targets_of(*boxes: tuple[list[float], int, bool]) -> Targets:
    """From box, label and whether it is ignored of each."""
    corners, labels, ignore = zip(*boxes, strict=True) if boxes else ([], [], [])
    return Targets(
        torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ignore, dtype=torch.bool),
    )


def centres(columns: int, rows: int) -> Tensor:
    return torch.tensor([[16 * x + 8.0, 16 * y + 8.0] for y in range(rows) for x in range(columns)])


# Matching of cells.


def test_cells_in_the_central_part_are_matched_and_others_of_the_box_have_no_weight():
    # The central part reaches from 14 to 34, the context region to 60.
    targets = targets_of(([4, 4, 44, 44], 1, False))
    labels, weights, nearest = match_cells(centres(8, 4), targets, torch.tensor([64, 128]), 3, 0.3)
    assert labels.reshape(4, 8).tolist() == [[3] * 8, [3, 1, 3, 3, 3, 3, 3, 3], [3] * 8, [3] * 8]
    expected = [
        [0, 0, 0, 1, 0.3, 0.3, 0.3, 0.3],
        [0, 1, 0, 1, 0.3, 0.3, 0.3, 0.3],
        [0, 0, 0, 1, 0.3, 0.3, 0.3, 0.3],
        [1, 1, 1, 1, 0.3, 0.3, 0.3, 0.3],
    ]
    np.testing.assert_allclose(weights.reshape(4, 8), expected)
    assert (nearest == 0).all()


def test_a_box_between_cells_is_matched_by_the_nearest():
    targets = targets_of(([26, 10, 30, 15], 0, False))
    labels, weights, _ = match_cells(centres(4, 2), targets, torch.tensor([32, 64]), 2, 0.3)
    # The centre (28, 12.5) is 4 and 4.5 pixels from that of the cell, and no cell's centre is within the box.
    assert labels.tolist() == [2, 0, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(weights.tolist(), [0.3, 1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    # Of a box outside the map, the nearest in its corner.
    targets = targets_of(([70, 40, 90, 60], 0, False))
    assert match_cells(centres(4, 2), targets, torch.tensor([32, 64]), 2, 0.3)[0].tolist() == [2] * 7 + [0]


def test_the_smaller_of_two_boxes_is_matched():
    large, small = ([0.0, 0, 128, 64], 0, False), ([30.0, 14, 70, 50], 1, False)
    for boxes in ((large, small), (small, large)):
        labels, _, nearest = match_cells(centres(8, 4), targets_of(*boxes), torch.tensor([64, 128]), 2, 1)
        # Central parts: 32 to 96 x 16 to 48, and 40 to 60 x 23 to 41 without its edges.
        assert labels.reshape(4, 8)[1].tolist() == [2, 2, 0, 1, 0, 0, 2, 2]
        assert nearest.reshape(4, 8)[1, 3] == boxes.index(small)
        assert nearest.reshape(4, 8)[1, 4] == boxes.index(large)


def test_cells_of_ignored_boxes_have_no_weight_unless_another_box_matches_them():
    certain, ignored = ([0.0, 0, 64, 64], 1, False), ([32.0, 0, 96, 64], 0, True)
    labels, weights, _ = match_cells(centres(10, 4), targets_of(ignored, certain), torch.tensor([64, 160]), 2, 0.3)
    assert labels.reshape(4, 10)[1].tolist() == [2, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    # An ignored box has no context region: where it ends is not known.
    np.testing.assert_allclose(weights.reshape(4, 10)[1], [0, 1, 1, 0, 0, 0, 0.3, 0.3, 0.3, 0.3])
    assert (labels[weights == 0] == 2).all()


def test_without_boxes_all_cells_are_background_of_full_weight():
    labels, weights, nearest = match_cells(centres(3, 2), targets_of(), torch.tensor([32, 48]), 2, 0.3)
    assert labels.tolist() == [2] * 6 and weights.tolist() == [1] * 6 and nearest.tolist() == [0] * 6


Match = tuple[int | None, float, list[float] | None]
"""Class of a cell (None is background), weight, and box."""


def slow_match(targets: Targets, rows: int, columns: int, size: tuple[int, int], far: float) -> list[Match]:
    """Match every cell, from the description of FCOS with centre sampling."""
    boxes = [[float(side) for side in box] for box in targets.boxes]

    def inside(x: float, y: float, box: list[float]) -> bool:
        return box[0] < x < box[2] and box[1] < y < box[3]

    def scaled(box: list[float], ratio: float) -> list[float]:
        x, y, width, height = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
        return [x - width * ratio / 2, y - height * ratio / 2, x + width * ratio / 2, y + height * ratio / 2]

    places = [(16 * x + 8.0, 16 * y + 8.0) for y in range(rows) for x in range(columns)]
    closest = []
    for box in boxes:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        closest.append(min(places, key=lambda place: math.hypot(place[0] - x, place[1] - y)))
    found: list[Match] = []
    for x, y in places:
        best, area = None, math.inf
        for number, box in enumerate(boxes):
            if targets.ignore[number] or not (inside(x, y, scaled(box, 0.5)) or closest[number] == (x, y)):
                continue
            own = (box[2] - box[0]) * (box[3] - box[1])
            if own < area:
                best, area = number, own
        if best is not None:
            found.append((int(targets.labels[best]), 1.0, boxes[best]))
        elif any(inside(x, y, box) for box in boxes):
            found.append((None, 0.0, None))
        else:
            # A context region ends with the view.
            used = [box for box, ignored in zip(boxes, targets.ignore, strict=True) if not ignored]
            near = x < size[1] and y < size[0] and any(inside(x, y, scaled(box, 1.8)) for box in used)
            found.append((None, 1.0 if near or not boxes else far, None))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_matches_equal_a_slow_reference(seed: int):
    random = np.random.default_rng(seed)
    boxes = []
    for _ in range(seed):
        x, y, width, height = random.uniform([0, 0, 5, 5], [130, 80, 90, 70])
        box = [x, y, min(x + width, 150), min(y + height, 100)]
        boxes.append((box, int(random.integers(3)), bool(random.random() < 0.4)))
    targets = targets_of(*boxes)
    labels, weights, nearest = match_cells(centres(10, 7), targets, torch.tensor([100, 150]), 3, 0.4)
    expected = slow_match(targets, 7, 10, (100, 150), 0.4)
    assert labels.tolist() == [3 if label is None else label for label, _, _ in expected]
    np.testing.assert_allclose(weights, [weight for _, weight, _ in expected])
    for row, (label, _, box) in zip(nearest.tolist(), expected, strict=True):
        assert label is None or targets.boxes[row].tolist() == box


# Prediction.


def slow_convolution(plane: np.ndarray, layer: nn.Module) -> np.ndarray:
    """A convolution that keeps the size, cell by cell."""
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    weights, edge = layer.weight.detach().double().numpy(), layer.kernel_size[0] // 2
    padded = np.pad(plane, ((0, 0), (edge, edge), (edge, edge)))
    found = np.zeros((len(weights), *plane.shape[1:]))
    for y in range(plane.shape[1]):
        for x in range(plane.shape[2]):
            patch = padded[:, y : y + 2 * edge + 1, x : x + 2 * edge + 1]
            found[:, y, x] = (weights * patch).sum(axis=(1, 2, 3)) + layer.bias.detach().numpy()
    return found


def slow_cells(model: FCOS, view: Tensor) -> list[tuple[np.ndarray, float, list[float]]]:
    """For every cell of an unmirrored view its class logits, the logit of its quality, and its box."""

    def through(plane: np.ndarray, layers: nn.Sequential) -> np.ndarray:
        for layer in layers:
            plane = np.maximum(plane, 0) if isinstance(layer, nn.ReLU) else slow_convolution(plane, layer)
        return plane

    features = through(slow_pca(view, model).astype(np.float64), model.reduce)
    class_features, box_features = through(features, model.class_tower), through(features, model.box_tower)
    logits, quality, ltrb = (
        slow_convolution(plane, last)
        for plane, last in (
            (class_features, model.classify),
            (box_features, model.quality),
            (box_features, model.ltrb),
        )
    )
    found = []
    for y in range(view.shape[1]):
        for x in range(view.shape[2]):
            left, top, right, bottom = (16 * math.exp(0.7 * side) for side in ltrb[:, y, x])
            cx, cy = 16 * x + 8, 16 * y + 8
            found.append((logits[:, y, x], quality[0, y, x], [cx - left, cy - top, cx + right, cy + bottom]))
    return found


def sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def test_scores_are_class_times_quality_times_a_root_of_image_level_scores():
    model, row = make(), item()
    model.cam.threshold.fill_(0.1)
    (found,) = outputs(model, row)
    assert found.proposal_scores is not None and found.boxes is not None
    in_image = image_scores(model, row)
    torch.testing.assert_close(found.image_scores, in_image)
    limits = np.array([144, 96, 144, 96])
    cells = slow_cells(model, row.map)
    for cell, (logits, quality, box) in enumerate(cells):
        expected = sigmoid(logits) * sigmoid(quality) * in_image.numpy() ** 0.25
        np.testing.assert_allclose(found.proposal_scores[cell], expected, rtol=2e-3)
        np.testing.assert_allclose(found.boxes[cell], np.clip(box, 0, limits), atol=5e-2)
    assert len(cells) == len(found.boxes) == 54


def test_outputs_do_not_depend_on_the_batch_and_no_proposals_are_needed():
    model, row = make(), item()
    (alone,) = outputs(model, replace(row, proposals=None))
    in_batch = outputs(model, item(208, 160, seed=4), row)[1]
    torch.testing.assert_close(in_batch.proposal_scores, alone.proposal_scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(in_batch.boxes, alone.boxes, atol=1e-2, rtol=1e-4)


def test_cells_whose_box_lies_beyond_the_view_score_zero():
    model, row = make(), item()
    with torch.no_grad():
        model.ltrb.weight.zero_()
        model.ltrb.bias.fill_(-9.0)
    # The last column's centres are at 136, and the view ends at 130.
    (found,) = outputs(model, replace(row, size=(96, 130), proposals=None))
    assert found.proposal_scores is not None and found.boxes is not None
    beyond = torch.arange(54) % 9 == 8
    assert (found.proposal_scores[beyond] == 0).all() and (found.proposal_scores[~beyond] > 0).all()
    assert found.boxes[:, [0, 2]].max() <= 130


def test_before_training_classes_are_unlikely_and_boxes_two_cells_wide():
    model = FCOS(small_backbone(), FCOSConfig(**SMALL), 3)
    (found,) = outputs(model, replace(item(), proposals=None))
    assert found.proposal_scores is not None and found.boxes is not None
    np.testing.assert_allclose(found.proposal_scores / found.image_scores**0.25, 0.01 * 0.5, rtol=0.2)
    np.testing.assert_allclose(found.boxes.reshape(6, 9, 4)[2, 3], [40, 24, 72, 56], atol=3)


def test_large_distances_do_not_overflow():
    model = make()
    with torch.no_grad():
        model.ltrb.bias.fill_(1e4)
    (found,) = outputs(model, replace(item(), proposals=None))
    assert found.boxes is not None
    assert found.boxes.tolist() == [[0, 0, 144, 96]] * 54
    assert all(math.isfinite(value) for value in losses(model, [item()]).values())


# Training.


def slow_losses(model: FCOS, items: list[Item]) -> dict[str, float]:
    """Cell by cell, from the papers' equations."""
    classes = boxes = quality = 0.0
    number = 0
    for one in items:
        assert one.targets is not None and one.image_labels is not None
        rows, columns = one.map.shape[1:]
        matches = slow_match(one.targets, rows, columns, one.size, FAR_WEIGHT)
        for (logits, quality_logit, box), (label, weight, goal) in zip(
            slow_cells(model, one.map), matches, strict=True
        ):
            for row, logit in enumerate(logits):
                likely = sigmoid(logit) if row == label else 1 - sigmoid(logit)
                alpha = 0.25 if row == label else 0.75
                # No cell is of a class that the image does not have, whatever boxes say, and any may be of one that the
                # image may have. Of a class whose objects all have boxes, what is far from boxes is background.
                counted = 1 if one.image_labels[row] == 0 else weight
                if one.image_labels[row].isnan():
                    counted = 0
                elif one.targets.complete is not None and one.targets.complete[row] and weight == FAR_WEIGHT:
                    counted = 1
                classes += -alpha * (1 - likely) ** 2 * math.log(likely) * counted
            if goal is None:
                continue
            number += 1
            width, height = (max(0, min(box[axis + 2], goal[axis + 2]) - max(box[axis], goal[axis])) for axis in (0, 1))
            area, goal_area = ((part[2] - part[0]) * (part[3] - part[1]) for part in (box, goal))
            union = area + goal_area - width * height
            hull = math.prod(max(box[axis + 2], goal[axis + 2]) - min(box[axis], goal[axis]) for axis in (0, 1))
            overlap = width * height / union
            boxes += 1 - overlap + (hull - union) / hull
            quality -= overlap * math.log(sigmoid(quality_logit)) + (1 - overlap) * math.log(1 - sigmoid(quality_logit))
    sums = {"classes": classes, "boxes": boxes, "quality": quality}
    return {name: value / max(number, 1) for name, value in sums.items()}


@pytest.mark.parametrize("ignore", [(False, False), (True, False)])
def test_losses_equal_a_slow_reference_and_each_image_is_mirrored_half_of_the_time(ignore: tuple[bool, bool]):
    model, one, other = make(), with_ignored(item(seed=2), ignore), with_ignored(item(176, 112, seed=3), ignore)
    assert other.targets is not None
    complete = other.targets._replace(complete=torch.tensor([True, False, False]))
    other = replace(other, image_labels=torch.tensor([1, float("nan"), 1]), targets=complete)
    candidates = [
        slow_losses(model, [first, second]) for first in (one, mirrored(one)) for second in (other, mirrored(other))
    ]
    torch.manual_seed(0)
    drawn = set()
    for _ in range(30):
        found = losses(model, [one, other])
        (match,) = [row for row, expected in enumerate(candidates) if found == pytest.approx(expected, rel=1e-3)]
        drawn.add(match)
    assert drawn == {0, 1, 2, 3}


def test_an_image_without_objects_is_trained_as_background_alone():
    model, row = make(), replace(item(), targets=targets_of())
    found = losses(model, [row])
    assert found["boxes"] == found["quality"] == 0
    candidates = [slow_losses(model, [one])["classes"] for one in (row, mirrored(row))]
    assert min(abs(found["classes"] - candidate) for candidate in candidates) < 1e-3 * found["classes"]
    model.zero_grad()
    torch.stack(list(loss_tensors(model, [row]).values())).sum().backward()
    assert model.classify.bias.grad is not None and model.classify.bias.grad.abs().min() > 0


def test_no_gradient_of_the_quality_reaches_the_boxes():
    model, row = make(), item(seed=2)
    loss_tensors(model, [row])["quality"].backward()
    assert model.quality.weight.grad is not None and model.quality.weight.grad.any()
    assert model.ltrb.weight.grad is None and model.scale.grad is None
