"""Mining rules: worked out by hand, and against slow references written from the papers."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from boxless.errors import BoxlessError
from boxless.methods.matching import PseudoLabels, match_proposals
from boxless.methods.mining import MINING, mine_clusters, mine_spread, mine_top, top_cluster
from boxless.metrics import iou

NAN = float("nan")
BOXES = torch.tensor([[0.0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]])
SCORES = torch.tensor([[0.6, 0.1], [0.3, 0.1], [0.5, 0.8], [0.1, 0.2], [0.55, 0.7]])


def overlap(one: Tensor, other: Tensor) -> float:
    return float(iou(one[None].numpy(), other[None].numpy())[0, 0])


def boxes_around_four_places(number: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    centres = np.array([[30, 30, 90, 80], [60, 40, 110, 100], [150, 20, 190, 70], [140, 100, 200, 150]])
    return torch.from_numpy((centres[rng.integers(4, size=number)] + rng.uniform(-12, 12, (number, 4))).astype("f4"))


# OICR.


def test_the_top_proposal_of_every_present_class_is_mined_with_its_score():
    found = mine_top(BOXES, SCORES, torch.tensor([1.0, 1]))
    assert found.boxes.tolist() == BOXES[[0, 2]].tolist()
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.weights, torch.tensor([0.6, 0.8]))


def test_a_proposal_is_the_top_of_one_class_only():
    # The third proposal is the best of both; the second class takes its next best. With one proposal it gets none.
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.9, 0.8]])
    found = mine_top(BOXES[:3], scores, torch.tensor([1.0, 1]))
    assert (found.boxes.tolist(), found.labels.tolist()) == (BOXES[[2, 1]].tolist(), [0, 1])
    torch.testing.assert_close(found.weights, torch.tensor([0.9, 0.4]))
    assert mine_top(BOXES[:1], scores[:1], torch.tensor([1.0, 1])).labels.tolist() == [0]


def slow_top(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> list[tuple[int, int]]:
    """Rows and classes of OICR's pseudo labels, class by class over the proposals that are left."""
    found: list[tuple[int, int]] = []
    for label in torch.nonzero(image_labels == 1).flatten().tolist():
        free = [row for row in range(len(boxes)) if row not in {used for used, _ in found}]
        found.append((max(free, key=lambda row: scores[row, label].item()), label))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_top_proposals_equal_a_slow_reference(seed: int):
    torch.manual_seed(seed)
    boxes, scores, image_labels = boxes_around_four_places(8, seed), torch.rand(8, 4), torch.tensor([1.0, 1, NAN, 1])
    found, expected = mine_top(boxes, scores, image_labels), slow_top(boxes, scores, image_labels)
    assert found.boxes.tolist() == boxes[[row for row, _ in expected]].tolist()
    assert found.labels.tolist() == [label for _, label in expected]
    torch.testing.assert_close(found.weights, torch.stack([scores[one] for one in expected]))


# K-means of scores.


@pytest.mark.parametrize(
    ("scores", "top"),
    [
        ([0.9, 0.1, 0.85, 0.5, 0.0, 0.45], [0, 2]),
        ([0.1, 0.1, 0.1, 0.7], [3]),
        ([0.3, 0.3], [0, 1]),
        ([0.2], [0]),
        ([0.0, 0.01, 0.02, 0.99, 1.0], [3, 4]),
        # Lloyd's algorithm from centres at 0, 0.5 and 1 stops at {0, 0.2}, {0.6, 0.7}, {0.8, 1} with a cost of 0.045;
        # {0, 0.2}, {0.6, 0.7, 0.8}, {1} has 0.04.
        ([0.0, 0.2, 0.6, 0.7, 0.8, 1.0], [5]),
    ],
)
def test_the_top_cluster_by_hand(scores: list[float], top: list[int]):
    assert torch.nonzero(top_cluster(torch.tensor(scores))).flatten().tolist() == top


def slow_top_cluster(scores: list[float]) -> list[bool]:
    """The best of all ways to cut the sorted scores into three intervals."""
    values = sorted(set(scores))
    if len(values) <= 3:
        return [score == max(scores) for score in scores]

    def cost(low: int, high: int) -> float:
        members = [score for score in scores if values[low] <= score <= values[high - 1]]
        return sum((score - sum(members) / len(members)) ** 2 for score in members)

    costs = {pair: cost(*pair) for pair in combinations(range(len(values) + 1), 2)}
    cuts = combinations(range(1, len(values)), 2)
    _, top = min((costs[0, one] + costs[one, two] + costs[two, len(values)], two) for one, two in cuts)
    return [score >= values[top] for score in scores]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31), st.sampled_from([0.3, 1, 3]))
def test_the_top_cluster_equals_a_slow_reference(number: int, seed: int, spread: float):
    scores = np.exp(np.random.default_rng(seed).normal(0, spread, number)).astype("f4")
    assert top_cluster(torch.from_numpy(scores)).tolist() == slow_top_cluster(scores.astype("f8").tolist())


