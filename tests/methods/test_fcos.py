import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from box_supervision import described, evidence, item, network, turned, warm
from torch import Tensor, nn

from boxless.config import FCOSConfig
from boxless.features import Item, Targets, collate
from boxless.methods import FCOS
from boxless.methods.fcos import match_cells

SMALL: dict[str, Any] = {"components": (4, 3), "channels": 5}


def make(classes: int = 3, **changes: Any) -> FCOS:
    """A detector with weights far from zero, whose boxes are a few cells wide."""
    model = warm(FCOS(network(), FCOSConfig(**(SMALL | changes)), classes))
    with torch.no_grad():
        model.scale.fill_(0.7)
        # Sides that overflow, or are all the same, would hide what is wrong with them.
        model.reach.weight.mul_(0.05)
        model.classify.weight.mul_(0.2)
        model.judge.weight.mul_(0.2)
    return model


def truth_of(*boxes: tuple[list[float], int, bool]) -> Targets:
    corners, labels, difficult = zip(*boxes, strict=True) if boxes else ([], [], [])
    return Targets(
        torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
    )


def centres(columns: int, rows: int) -> Tensor:
    return torch.tensor([[16 * x + 8.0, 16 * y + 8.0] for y in range(rows) for x in range(columns)])


# What every cell is to be.


def test_cells_in_the_middle_find_the_box_and_those_around_it_have_no_part():
    # The middle of the box reaches from 14 to 34, its frame to 60.
    targets = truth_of(([4, 4, 44, 44], 1, False))
    labels, weights, nearest = match_cells(centres(8, 4), targets, torch.tensor([64, 128]), 3, 0.3)
    assert labels.reshape(4, 8).tolist() == [[3] * 8, [3, 1, 3, 3, 3, 3, 3, 3], [3] * 8, [3] * 8]
    wanted = [
        [0, 0, 0, 1, 0.3, 0.3, 0.3, 0.3],
        [0, 1, 0, 1, 0.3, 0.3, 0.3, 0.3],
        [0, 0, 0, 1, 0.3, 0.3, 0.3, 0.3],
        [1, 1, 1, 1, 0.3, 0.3, 0.3, 0.3],
    ]
    np.testing.assert_allclose(weights.reshape(4, 8), wanted)
    assert (nearest == 0).all()


