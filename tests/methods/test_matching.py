import torch

from boxless.features import Targets
from boxless.methods.matching import PseudoLabels, match_proposals, pseudo_labels_of, reweight, sample_proposals

BOXES = torch.tensor([[0.0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]])
"""IoU with the first: 1, 0.818, 0, 0.2, 0.143."""


def test_proposals_take_the_class_of_the_box_they_overlap_by_half():
    pseudo = PseudoLabels(BOXES[[0, 2]], torch.tensor([1, 0]), torch.tensor([0.9, 0.5]))
    labels, weights, nearest = match_proposals(BOXES, pseudo, 2, ignore=0.15)
    assert labels.tolist() == [1, 1, 0, 2, 2]
    assert nearest[:3].tolist() == [0, 0, 1]
    # The whole image has 0.2 with both and is background; the last has 0.143 and is ignored.
    torch.testing.assert_close(weights, torch.tensor([0.9, 0.9, 0.5, 0.9, 0.0]))


def test_without_pseudo_labels_all_proposals_are_background_of_full_weight():
    nothing = PseudoLabels(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    labels, weights, _ = match_proposals(BOXES, nothing, 2, ignore=0.1)
    assert labels.tolist() == [2] * 5 and weights.tolist() == [1] * 5


def test_proposals_matched_to_ignored_boxes_have_no_weight():
    targets = Targets(BOXES[[0, 2]], torch.tensor([1, 0]), torch.tensor([True, False]))
    labels, weights, _ = match_proposals(BOXES, pseudo_labels_of(targets), 2, ignore=0)
    # The first two overlap the ignored box by half, the last a little; the whole image has 0.2 with both.
    assert weights.tolist() == [0, 0, 1, 1, 0]
    assert labels[2:4].tolist() == [0, 2]
    # A proposal that overlaps nothing is background, whichever box comes first.
    _, weights, _ = match_proposals(torch.tensor([[0.0, 50, 20, 80]]), pseudo_labels_of(targets), 2, ignore=0)
    assert weights.tolist() == [1]
    none = pseudo_labels_of(Targets(BOXES[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)))
    assert match_proposals(BOXES, none, 2, ignore=0.1)[0].tolist() == [2] * 5


def test_reweighted_objects_have_their_share_of_the_loss():
    labels, weights = torch.tensor([0, 2, 2, 2, 1]), torch.tensor([0.5, 1.0, 1.0, 0.0, 1.0])
    # Two objects share a quarter, two of the background three quarters, of four; the ignored one has no part.
    expected = [0.5 * 0.125 * 4, 0.375 * 4, 0.375 * 4, 0, 0.125 * 4]
    torch.testing.assert_close(reweight(labels, weights, 2, 0.25), torch.tensor(expected))
    for one_kind in (torch.tensor([2, 2]), torch.tensor([0, 1])):
        assert torch.equal(reweight(one_kind, weights[:2], 2, 0.25), weights[:2])


def test_objects_background_and_ignored_proposals_are_sampled_up_to_their_numbers():
    labels = torch.tensor([2, 0, 2, 1, 2, 0, 2, 2, 1])
    weights = torch.tensor([1.0, 0.5, 0, 1, 0.2, 0, 1, 1, 0.1])
    objects, background, ignored = {1, 3, 8}, {0, 4, 6, 7}, {2, 5}
    drawn = set()
    for seed in range(30):
        torch.manual_seed(seed)
        rows = sample_proposals(labels, weights, 2, (2, 3, 1)).tolist()
        assert set(rows[:2]) < objects and set(rows[2:5]) < background and set(rows[5:]) < ignored
        assert len(set(rows)) == len(rows) == 6
        drawn |= set(rows)
        assert set(sample_proposals(labels, weights, 2, (9, 9, 9)).tolist()) == objects | background | ignored
        # Fewer of one kind leave no more room for the others.
        assert len(sample_proposals(labels, weights, 2, (9, 1, 0))) == 4
    assert drawn == objects | background | ignored
    assert sample_proposals(labels[:0], weights[:0], 2, (2, 3, 1)).tolist() == []
