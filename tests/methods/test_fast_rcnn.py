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
from torchvision.ops import box_iou

from boxless.features import Item, Targets, collate
from boxless.methods import CAM, CAMConfig, FastRCNN, FastRCNNConfig
from boxless.methods.box_ops import decode
from boxless.methods.fast_rcnn import ROW_MULTIPLE

SMALL: dict[str, Any] = {"pca_dims": (4, 3), "pool": 2, "hidden": (8, 7), "dropout": 0.0, "samples": (50, 100, 100)}
"""Settings with which every proposal fits into the sample."""


def make(classes: int = 3, **changes: Any) -> FastRCNN:
    return with_large_weights(FastRCNN(small_backbone(), FastRCNNConfig(**(SMALL | changes)), classes))


# Slow references.


def sum_over(plane: np.ndarray, box: list[float]) -> tuple[np.ndarray, float]:
    """Sum over a box of a map (C, h, w) in cells, every cell by the part that is covered, and the box's area."""
    total, (left, top, right, bottom) = np.zeros(len(plane)), box
    for y in range(plane.shape[1]):
        for x in range(plane.shape[2]):
            width = max(0.0, min(right, x + 1) - max(left, x))
            height = max(0.0, min(bottom, y + 1) - max(top, y))
            total += plane[:, y, x] * width * height
    return total, (right - left) * (bottom - top)


