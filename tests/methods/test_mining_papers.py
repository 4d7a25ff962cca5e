"""PCL's proposal clusters and MIST's spread seeds: hand-worked, and against loops written from the papers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from boxless.methods.mining import PseudoLabels, assign, mine_clusters, mine_spread, mine_top, top_cluster
from boxless.metrics import iou

NAN = float("nan")


def overlap(one: Tensor, other: Tensor) -> float:
    return float(iou(one[None].numpy(), other[None].numpy())[0, 0])


def crowd(number: int, seed: int) -> Tensor:
    """Boxes around four places."""
    rng = np.random.default_rng(seed)
    centres = np.array([[30, 30, 90, 80], [60, 40, 110, 100], [150, 20, 190, 70], [140, 100, 200, 150]])
    return torch.from_numpy((centres[rng.integers(4, size=number)] + rng.uniform(-12, 12, (number, 4))).astype("f4"))


# K-means of scores.


@pytest.mark.parametrize(
    ("scores", "top"),
    [
        ([0.9, 0.1, 0.85, 0.5, 0.0, 0.45], [0, 2]),
        ([0.1, 0.1, 0.1, 0.7], [3]),
        ([0.3, 0.3], [0, 1]),
        ([0.2], [0]),
        # The middle centre begins without a member, at 0.5, and stays there.
        ([0.0, 0.01, 0.02, 0.99, 1.0], [3, 4]),
    ],
)
def test_the_top_cluster_by_hand(scores: list[float], top: list[int]):
    assert torch.nonzero(top_cluster(torch.tensor(scores))).flatten().tolist() == top


def literal_top(scores: list[float]) -> list[bool]:
    """Lloyd's algorithm word by word."""
    low, high = min(scores), max(scores)
    centres, previous = [low, low + (high - low) / 2, high], None
    while True:
        nearest = [min(range(3), key=lambda row, score=score: abs(score - centres[row])) for score in scores]
        if nearest == previous:
            return [row == nearest[scores.index(high)] for row in nearest]
        previous = nearest
        for row in range(3):
            members = [score for score, own in zip(scores, nearest, strict=True) if own == row]
            centres[row] = sum(members) / len(members) if members else centres[row]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31), st.sampled_from([0.3, 1, 3]))
def test_the_top_cluster_equals_a_literal_loop(number: int, seed: int, spread: float):
    scores = np.exp(np.random.default_rng(seed).normal(0, spread, number)).astype("f4")
    assert top_cluster(torch.from_numpy(scores)).tolist() == literal_top(scores.astype("f8").tolist())


def test_clusters_that_stand_apart_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(10):
        scores = np.concatenate([rng.normal(place, 0.03, rng.integers(1, 40)) for place in (0.1, 0.5, 0.9)])
        theirs = KMeans(3, n_init=5, random_state=0).fit(scores[:, None])
        wanted = theirs.labels_ == theirs.cluster_centers_.argmax()
        assert top_cluster(torch.from_numpy(scores)).tolist() == wanted.tolist()


# PCL.