def test_a_box_between_cells_is_found_by_the_nearest():
    targets = truth_of(([26, 10, 30, 15], 0, False))
    labels, weights, _ = match_cells(centres(4, 2), targets, torch.tensor([32, 64]), 2, 0.3)
    # The centre (28, 12.5) is 4 and 4.5 pixels from that of the cell, and no cell's centre is within the box.
    assert labels.tolist() == [2, 0, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(weights.tolist(), [0.3, 1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    # Of a box outside the map, the nearest in its corner.
    targets = truth_of(([70, 40, 90, 60], 0, False))
    assert match_cells(centres(4, 2), targets, torch.tensor([32, 64]), 2, 0.3)[0].tolist() == [2] * 7 + [0]


def test_the_smaller_of_two_boxes_is_found():
    large, small = ([0.0, 0, 128, 64], 0, False), ([30.0, 14, 70, 50], 1, False)
    for boxes in ((large, small), (small, large)):
        labels, _, nearest = match_cells(centres(8, 4), truth_of(*boxes), torch.tensor([64, 128]), 2, 1)
        # Middles: 32 to 96 x 16 to 48, and 40 to 60 x 23 to 41 without its edges.
        assert labels.reshape(4, 8)[1].tolist() == [2, 2, 0, 1, 0, 0, 2, 2]
        assert nearest.reshape(4, 8)[1, 3] == boxes.index(small)
        assert nearest.reshape(4, 8)[1, 4] == boxes.index(large)


def test_nothing_is_learned_within_difficult_boxes_but_what_another_is_sure_of():
    sure, difficult = ([0.0, 0, 64, 64], 1, False), ([32.0, 0, 96, 64], 0, True)
    labels, weights, _ = match_cells(centres(10, 4), truth_of(difficult, sure), torch.tensor([64, 160]), 2, 0.3)
    assert labels.reshape(4, 10)[1].tolist() == [2, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    # A cell beside a difficult box is nobody's surroundings: how far that one reaches is not known.
    np.testing.assert_allclose(weights.reshape(4, 10)[1], [0, 1, 1, 0, 0, 0, 0.3, 0.3, 0.3, 0.3])
    assert (labels[weights == 0] == 2).all()


def test_without_boxes_all_is_background_that_counts():
    labels, weights, nearest = match_cells(centres(3, 2), truth_of(), torch.tensor([32, 48]), 2, 0.3)
    assert labels.tolist() == [2] * 6 and weights.tolist() == [1] * 6 and nearest.tolist() == [0] * 6


def slow_targets(targets: Targets, rows: int, columns: int, size: tuple[int, int], far: float) -> list[tuple]:
    """For every cell its class (None is background), weight and box, from the description."""
    boxes = [[float(side) for side in box] for box in targets.boxes]

    def inside(x: float, y: float, box: list[float]) -> bool:
        return box[0] < x < box[2] and box[1] < y < box[3]

    def grown(box: list[float], ratio: float) -> list[float]:
        x, y, wide, high = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
        return [x - wide * ratio / 2, y - high * ratio / 2, x + wide * ratio / 2, y + high * ratio / 2]

    places = [(16 * x + 8.0, 16 * y + 8.0) for y in range(rows) for x in range(columns)]
    finders = []
    for box in boxes:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        finders.append(min(places, key=lambda place: math.hypot(place[0] - x, place[1] - y)))
    found = []
    for x, y in places:
        best, area = None, math.inf
        for number, box in enumerate(boxes):
            if targets.ignore[number] or not (inside(x, y, grown(box, 0.5)) or finders[number] == (x, y)):
                continue
            own = (box[2] - box[0]) * (box[3] - box[1])
            if own < area:
                best, area = number, own
        if best is not None:
            found.append((int(targets.labels[best]), 1.0, boxes[best]))
        elif any(inside(x, y, box) for box in boxes):
            found.append((None, 0.0, None))
        else:
            # A frame ends with the view, as do the cells that count as surroundings.
            sure = [box for box, hard in zip(boxes, targets.ignore, strict=True) if not hard]
            near = x < size[1] and y < size[0] and any(inside(x, y, grown(box, 1.8)) for box in sure)
            found.append((None, 1.0 if near or not boxes else far, None))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_targets_equal_a_slow_computation(seed: int):
    random = np.random.default_rng(seed)
    boxes = []
    for _ in range(seed):
        x, y, wide, high = random.uniform([0, 0, 5, 5], [130, 80, 90, 70])
        boxes.append(
            ([x, y, min(x + wide, 150), min(y + high, 100)], int(random.integers(3)), bool(random.random() < 0.4))
        )
    targets = truth_of(*boxes)
    labels, weights, nearest = match_cells(centres(10, 7), targets, torch.tensor([100, 150]), 3, 0.4)
    wanted = slow_targets(targets, 7, 10, (100, 150), 0.4)
    assert labels.tolist() == [3 if label is None else label for label, _, _ in wanted]
    np.testing.assert_allclose(weights, [weight for _, weight, _ in wanted])
    for row, (label, _, box) in zip(nearest.tolist(), wanted, strict=True):
        assert label is None or targets.boxes[row].tolist() == box


# What it says.


def convolved(plane: np.ndarray, layer: nn.Module) -> np.ndarray:
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


def slow_look(model: FCOS, view: Tensor) -> list[tuple[np.ndarray, float, list[float]]]:
    """For every cell of an unmirrored view its class logits, the logit of its quality, and its box."""

    def through(plane: np.ndarray, layers: nn.Sequential) -> np.ndarray:
        for layer in layers:
            plane = np.maximum(plane, 0) if isinstance(layer, nn.ReLU) else convolved(plane, layer)
        return plane

    features = through(described(view, model).astype(np.float64), model.reduce)
    classes, around = through(features, model.class_tower), through(features, model.box_tower)
    logits, quality, reach = (
        convolved(plane, last)
        for plane, last in ((classes, model.classify), (around, model.judge), (around, model.reach))
    )
    found = []
    for y in range(view.shape[1]):
        for x in range(view.shape[2]):
            left, top, right, bottom = (16 * math.exp(0.7 * side) for side in reach[:, y, x])
            cx, cy = 16 * x + 8, 16 * y + 8
            found.append((logits[:, y, x], quality[0, y, x], [cx - left, cy - top, cx + right, cy + bottom]))
    return found


def sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def test_scores_are_class_times_quality_times_a_root_of_what_is_in_the_image_over_both_mirrorings():
    model, row = make(), item()
    model.localizer.threshold.fill_(0.1)
    (found,) = evidence(model, row)
    assert found.proposal_scores is not None and found.boxes is not None
    (first,) = model.localizer(collate([row]))
    assert found.maps is not None and torch.equal(found.maps, first.maps)
    assert found.objectness is not None and torch.equal(found.objectness, first.objectness)
    (layer,) = model.localizer.head
    seen = (row.map[:6].mean(dim=(1, 2)) @ layer.weight[:, :, 0, 0].T + layer.bias).sigmoid()
    torch.testing.assert_close(found.image_scores, seen)
    plain, other = slow_look(model, row.map), slow_look(model, row.map.flip(2))
    limits, different = np.array([144, 96, 144, 96]), 0
    for y in range(6):
        for x in range(9):
            logits, quality, box = plain[y * 9 + x]
            score = sigmoid(logits) * sigmoid(quality)
            logits, quality, (left, top, right, bottom) = other[y * 9 + 8 - x]
            mirrored = sigmoid(logits) * sigmoid(quality)
            both = [np.clip(one, 0, limits) for one in (box, [144 - right, top, 144 - left, bottom])]
            wanted = (score + mirrored) / 2 * seen.detach().numpy() ** 0.25
            np.testing.assert_allclose(found.proposal_scores[y * 9 + x], wanted, rtol=2e-3)
            np.testing.assert_allclose(found.boxes[y * 9 + x], sum(both) / 2, atol=5e-2)
            different += not np.allclose(both[0], both[1], atol=1)
    assert different > 20


def test_a_mirrored_image_is_seen_alike():
    model, row = make(), item()
    (plain,), (mirrored,) = evidence(model, row), evidence(model, turned(row))
    assert plain.boxes is not None and mirrored.boxes is not None
    assert plain.proposal_scores is not None and mirrored.proposal_scores is not None
    torch.testing.assert_close(mirrored.image_scores, plain.image_scores)
    back = mirrored.proposal_scores.reshape(6, 9, 3).flip(1).reshape(54, 3)
    torch.testing.assert_close(back, plain.proposal_scores, atol=1e-5, rtol=1e-4)
    back = turned(replace(row, boxes=mirrored.boxes.reshape(6, 9, 4).flip(1).reshape(54, 4))).boxes
    torch.testing.assert_close(back, plain.boxes, atol=1e-2, rtol=1e-4)
    assert not torch.allclose(mirrored.proposal_scores, plain.proposal_scores, rtol=0.1)


def test_a_image_is_seen_the_same_in_a_batch_and_needs_no_proposals():
    model, row = make(), item()
    (alone,) = evidence(model, replace(row, boxes=None))
    in_batch = evidence(model, item(208, 160, seed=4), row)[1]
    torch.testing.assert_close(in_batch.proposal_scores, alone.proposal_scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(in_batch.boxes, alone.boxes, atol=1e-2, rtol=1e-4)


def test_what_lies_beyond_the_view_does_not_score():
    model, row = make(), item()
    with torch.no_grad():
        model.reach.weight.zero_()
        model.reach.bias.fill_(-9.0)
    # The last column's centres are at 136, and the view ends at 130.
    (found,) = evidence(model, replace(row, size=(96, 130), boxes=None))
    assert found.proposal_scores is not None and found.boxes is not None
    beyond = torch.arange(54) % 9 == 8
    assert (found.proposal_scores[beyond] == 0).all() and (found.proposal_scores[~beyond] > 0).all()
    assert found.boxes[:, [0, 2]].max() <= 130


def test_before_anything_is_learned_a_class_is_unlikely_and_boxes_are_two_cells_wide():
    model = FCOS(network(), FCOSConfig(**SMALL), 3)
    (found,) = evidence(model, replace(item(), boxes=None))
    assert found.proposal_scores is not None and found.boxes is not None
    np.testing.assert_allclose(found.proposal_scores / found.image_scores**0.25, 0.01 * 0.5, rtol=0.2)
    np.testing.assert_allclose(found.boxes.reshape(6, 9, 4)[2, 3], [40, 24, 72, 56], atol=3)


def test_an_early_guess_does_not_overflow():
    model = make()
    with torch.no_grad():
        model.reach.bias.fill_(1e4)
    (found,) = evidence(model, replace(item(), boxes=None))
    assert found.boxes is not None
    assert found.boxes.tolist() == [[0, 0, 144, 96]] * 54
    assert all(math.isfinite(value) for value in losses(model, [item()]).values())


# What it learns.


def slow_losses(model: FCOS, items: list[Item]) -> dict[str, float]:
    """Cell by cell, from the papers' equations; items are as they are looked at."""
    classes = boxes = quality = 0.0
    number = 0
    for one in items:
        assert one.targets is not None and one.image_labels is not None
        rows, columns = one.map.shape[1:]
        targets = slow_targets(one.targets, rows, columns, one.size, model.config.far_weight)
        for (logits, judged, box), (label, weight, goal) in zip(slow_look(model, one.map), targets, strict=True):
            for row, logit in enumerate(logits):
                likely = sigmoid(logit) if row == label else 1 - sigmoid(logit)
                alpha = 0.25 if row == label else 0.75
                # Of a class that is not in the image no cell is one, whatever boxes say.
                counted = 1 if one.image_labels[row] == 0 else weight
                classes += -alpha * (1 - likely) ** 2 * math.log(likely) * counted
            if goal is None:
                continue
            number += 1
            wide, high = (max(0, min(box[axis + 2], goal[axis + 2]) - max(box[axis], goal[axis])) for axis in (0, 1))
            one_area, other = ((part[2] - part[0]) * (part[3] - part[1]) for part in (box, goal))
            union = one_area + other - wide * high
            hull = math.prod(max(box[axis + 2], goal[axis + 2]) - min(box[axis], goal[axis]) for axis in (0, 1))
            overlap = wide * high / union
            boxes += 1 - overlap + (hull - union) / hull
            quality -= overlap * math.log(sigmoid(judged)) + (1 - overlap) * math.log(1 - sigmoid(judged))
    return {
        name: value / max(number, 1) for name, value in (("classes", classes), ("boxes", boxes), ("quality", quality))
    }


def losses(model: FCOS, items: list[Item]) -> dict[str, float]:
    found = model.train()(collate(items))
    assert isinstance(found, dict)
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("difficult", [(False, False), (True, False)])
def test_losses_equal_a_slow_computation(monkeypatch: pytest.MonkeyPatch, difficult: tuple[bool, bool], mirrored: bool):
    model, items = make(far_weight=0.6), [item(seed=2), item(176, 112, seed=3)]
    # Of a class that may be there cells count as boxes say.
    items[1] = replace(items[1], image_labels=torch.tensor([1, float("nan"), 1]))
    for number, one in enumerate(items):
        assert one.targets is not None
        items[number] = replace(one, targets=one.targets._replace(ignore=torch.tensor(difficult)))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(0.1 if mirrored else 0.9))
    wanted = slow_losses(model, [turned(one) if mirrored else one for one in items])
    other = slow_losses(model, items if mirrored else [turned(one) for one in items])
    found = losses(model, items)
    assert found == pytest.approx(wanted, rel=2e-3)
    assert found != pytest.approx(other, rel=1e-2)


def test_images_are_mirrored_half_of_the_time_each_by_itself():
    model, rows = make(), [item(seed=2), item(seed=3)]
    torch.manual_seed(0)
    assert len({round(losses(model, rows[:1])["boxes"], 4) for _ in range(20)}) == 2
    assert len({round(losses(model, rows)["boxes"], 4) for _ in range(40)}) == 4


def test_a_image_without_objects_teaches_background_alone():
    model, row = make(), replace(item(), targets=truth_of())
    found = losses(model, [row])
    assert found["boxes"] == found["quality"] == 0
    candidates = [slow_losses(model, [one])["classes"] for one in (row, turned(row))]
    assert min(abs(found["classes"] - candidate) for candidate in candidates) < 1e-3 * found["classes"]
    model.zero_grad()
    torch.stack(list(model.train()(collate([row])).values())).sum().backward()
    assert model.classify.bias.grad is not None and model.classify.bias.grad.abs().min() > 0


def test_the_quality_follows_the_box_and_not_the_other_way_round():
    model, row = make(), item(seed=2)
    found = model.train()(collate([row]))
    assert isinstance(found, dict)
    found["quality"].backward()
    assert model.judge.weight.grad is not None and model.judge.weight.grad.any()
    assert model.reach.weight.grad is None and model.scale.grad is None