def slow_regions(plane: np.ndarray, boxes: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Means over the cells of the grid on every box and over the context region beyond it, one row a box."""
    height, width = size
    rows = []
    for left, top, right, bottom in (boxes / 16).double().tolist():
        step_x, step_y = (right - left) / side, (bottom - top) / side
        grid = np.zeros((side, side, len(plane)))
        for row in range(side):
            for column in range(side):
                corner = [left + column * step_x, top + row * step_y]
                total, area = sum_over(plane, [*corner, corner[0] + step_x, corner[1] + step_y])
                grid[row, column] = total / area
        more = [(right - left) * 0.4, (bottom - top) * 0.4]
        context = [max(0, left - more[0]), max(0, top - more[1])]
        context += [min(width / 16, right + more[0]), min(height / 16, bottom + more[1])]
        (outer, whole), (inner, own) = sum_over(plane, context), sum_over(plane, [left, top, right, bottom])
        rows.append(np.concatenate([grid.ravel(), (outer - inner) / max(whole - own, 0.5)]))
    return torch.from_numpy(np.stack(rows)).float()


def slow_head(model: FastRCNN, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and deltas, layer by layer."""
    hidden = regions
    for layer in (layer for layer in model.trunk if isinstance(layer, nn.Linear)):
        hidden = (hidden @ layer.weight.T + layer.bias).relu()
    return hidden @ model.classify.weight.T + model.classify.bias, hidden @ model.regress.weight.T + model.regress.bias


def smooth_l1(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def slow_losses(model: FastRCNN, items: list[Item]) -> dict[str, float]:
    """Proposal by proposal, from the papers' equations."""
    rows: list[tuple[float, float]] = []
    negative: list[float] = []
    for one in items:
        assert one.proposals is not None and one.targets is not None and one.image_labels is not None
        logits, deltas = slow_head(model, slow_regions(slow_pca(one.map, model), one.proposals, one.size, 2))
        matched: list[tuple[int, int, Tensor | None]] = []
        for row, box in enumerate(one.proposals):
            overlaps = box_iou(box[None], one.targets.boxes)[0].tolist()
            if not overlaps:
                matched.append((row, model.classes, None))
                continue
            best = max(range(len(overlaps)), key=lambda number: overlaps[number])
            if one.targets.ignore[best] or overlaps[best] < 0.1:
                absent = [number for number, value in enumerate(one.image_labels.tolist()) if value == 0]
                if one.targets.complete is not None and max(overlaps) < 0.1:
                    absent += torch.nonzero(one.targets.complete).flatten().tolist()
                negative.append(-np.log(1 - logits[row].softmax(dim=0)[absent].sum().item()))
                continue
            label = int(one.targets.labels[best]) if overlaps[best] >= 0.5 else model.classes
            matched.append((row, label, one.targets.boxes[best]))
        objects = sum(label < model.classes for _, label, _ in matched)
        for row, label, target in matched:
            weight = 1.0
            if 0 < objects < len(matched):
                share = 0.33 / objects if label < model.classes else 0.67 / (len(matched) - objects)
                weight = share * len(matched)
            distance = 0.0
            if label < model.classes and target is not None:
                left, top, right, bottom = one.proposals[row].tolist()
                x1, y1, x2, y2 = target.tolist()
                width, height = right - left, bottom - top
                goals = [(x1 + x2 - left - right) / 2 / width / 0.1, (y1 + y2 - top - bottom) / 2 / height / 0.1]
                goals += [np.log((x2 - x1) / width) / 0.2, np.log((y2 - y1) / height) / 0.2]
                distance = sum(smooth_l1(own - goal) for own, goal in zip(deltas[row].tolist(), goals, strict=True))
            # A background proposal may be an object of a class that is unknown.
            unknown = torch.nonzero(one.image_labels.isnan()).flatten().tolist()
            fits = [label, *(unknown if label == model.classes else ())]
            rows.append((weight * -float(logits[row].softmax(dim=0)[fits].sum().log()), weight * distance))
    means = [sum(values) / len(rows) for values in zip(*rows, strict=True)]
    return {"classes": means[0], "boxes": means[1], "negative labels": sum(negative) / max(len(negative), 1)}


# Prediction.


@pytest.mark.parametrize("pool", [1, 2, 3, 4])
def test_scores_are_class_probabilities_times_a_root_of_image_level_scores(pool: int):
    model, row = make(pool=pool), item(number=7)
    assert row.proposals is not None
    (found,) = outputs(model, row)
    in_image = image_scores(model, row)
    torch.testing.assert_close(found.image_scores, in_image)
    with torch.inference_mode():
        logits, deltas = slow_head(model, slow_regions(slow_pca(row.map, model), row.proposals, row.size, pool))
        boxes = decode(row.proposals, deltas, torch.tensor(row.size))
    expected = logits.softmax(dim=1)[:, :3] * in_image.sqrt().sqrt()
    torch.testing.assert_close(found.proposal_scores, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.boxes, boxes, atol=5e-2, rtol=1e-3)
    assert found.proposal_scores is not None and (found.proposal_scores <= in_image.sqrt().sqrt()).all()


def test_scores_depend_neither_on_the_batch_nor_on_the_other_proposals():
    model, row = make(), item()
    assert row.proposals is not None
    (alone,) = outputs(model, row)
    in_batch = outputs(model, item(208, 160, seed=4), row)[1]
    torch.testing.assert_close(in_batch.proposal_scores, alone.proposal_scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(in_batch.image_scores, alone.image_scores)
    (first,) = outputs(model, replace(row, proposals=row.proposals[:1]))
    assert first.proposal_scores is not None and alone.proposal_scores is not None
    torch.testing.assert_close(first.proposal_scores, alone.proposal_scores[:1], atol=1e-4, rtol=1e-4)


def test_half_precision_maps_are_computed_in_single_precision():
    model, row = make(), item()
    stored = row.map.half()
    (found,), (expected,) = outputs(model, replace(row, map=stored)), outputs(model, replace(row, map=stored.float()))
    assert found.proposal_scores is not None and expected.proposal_scores is not None
    torch.testing.assert_close(found.proposal_scores, expected.proposal_scores, rtol=0, atol=0)
    assert torch.equal(found.image_scores, expected.image_scores)


@pytest.mark.parametrize("number", [1, 127, 128, 129])
def test_layers_get_multiples_of_a_fixed_number_of_rows_and_results_do_not_depend_on_it(number: int):
    model, row, counts = make(), item(number=300), []
    assert row.proposals is not None
    (everything,) = outputs(model, row)
    model.classify.register_forward_hook(lambda layer, inputs, result: counts.append(len(inputs[0])))
    (some,) = outputs(model, replace(row, proposals=row.proposals[:number]))
    assert counts == [ROW_MULTIPLE if number <= ROW_MULTIPLE else 2 * ROW_MULTIPLE]
    for found, expected in ((some.proposal_scores, everything.proposal_scores), (some.boxes, everything.boxes)):
        assert found is not None and expected is not None and len(found) == number
        torch.testing.assert_close(found, expected[:number], rtol=1e-4, atol=1e-4)
    losses(model, [row])
    assert counts[-1] % ROW_MULTIPLE == 0 and len(counts) == 2


def test_image_scores_are_the_cams_and_are_not_trained():
    cam = CAM(small_backbone(), nn.Sequential(), CAMConfig(objectness=True), 3).eval()
    cam.threshold.fill_(0.3)
    model, row = make(), item()
    model.cam.load_state_dict(cam.state_dict())
    with torch.inference_mode():
        (expected,) = cam(collate([replace(row, proposals=None)]))
    (found,) = outputs(model, row)
    torch.testing.assert_close(found.image_scores, expected.image_scores)
    assert found.maps is None and found.objectness is None
    torch.stack(list(loss_tensors(model, [row]).values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("cam."), name
        assert parameter.requires_grad != name.startswith("cam."), name


# Training.


@pytest.mark.parametrize("ignore", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("unknown", [False, True])
def test_losses_equal_a_slow_reference_and_each_image_is_mirrored_half_of_the_time(
    ignore: tuple[bool, bool], unknown: bool
):
    model = make()
    one, other = with_ignored(item(seed=2), ignore), with_ignored(item(176, 112, 30, seed=3), ignore)
    if unknown:
        assert other.targets is not None
        complete = other.targets._replace(complete=torch.tensor([False, False, True]))
        other = replace(other, image_labels=torch.tensor([1, float("nan"), 1]), targets=complete)
    with torch.no_grad():
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
    assert candidates[0]["boxes"] > 0.05 and candidates[0]["negative labels"] > 0.05


def test_an_image_without_objects_is_all_background():
    model, row = make(), item()
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    row = replace(row, targets=none)
    with torch.no_grad():
        candidates = [slow_losses(model, [one])["classes"] for one in (row, mirrored(row))]
    found = losses(model, [row])
    assert found["boxes"] == 0
    assert min(abs(found["classes"] - candidate) for candidate in candidates) < 1e-3


def test_proposals_far_from_all_boxes_are_trained_on_negative_labels_alone():
    model, row = make(), item(number=1)
    far = Targets(torch.tensor([[140.0, 90, 144, 96]]), torch.tensor([1]), torch.tensor([False]))
    row = replace(row, proposals=torch.tensor([[0.0, 0, 30, 30]]), targets=far)
    # Without a class that the image certainly lacks nothing is known about them.
    row = replace(row, image_labels=torch.tensor([1.0, 1, float("nan")]))
    assert losses(model, [row]) == {"classes": 0, "boxes": 0, "negative labels": 0}
    assert losses(model, [replace(row, image_labels=torch.tensor([1.0, 1, 0]))])["negative labels"] > 0


def test_a_step_trains_on_at_most_the_sampled_proposals():
    model, row, counts = make(samples=(1, 5, 4)), item(number=300, seed=2), []
    model.trunk.register_forward_hook(lambda layer, inputs, result: counts.append(int(inputs[0].any(dim=1).sum())))
    found = {losses(model, [row])["classes"] for _ in range(6)}
    # Rows of zeros pad the ten.
    assert counts == [10] * 6 and len(found) > 2
    (whole,) = outputs(model, row)
    assert whole.proposal_scores is not None and len(whole.proposal_scores) == 302