def test_separate_clusters_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(10):
        scores = np.concatenate([rng.normal(place, 0.03, rng.integers(1, 40)) for place in (0.1, 0.5, 0.9)])
        reference = KMeans(3, n_init=5, random_state=0).fit(scores[:, None])
        expected = reference.labels_ == reference.cluster_centers_.argmax()
        assert top_cluster(torch.from_numpy(scores)).tolist() == expected.tolist()


# PCL.


def test_cluster_centres_by_hand():
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],
            [0, 0, 10, 12],  # IoU with the one above 0.83
            [0, 0, 10, 20],  # 0.5 and 0.6: all of the three have three edges, and the highest-scored is the centre
            [40, 0, 50, 10],  # alone
            [0, 0, 10, 11],  # near the first group, but of a low score
            [60, 0, 70, 10],  # between the low score and the others: the middle cluster
        ]
    )
    scores = torch.tensor([[0.85], [0.88], [0.86], [0.9], [0.1], [0.5]])
    found = mine_clusters(boxes, scores, torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[[3, 1]].tolist()
    torch.testing.assert_close(found.weights, torch.tensor([0.9, 0.88]))
    assert found.bags


def test_the_vertex_with_most_edges_is_the_centre_and_its_weight_that_of_its_best_neighbour():
    # IoU of neighbours 10/20 = 0.5, of the outer ones 0.2: the middle one has both.
    boxes = torch.tensor([[0.0, 0, 15, 1], [5, 0, 20, 1], [10, 0, 25, 1]])
    found = mine_clusters(boxes, torch.tensor([[0.9], [0.8], [0.85]]), torch.tensor([1.0]))
    # Three clusters of one score each: the top one holds the best alone.
    assert found.boxes.tolist() == boxes[:1].tolist()
    found = mine_clusters(boxes, torch.tensor([[0.9], [0.9], [0.9]]), torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[1:2].tolist()
    low = torch.tensor([[0.0, 50, 15, 51], [0, 60, 15, 61], [0, 70, 15, 71]])
    scores = torch.tensor([[0.9], [0.86], [0.88], [0.1], [0.11], [0.5]])
    found = mine_clusters(torch.cat([boxes, low]), scores, torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[1:2].tolist()
    torch.testing.assert_close(found.weights, torch.tensor([0.9]))


def slow_clusters(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> list[tuple[int, int, float]]:
    """Rows, classes and weights of PCL's centres, by loops over a dictionary of neighbours."""
    found: list[tuple[int, int, float]] = []
    for label, present in enumerate(image_labels.tolist()):
        if present != 1:
            continue
        free = [row for row in range(len(boxes)) if row not in {used for used, _, _ in found}]
        top = slow_top_cluster([scores[row, label].item() for row in free])
        vertices = {row for row, good in zip(free, top, strict=True) if good}
        own = []
        while vertices:
            near = {a: {b for b in vertices if a == b or overlap(boxes[a], boxes[b]) > 0.4} for a in vertices}
            centre = max(vertices, key=lambda row: (len(near[row]), scores[row, label].item()))
            own.append((centre, label, max(scores[row, label].item() for row in near[centre])))
            vertices -= near[centre]
        found += sorted(own, key=lambda one: -one[2])[:5]
    return found


@pytest.mark.parametrize("seed", range(12))
def test_clusters_equal_a_slow_reference(seed: int):
    torch.manual_seed(seed)
    boxes, scores = boxes_around_four_places(10 + 8 * seed, seed), torch.rand(10 + 8 * seed, 4)
    image_labels = torch.tensor([1.0, 0, 1, NAN])
    found, expected = mine_clusters(boxes, scores, image_labels), slow_clusters(boxes, scores, image_labels)
    assert found.boxes.tolist() == boxes[[row for row, _, _ in expected]].tolist()
    assert found.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(found.weights, torch.tensor([weight for _, _, weight in expected]))


def test_a_class_has_at_most_five_centres_those_of_highest_weight():
    corners = torch.arange(8.0)[:, None] * 20
    boxes = torch.cat([corners, corners, corners + 10, corners + 10], dim=1)
    good = 0.9 + torch.tensor([3.0, 1, 7, 5, 0, 2, 6, 4]) / 1000
    scores = torch.cat([good, torch.tensor([0.0, 0.0, 0.0, 0.4])])[:, None]
    found = mine_clusters(torch.cat([boxes, boxes[:4] + 300]), scores, torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[[2, 6, 3, 7, 0]].tolist()


def test_a_proposal_is_the_centre_of_one_class_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10]])
    scores = torch.tensor([[0.9, 0.9], [0.1, 0.2]])
    found = mine_clusters(boxes, scores, torch.tensor([1.0, 1]))
    assert (found.boxes.tolist(), found.labels.tolist()) == (boxes.tolist(), [0, 1])
    # Where no proposal is left, a class gets none.
    found = mine_clusters(boxes[:1], scores[:1], torch.tensor([1.0, 1]))
    assert found.labels.tolist() == [0]


# MIST.


def test_spread_pseudo_labels_by_hand():
    # Fifteen per cent of 20 are three; the fourth best, far from all, is no candidate.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10], [60, 0, 70, 10]] + [[0.0, 50, 9, 59]] * 16)
    scores = torch.tensor([0.5, 0.9, 0.8, 0.4] + [0.01] * 16)[:, None]
    found = mine_spread(boxes, scores, torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[[1, 2]].tolist()
    torch.testing.assert_close(found.weights, torch.tensor([0.9, 0.8]))


def slow_spread(
    boxes: Tensor, scores: Tensor, image_labels: Tensor, *, authors_code: bool = False
) -> list[tuple[int, int]]:
    """Rows and classes of MIST's pseudo labels.

    A proposal is compared with those kept of the ones that score higher, as in algorithm 1 of the paper, or with all of
    them, as in the authors' code.
    """
    found = []
    for label, present in enumerate(image_labels.tolist()):
        if present == 1:
            order = sorted(range(len(boxes)), key=lambda row: -scores[row, label].item())
            kept: list[int] = []
            candidates = order[: max(1, int(0.15 * len(boxes)))]
            for number, row in enumerate(candidates):
                others = candidates[:number] if authors_code else kept
                if all(overlap(boxes[row], boxes[other]) < 0.2 for other in others):
                    kept.append(row)
            found += [(row, label) for row in kept]
    return sorted(found, key=lambda one: -scores[one].item())


def test_spread_pseudo_labels_are_compared_with_those_kept():
    # Each overlaps the next by a third. The second is not kept, so the third is; the authors' code would drop it.
    chain = torch.tensor([[0.0, 0, 20, 10], [10, 0, 30, 10], [20, 0, 40, 10]])
    boxes = torch.cat([chain, torch.tensor([[0.0, 50, 9, 59]]).repeat(17, 1)])
    scores = torch.tensor([0.9, 0.8, 0.7] + [0.01] * 17)[:, None]
    assert mine_spread(boxes, scores, torch.tensor([1.0])).boxes.tolist() == boxes[[0, 2]].tolist()
    assert slow_spread(boxes, scores, torch.tensor([1.0])) == [(0, 0), (2, 0)]
    assert slow_spread(boxes, scores, torch.tensor([1.0]), authors_code=True) == [(0, 0)]


@pytest.mark.parametrize("seed", range(8))
def test_spread_pseudo_labels_equal_a_slow_reference(seed: int):
    torch.manual_seed(seed)
    number = (1, 5, 20, 40, 60, 80, 100, 120)[seed]
    boxes, scores = boxes_around_four_places(number, seed), torch.rand(number, 4)
    image_labels = torch.tensor([1.0, 0, 1, NAN])
    found, expected = mine_spread(boxes, scores, image_labels), slow_spread(boxes, scores, image_labels)
    assert found.boxes.tolist() == boxes[[row for row, _ in expected]].tolist()
    assert found.labels.tolist() == [label for _, label in expected]
    torch.testing.assert_close(found.weights, torch.stack([scores[one] for one in expected]))
    assert set(slow_spread(boxes, scores, image_labels, authors_code=True)) <= set(expected)


def test_of_two_classes_on_one_proposal_the_one_of_higher_weight_is_matched():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10]])
    scores = torch.tensor([[0.5, 0.9], [0.1, 0.2]])
    found = mine_spread(boxes, scores, torch.tensor([1.0, 1]))
    labels, weights, _ = match_proposals(boxes, found, 2, 0.1)
    assert (labels[0].item(), weights[0].item()) == (1, pytest.approx(0.9))


# All rules.


@pytest.mark.parametrize("name", MINING)
def test_absent_and_unsure_classes_are_not_mined_and_no_gradient_flows(name: str):
    mine, boxes = MINING.find(name), boxes_around_four_places(30, 0)
    scores = torch.rand(30, 3, requires_grad=True)
    for image_labels in (torch.zeros(3), torch.tensor([0, NAN, NAN])):
        found = mine(boxes, scores, image_labels)
        assert isinstance(found, PseudoLabels)
        assert found.boxes.shape == (0, 4) and found.labels.dtype == torch.int64 and found.weights.shape == (0,)
    found = mine(boxes, scores, torch.tensor([1.0, 1, 0]))
    assert set(found.labels.tolist()) == {0, 1}
    assert not found.weights.requires_grad and not found.boxes.requires_grad


def test_an_unknown_rule_is_named_with_those_that_there_are():
    with pytest.raises(BoxlessError, match=r"mining 'best' is unknown; there are top, clusters, spread"):
        MINING.find("best")
