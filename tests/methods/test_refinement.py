import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from boxless.config import RefinementConfig
from boxless.features import Targets
from boxless.methods.heads import decode, encode, mirror_boxes
from boxless.methods.losses import box_loss, cluster_loss, refinement_loss
from boxless.methods.mining import (
    PseudoLabels,
    assign,
    balance,
    draw,
    mine_clusters,
    mine_spread,
    mine_top,
    trust,
    vote,
)
from boxless.methods.refinement import Refinement

SIZE = torch.tensor([80, 100])  # height, width
BOXES = torch.tensor([[0.0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]])
"""IoU with the first: 1, 0.818, 0, 0.2, 0.143."""
SCORES = torch.tensor([[0.6, 0.1], [0.3, 0.1], [0.5, 0.8], [0.1, 0.2], [0.55, 0.7]])
FIRST = torch.tensor([1.0, 0])


def test_the_top_proposal_of_every_present_class_is_mined_with_its_score():
    found = mine_top(BOXES, SCORES, torch.tensor([1.0, 1]))
    assert found.boxes.tolist() == BOXES[[0, 2]].tolist()
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.weights, torch.tensor([0.6, 0.8]))


def test_absent_and_unsure_classes_are_not_mined():
    for target in (torch.tensor([0.0, 0]), torch.tensor([0.0, float("nan")])):
        for mine in (mine_top, mine_clusters, mine_spread):
            assert mine(BOXES, SCORES, target).boxes.shape == (0, 4)


def test_a_vote_is_over_what_overlaps_the_best_by_half_weighted_by_squared_scores():
    # 0.36 of a box and 0.09 of one that lies 4 pixels further right; of the other class 0.64 of a box alone.
    found = vote(BOXES, SCORES, torch.tensor([1, 0]))
    torch.testing.assert_close(found, torch.tensor([[60.0, 40, 100, 80], [0.8, 0, 40.8, 40]]))
    # A third of the overlap is not enough, half is: of 40 x 40 pixels 32 x 40 is 2/3, 20 x 40 is 1/3.
    three = torch.tensor([[0.0, 0, 40, 40], [8, 0, 48, 40], [20, 0, 60, 40]])
    torch.testing.assert_close(vote(three, torch.ones(3, 1), torch.tensor([0])), torch.tensor([[4.0, 0, 44, 40]]))
    assert vote(BOXES, SCORES, torch.zeros(0, dtype=torch.int64)).shape == (0, 4)


def test_any_box_can_be_voted_for():
    # The second and the last but one, by the scores of the first class: 0.3 and 0.6 in the one, 0.1 alone in the other.
    found = vote(BOXES, SCORES, torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0, 40.8, 40], [0, 0, 100, 80], [2, 0, 42, 40]]))
    # How little all that vote score, beside a box that does not, is no matter.
    small = SCORES * torch.tensor([1e-25, 1e-25, 1, 1, 1])[:, None]
    found = vote(BOXES, small, torch.tensor([0]), torch.tensor([1]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0, 40.8, 40]]))
    # A box without area overlaps nothing and stays.
    flat = torch.tensor([[10.0, 0, 10, 40], [0, 0, 40, 40]])
    assert torch.equal(vote(flat, torch.tensor([[0.5], [0.1]]), torch.tensor([0])), flat[:1])


def test_a_vote_does_not_depend_on_how_large_the_scores_are():
    wanted = vote(BOXES, SCORES, torch.tensor([0, 1]))
    torch.testing.assert_close(vote(BOXES, SCORES * 1e-30, torch.tensor([0, 1])), wanted)
    # Where no box has any score at all, all count alike.
    none = vote(BOXES, torch.zeros(5, 2), torch.tensor([1]))
    torch.testing.assert_close(none, torch.tensor([[2.0, 0, 42, 40]]))


def test_mining_lets_no_gradient_through():
    scores = SCORES.clone().requires_grad_()
    for mine in (mine_top, mine_clusters, mine_spread):
        found = mine(BOXES, scores, FIRST)
        assert not found.boxes.requires_grad and not found.weights.requires_grad


def test_proposals_take_the_class_of_the_pseudo_box_they_overlap_by_half():
    pseudo = PseudoLabels(BOXES[[0, 2]], torch.tensor([1, 0]), torch.tensor([0.9, 0.5]))
    labels, weights, nearest = assign(BOXES, pseudo, 2, ignore=0.15)
    assert labels.tolist() == [1, 1, 0, 2, 2]
    assert nearest[:3].tolist() == [0, 0, 1]
    # The whole image has 0.2 with both and is background; the last has 0.143 and is ignored.
    torch.testing.assert_close(weights, torch.tensor([0.9, 0.9, 0.5, 0.9, 0.0]))


