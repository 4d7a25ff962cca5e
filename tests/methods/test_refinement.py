import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from boxless.methods.box_ops import decode
from boxless.methods.matching import PseudoLabels
from boxless.methods.mining import MINING
from boxless.methods.refinement import Refinement, RefinementConfig

SIZE = torch.tensor([80, 100])
"""Height and width."""
BOXES = torch.tensor([[0.0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]])
"""IoU with the first: 1, 0.818, 0, 0.2, 0.143."""
SCORES = torch.tensor([[0.6, 0.1], [0.3, 0.1], [0.5, 0.8], [0.1, 0.2], [0.55, 0.7]])
FIRST = torch.tensor([1.0, 0])
"""Image labels: the first class alone."""


def make(stages: int = 2, **settings: Any) -> Refinement:
    torch.manual_seed(0)
    refinement = Refinement(6, 2, RefinementConfig(**({"box_regression": True} | settings)))
    refinement.stages, refinement.regressions = refinement.stages[:stages], refinement.regressions[:stages]
    for layer in refinement.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    return refinement


def logits_of(refinement: Refinement, stage: int, logits: list[list[float]]) -> None:
    """Let a stage give row N of these logits for the N-th of the features `torch.eye(6)`."""
    layer = refinement.stages[stage]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, : len(logits)] = torch.tensor(logits).T
        layer.bias.zero_()


def test_scores_are_the_mean_over_the_heads_without_background():
    refinement, features = make(), torch.randn(5, 6)
    scores, moved = refinement(features, BOXES, SIZE)
    expected = sum(stage(features).softmax(dim=1) for stage in refinement.stages)[:, :2] / 2
    torch.testing.assert_close(scores, expected)
    assert moved is not None and moved.shape == (5, 4)
    assert make(box_regression=False)(features, BOXES, SIZE)[1] is None


def test_boxes_are_the_mean_over_the_heads():
    refinement, features = make(), torch.randn(5, 6)
    moved = refinement(features, BOXES, SIZE)[1]
    torch.testing.assert_close(moved, sum(decode(BOXES, one(features), SIZE) for one in refinement.regressions) / 2)


def test_every_head_is_trained_on_pseudo_labels_of_the_one_before():
    """OICR, section 3.2 and equation 4."""
    refinement, features = make(), torch.randn(5, 6)
    losses = refinement.losses([features], [BOXES], FIRST[None], [SCORES])

    def expected(stage: nn.Module, scores: Tensor) -> Tensor:
        best = scores[:, 0].argmax()
        overlap = box_iou(BOXES, BOXES[best : best + 1])[:, 0]
        labels = torch.where(overlap >= 0.5, 0, 2)
        weights = scores[best, 0] * (overlap >= 0.1)
        return (nn.functional.cross_entropy(stage(features), labels, reduction="none") * weights).mean()

    first, second = refinement.stages
    torch.testing.assert_close(losses["refine 1"], expected(first, SCORES))
    torch.testing.assert_close(losses["refine 2"], expected(second, first(features).softmax(dim=1).detach()))
    assert set(losses) == {"refine 1", "refine 2", "boxes"}


def test_every_head_regresses_boxes_onto_its_own_pseudo_labels():
    refinement, features = make(), torch.eye(6)[:5]
    for regression in refinement.regressions:
        nn.init.zeros_(regression.weight)
    # The first head is trained on row 0, of score 0.6; the second on row 1, to which the first gives 1/2.
    logits_of(refinement, 0, [[0.0, 0, 0], [math.log(2), 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    losses = refinement.losses([features], [BOXES], FIRST[None], [SCORES])
    # Rows 0 and 1 lie a tenth of their side apart: one delta of 1 each time, for a smooth L1 of 1/2.
    assert losses["boxes"].item() == pytest.approx((0.6 * 0.5 + 0.5 * 0.5) / 5)


def test_proposals_of_a_rule_with_bags_share_one_loss(monkeypatch: pytest.MonkeyPatch):
    def mine(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
        return PseudoLabels(boxes[:1], torch.tensor([0]), torch.tensor([0.5]), bags=True)

    monkeypatch.setitem(MINING, "first row", mine)
    refinement = make(1, mining="first row")
    logits_of(refinement, 0, [[math.log(6), 0, 0], [0.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    loss = refinement.losses([torch.eye(6)[:5]], [BOXES], FIRST[None], [SCORES])["refine 1"]
    # Rows 0 and 1, of probabilities 3/4 and 1/3, are a bag; rows 3 and 4 are background, row 2 is ignored.
    bag, background = -2 * 0.5 * math.log((3 / 4 + 1 / 3) / 2), -2 * 0.5 * math.log(1 / 3)
    assert loss.item() == pytest.approx((bag + background) / 5)


def test_images_without_tags_have_no_part_in_the_loss_and_the_mean_is_over_images():
    refinement, features = make(1), torch.randn(5, 6)
    nothing = torch.zeros(1, 2)
    alone = refinement.losses([features], [BOXES], nothing, [SCORES])
    assert {name: loss.item() for name, loss in alone.items()} == {"refine 1": 0, "boxes": 0}
    tagged = refinement.losses([features], [BOXES], FIRST[None], [SCORES])
    both = refinement.losses([features] * 2, [BOXES] * 2, torch.stack([nothing[0], FIRST]), [SCORES] * 2)
    for name in both:
        torch.testing.assert_close(both[name], tagged[name] / 2)


def test_untagged_images_do_not_outweigh_tagged_ones_while_scores_are_small():
    """By hand: a tagged image whose pseudo label scores 0.001 beside one without a tag; logits of zero."""
    refinement = make(1, box_regression=False, ignore=0)
    logits_of(refinement, 0, [[0.0, 0, 0]] * 5)
    images = torch.stack([FIRST, torch.zeros(2)])
    loss = refinement.losses([torch.eye(6)[:5]] * 2, [BOXES] * 2, images, [SCORES / 600] * 2)["refine 1"]
    assert loss.item() == pytest.approx(0.001 * math.log(3) / 2)