def test_hand_worked_centres():
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],
            [0, 0, 10, 12],  # IoU with the one above 0.83
            [0, 0, 10, 20],  # 0.5 and 0.6: three edges for all of the three, the best of them leads
            [40, 0, 50, 10],  # alone
            [0, 0, 10, 11],  # would be in the first group, but scores low
        ]
    )
    scores = torch.tensor([[0.7], [0.8], [0.75], [0.9], [0.1]])
    found = mine_clusters(boxes, scores, torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[[3, 1]].tolist()
    torch.testing.assert_close(found.weights, torch.tensor([0.9, 0.8]))


def test_the_vertex_with_most_edges_leads_and_is_trusted_as_its_best_neighbour():
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


def literal_clusters(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> list[tuple[int, int, float]]:
    """Rows, classes and confidences of PCL's centres, by loops over a dictionary of neighbours."""
    found: list[tuple[int, int, float]] = []
    for label, present in enumerate(image_labels.tolist()):
        if present != 1:
            continue
        free = [row for row in range(len(boxes)) if row not in {used for used, _, _ in found}]
        top = literal_top([scores[row, label].item() for row in free])
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
def test_clusters_equal_a_literal_loop(seed: int):
    torch.manual_seed(seed)
    boxes, scores = crowd(10 + 8 * seed, seed), torch.rand(10 + 8 * seed, 4)
    image_labels = torch.tensor([1.0, 0, 1, NAN])
    found, wanted = mine_clusters(boxes, scores, image_labels), literal_clusters(boxes, scores, image_labels)
    assert found.boxes.tolist() == boxes[[row for row, _, _ in wanted]].tolist()
    assert found.labels.tolist() == [label for _, label, _ in wanted]
    torch.testing.assert_close(found.weights, torch.tensor([trust for _, _, trust in wanted]))


def test_a_class_has_at_most_five_centres_and_they_are_the_most_trusted():
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
    # With nothing left a class goes without.
    found = mine_clusters(boxes[:1], scores[:1], torch.tensor([1.0, 1]))
    assert found.labels.tolist() == [0]


# MIST.


def test_hand_worked_spread_seeds():
    # Fifteen per cent of 20 are three; the fourth best, far from all, is not asked.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10], [60, 0, 70, 10]] + [[0.0, 50, 9, 59]] * 16)
    scores = torch.tensor([0.5, 0.9, 0.8, 0.4] + [0.01] * 16)[:, None]
    found = mine_spread(boxes, scores, torch.tensor([1.0]))
    assert found.boxes.tolist() == boxes[[1, 2]].tolist()
    torch.testing.assert_close(found.weights, torch.tensor([0.9, 0.8]))


def literal_spread(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> list[tuple[int, int]]:
    """Rows and classes of MIST's seeds, algorithm 1 word by word."""
    found = []
    for label, present in enumerate(image_labels.tolist()):
        if present == 1:
            order = sorted(range(len(boxes)), key=lambda row: -scores[row, label].item())
            kept: list[int] = []
            for row in order[: int(np.ceil(0.15 * len(boxes)))]:
                if all(overlap(boxes[row], boxes[other]) < 0.2 for other in kept):
                    kept.append(row)
            found += [(row, label) for row in kept]
    return sorted(found, key=lambda one: -scores[one].item())


@pytest.mark.parametrize("seed", range(8))
def test_spread_seeds_equal_a_literal_loop(seed: int):
    torch.manual_seed(seed)
    number = (1, 5, 20, 40, 60, 80, 100, 120)[seed]
    boxes, scores, image_labels = crowd(number, seed), torch.rand(number, 4), torch.tensor([1.0, 0, 1, NAN])
    found, wanted = mine_spread(boxes, scores, image_labels), literal_spread(boxes, scores, image_labels)
    assert found.boxes.tolist() == boxes[[row for row, _ in wanted]].tolist()
    assert found.labels.tolist() == [label for _, label in wanted]
    torch.testing.assert_close(found.weights, torch.stack([scores[one] for one in wanted]))


def test_of_two_classes_on_one_proposal_the_surer_takes_it():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10]])
    scores = torch.tensor([[0.5, 0.9], [0.1, 0.2]])
    found = mine_spread(boxes, scores, torch.tensor([1.0, 1]))
    labels, weights, _ = assign(boxes, found, 2, 0.1)
    assert (labels[0].item(), weights[0].item()) == (1, pytest.approx(0.9))


# All of them.


@pytest.mark.parametrize("mine", [mine_clusters, mine_spread, mine_top])
def test_nothing_present_nothing_mined_and_no_gradient(mine):
    boxes, scores = crowd(30, 0), torch.rand(30, 3, requires_grad=True)
    for image_labels in (torch.zeros(3), torch.tensor([0, NAN, NAN])):
        found = mine(boxes, scores, image_labels)
        assert isinstance(found, PseudoLabels)
        assert found.boxes.shape == (0, 4) and found.labels.dtype == torch.int64 and found.weights.shape == (0,)
    found = mine(boxes, scores, torch.tensor([1.0, 1, 0]))
    assert set(found.labels.tolist()) == {0, 1}
    assert not found.weights.requires_grad