def test_without_pseudo_boxes_everything_is_background_in_full():
    nothing = PseudoLabels(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    labels, weights, _ = assign(BOXES, nothing, 2, ignore=0.1)
    assert labels.tolist() == [2] * 5 and weights.tolist() == [1] * 5


def test_balanced_objects_have_their_share_of_the_loss():
    labels, weights = torch.tensor([0, 2, 2, 2, 1]), torch.tensor([0.5, 1.0, 1.0, 0.0, 1.0])
    # Two objects share a quarter, two of the background three quarters, of four; the one that is ignored has no part.
    expected = [0.5 * 0.125 * 4, 0.375 * 4, 0.375 * 4, 0, 0.125 * 4]
    torch.testing.assert_close(balance(labels, weights, 2, 0.25), torch.tensor(expected))
    for alone in (torch.tensor([2, 2]), torch.tensor([0, 1])):
        assert torch.equal(balance(alone, weights[:2], 2, 0.25), weights[:2])


def test_objects_background_and_the_rest_are_drawn_up_to_their_numbers():
    labels = torch.tensor([2, 0, 2, 1, 2, 0, 2, 2, 1])
    weights = torch.tensor([1.0, 0.5, 0, 1, 0.2, 0, 1, 1, 0.1])
    objects, beside, elsewhere = {1, 3, 8}, {0, 4, 6, 7}, {2, 5}
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        rows = draw(labels, weights, 2, (2, 3, 1)).tolist()
        assert set(rows[:2]) < objects and set(rows[2:5]) < beside and set(rows[5:]) < elsewhere
        assert len(set(rows)) == len(rows) == 6
        seen |= set(rows)
        assert set(draw(labels, weights, 2, (9, 9, 9)).tolist()) == objects | beside | elsewhere
        # There being fewer of one kind leaves no more room for the others.
        assert len(draw(labels, weights, 2, (9, 1, 0))) == 4
    assert seen == objects | beside | elsewhere
    assert draw(labels[:0], weights[:0], 2, (2, 3, 1)).tolist() == []


def test_refinement_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = refinement_loss(logits, torch.tensor([1, 0]), torch.tensor([0.5, 1.0]))
    assert loss.item() == pytest.approx((0.5 * math.log(4 / 3) + math.log(2)) / 2)


def test_no_proposal_at_all_costs_nothing():
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = refinement_loss(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss = loss + box_loss(logits[:, :0].reshape(0, 4), torch.zeros(0, 4), torch.zeros(0), 0)
    loss.backward()
    assert loss.item() == 0


def test_cluster_loss_by_hand():
    # Two members of one cluster: 3/4 and 1/4 sure of their class, 1/2 together, whatever their shares.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)], [0.0, 0.0]], requires_grad=True)
    loss = cluster_loss(logits, torch.tensor([0, 0, 1]), torch.tensor([0.6, 0.6, 0.2]), torch.tensor([0, 0, 0]))
    assert loss.item() == pytest.approx((2 * 0.6 * math.log(2) + 0.2 * math.log(2)) / 3)
    loss.backward()
    # d/dp of the bag is weight / sum of p; through the softmax that is p (1 - p).
    assert logits.grad is not None
    assert logits.grad[0, 0].item() == pytest.approx(-1.2 / 1.0 * 0.75 * 0.25 / 3)
    assert cluster_loss(logits[2:], torch.tensor([1]), torch.ones(1), torch.tensor([0])).item() == pytest.approx(
        math.log(2)
    )


def test_cluster_loss_equals_a_literal_loop():
    torch.manual_seed(0)
    logits, weights = torch.randn(40, 4), torch.rand(40)
    nearest = torch.randint(5, (40,))
    labels = torch.where(torch.rand(40) < 0.6, torch.tensor([2, 0, 2, 1, 1])[nearest], 3)
    total, shares = 0.0, logits.softmax(dim=1).tolist()
    for cluster, label in enumerate((2, 0, 2, 1, 1)):
        members = [row for row in range(40) if labels[row] == label and nearest[row] == cluster]
        mean = sum(shares[row][label] for row in members) / len(members)
        total -= sum(weights[row].item() for row in members) * math.log(mean)
    total -= sum(weights[row].item() * math.log(shares[row][3]) for row in range(40) if labels[row] == 3)
    assert cluster_loss(logits, labels, weights, nearest).item() == pytest.approx(total / 40, rel=1e-5)


def test_box_loss_by_hand():
    moves, goals = torch.tensor([[0.0, 0.5, 0, 3.0]]), torch.zeros(1, 4)
    # Smooth L1: half a square below one, one less a half from there on.
    assert box_loss(moves, goals, torch.tensor([0.5]), 10).item() == pytest.approx(0.5 * (0.125 + 2.5) / 10)
    assert box_loss(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0), 10).item() == 0


def test_decoding_undoes_encoding_and_stays_within_the_view():
    goals = torch.tensor([[10.0, 5, 40, 50]]).expand(5, 4)
    torch.testing.assert_close(decode(BOXES, encode(BOXES, goals), SIZE), goals)
    assert decode(BOXES, torch.full((5, 4), 100.0), SIZE).amax(0).tolist() == [100, 80, 100, 80]
    torch.testing.assert_close(decode(BOXES, torch.zeros(5, 4), SIZE), BOXES)


def test_mirroring_twice_changes_nothing():
    assert mirror_boxes(BOXES, 100)[1].tolist() == [56, 0, 96, 40]
    assert torch.equal(mirror_boxes(mirror_boxes(BOXES, 100), 100), BOXES)


def made(stages: int = 2, **settings: Any) -> Refinement:
    torch.manual_seed(0)
    refinement = Refinement(6, 2, RefinementConfig(stages=stages, **({"regress": "last"} | settings)))
    for layer in refinement.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    return refinement


def test_scores_are_the_mean_over_the_heads_without_background():
    refinement, features = made(), torch.randn(5, 6)
    scores, moved = refinement(features, BOXES, SIZE)
    expected = sum(stage(features).softmax(dim=1) for stage in refinement.stages)[:, :2] / 2
    torch.testing.assert_close(scores, expected)
    assert moved is not None and moved.shape == (5, 4)
    assert made(regress=None)(features, BOXES, SIZE)[1] is None


def test_bags_are_what_a_head_learns_from_where_asked():
    refinement, features = made(1, bags=True, mining="clusters"), torch.randn(5, 6)
    loss = refinement.losses([features], [BOXES], FIRST[None], [SCORES])["refine 1"]
    labels, weights, nearest = assign(BOXES, mine_clusters(BOXES, SCORES, FIRST), 2, 0.1)
    torch.testing.assert_close(loss, cluster_loss(refinement.stages[0](features), labels, weights, nearest))


def test_all_heads_move_boxes_where_asked_and_the_mean_counts():
    refinement, features = made(2, regress="all"), torch.randn(5, 6)
    moved = refinement(features, BOXES, SIZE)[1]
    torch.testing.assert_close(moved, sum(decode(BOXES, one(features), SIZE) for one in refinement.regressions) / 2)
    second = refinement.stages[0](features).softmax(dim=1)
    expected = torch.zeros(())
    for scores, regression in zip((SCORES, second), refinement.regressions, strict=True):
        pseudo = mine_top(BOXES, scores, FIRST)
        labels, weights, _ = assign(BOXES, pseudo, 2, 0.1)
        held = labels < 2
        goals = encode(BOXES[held], pseudo.boxes.expand(int(held.sum()), 4))
        expected = expected + box_loss(regression(features[held]), goals, weights[held], 5)
    torch.testing.assert_close(refinement.losses([features], [BOXES], FIRST[None], [SCORES])["boxes"], expected)


def test_the_last_head_alone_moves_boxes_to_its_own_pseudo_boxes():
    refinement, features = made(2), torch.randn(5, 6)
    pseudo = mine_top(BOXES, refinement.stages[0](features).softmax(dim=1), FIRST)
    labels, weights, _ = assign(BOXES, pseudo, 2, 0.1)
    held = labels < 2
    goals = encode(BOXES[held], pseudo.boxes.expand(int(held.sum()), 4))
    expected = box_loss(refinement.regressions[0](features[held]), goals, weights[held], 5)
    torch.testing.assert_close(refinement.losses([features], [BOXES], FIRST[None], [SCORES])["boxes"], expected)


def test_every_head_learns_from_the_one_before():
    refinement, features = made(), torch.randn(5, 6)
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


def test_difficult_objects_are_neither_taught_nor_background():
    truth = Targets(BOXES[[0, 2]], torch.tensor([1, 0]), torch.tensor([True, False]))
    labels, weights, _ = assign(BOXES, trust(truth), 2, ignore=0)
    # The first two overlap the difficult one by half, the last a little; the whole image has 0.2 with both.
    assert weights.tolist() == [0, 0, 1, 1, 0]
    assert labels[2:4].tolist() == [0, 2]
    # What overlaps nothing is background, whichever object comes first.
    _, weights, _ = assign(torch.tensor([[0.0, 50, 20, 80]]), trust(truth), 2, ignore=0)
    assert weights.tolist() == [1]
    none = trust(Targets(BOXES[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)))
    assert assign(BOXES, none, 2, ignore=0.1)[0].tolist() == [2] * 5


def test_images_without_tags_teach_background_only_and_the_mean_is_over_images():
    refinement, features = made(1), torch.randn(5, 6)
    nothing = torch.zeros(1, 2)
    alone = refinement.losses([features], [BOXES], nothing, [SCORES])
    logits = refinement.stages[0](features)
    torch.testing.assert_close(alone["refine 1"], nn.functional.cross_entropy(logits, torch.full((5,), 2)))
    assert alone["boxes"].item() == 0
    tagged = refinement.losses([features], [BOXES], FIRST[None], [SCORES])
    both = refinement.losses([features] * 2, [BOXES] * 2, torch.stack([nothing[0], FIRST]), [SCORES] * 2)
    for name in both:
        torch.testing.assert_close(both[name], (alone[name] + tagged[name]) / 2)
