import math

import numpy as np
import pytest
import torch
from torch import Tensor

from boxless.methods.losses import (
    box_loss,
    cluster_loss,
    image_label_loss,
    negative_label_loss,
    refinement_loss,
    spatial_regulariser,
    with_unknown,
)
from boxless.metrics import iou

NAN = float("nan")


# Image labels.


def test_the_image_label_loss_is_summed_over_classes_and_averaged_over_images():
    scores = torch.tensor([[0.8, 0.1, 0.5], [0.25, 0.9, 0.6]])
    image_labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    expected = -sum(map(math.log, (0.8, 0.9, 0.5, 0.75, 0.9, 0.4))) / 2
    assert image_label_loss(scores, image_labels, logits=False).item() == pytest.approx(expected, rel=1e-5)
    assert image_label_loss(scores.logit(), image_labels, logits=True).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("logits", [True, False])
def test_unsure_entries_have_no_part_in_the_loss(logits: bool):
    scores = torch.tensor([[0.8, 0.1, 0.5], [0.25, 0.9, 0.6]])
    image_labels = torch.tensor([[1.0, NAN, NAN], [NAN, 1, 0]])
    given = (scores.logit() if logits else scores).requires_grad_()
    loss = image_label_loss(given, image_labels, logits=logits)
    # The sum is still divided by the number of images.
    assert loss.item() == pytest.approx(-sum(map(math.log, (0.8, 0.9, 0.4))) / 2, rel=1e-5)
    loss.backward()
    assert given.grad is not None
    assert (given.grad == 0).tolist() == image_labels.isnan().tolist()


@pytest.mark.parametrize("logits", [True, False])
def test_the_loss_of_a_batch_without_sure_entries_is_zero(logits: bool):
    assert image_label_loss(torch.rand(2, 3), torch.full((2, 3), NAN), logits=logits).item() == 0


def test_sums_of_scores_beyond_the_ends_stay_finite():
    # Sums of softmaxes may exceed one by a rounding error, and be zero.
    scores = torch.tensor([[1 + 1e-6, 1 + 1e-6, 0.0, 0.0]], requires_grad=True)
    loss = image_label_loss(scores, torch.tensor([[1.0, 0, 1, 0]]), logits=False)
    assert torch.isfinite(loss)
    assert loss > 20
    loss.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_the_gradient_of_a_score_is_that_of_its_logarithm():
    scores = torch.tensor([[0.2, 0.2]], requires_grad=True)
    image_label_loss(scores, torch.tensor([[1.0, 0]]), logits=False).backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[-1 / 0.2, 1 / 0.8]]))


# Negative labels.


def test_the_negative_label_loss_by_hand():
    # Probabilities of 1/10, 2/10, 3/10 and 4/10, whatever is added to all logits.
    logits = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]]).log() + torch.tensor([[0.0], [5.0]])
    absent = torch.tensor([[True, False, True], [False, False, False]])
    expected = (-math.log(1 - 0.1 - 0.3) - math.log(1)) / 2
    assert negative_label_loss(logits, absent).item() == pytest.approx(expected, rel=1e-5)
    assert negative_label_loss(logits[:0], absent[:0]).item() == 0


def test_the_gradient_of_a_negative_label_does_not_vanish_where_its_class_is_certain():
    logits = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    loss = negative_label_loss(logits, torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == pytest.approx(200 - math.log(2))
    assert logits.grad is not None and torch.allclose(logits.grad, torch.tensor([[1.0, -0.5, -0.5]]))


# The spatial regulariser.


def slow_regulariser(features: Tensor, scores: Tensor, boxes: Tensor, image_labels: Tensor) -> float:
    """From section 3.4 of WSDDN."""
    total = 0.0
    for label, present in enumerate(image_labels.tolist()):
        if present != 1:
            continue
        order = sorted(range(len(boxes)), key=lambda row: -scores[row, label].item())
        best = order[0]
        for row in order[:10]:
            if iou(boxes[best : best + 1].numpy(), boxes[row : row + 1].numpy())[0, 0] > 0.6:
                distance = float(((features[row] - features[best]) ** 2).sum())
                total += 0.5 * scores[row, label].item() ** 2 * distance
    return total


def boxes_around_one_place(number: int, seed: int) -> Tensor:
    """Half of them are close together."""
    rng = np.random.default_rng(seed)
    stray = rng.uniform(-1, 1, (number, 4)) * np.where(np.arange(number)[:, None] % 2, 3, 20)
    return torch.from_numpy((np.array([30, 30, 80, 80]) + stray).astype(np.float32))


@pytest.mark.parametrize("number", [1, 4, 10, 40])
def test_the_regulariser_equals_a_slow_reference(number: int):
    torch.manual_seed(number)
    features, scores, boxes = torch.randn(number, 5), torch.rand(number, 4), boxes_around_one_place(number, number)
    image_labels = torch.tensor([1.0, 0, NAN, 1])
    loss = spatial_regulariser(features, scores, boxes, image_labels).item()
    assert loss == pytest.approx(slow_regulariser(features, scores, boxes, image_labels), rel=1e-4)
    assert (loss > 0) == (number > 1)


def test_the_regulariser_by_hand():
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],  # the best
            [0, 0, 10, 8],  # IoU 0.8
            [0, 0, 10, 6],  # IoU 0.6, which is not over 0.6
            [50, 50, 60, 60],  # far away
        ]
    )
    features = torch.tensor([[0.0, 0], [3, 4], [7, 7], [9, 9]])
    scores = torch.tensor([[0.5], [0.2], [0.2], [0.2]])
    loss = spatial_regulariser(features, scores, boxes, torch.tensor([1.0]))
    assert loss.item() == pytest.approx(0.5 * 0.2**2 * 25)


def test_only_the_ten_best_proposals_count():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(12, 1)
    features = torch.arange(12.0)[:, None]
    scores = torch.linspace(0.9, 0.35, 12)[:, None]
    loss = spatial_regulariser(features, scores, boxes, torch.tensor([1.0]))
    expected = sum(0.5 * scores[row].item() ** 2 * row**2 for row in range(10))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_scores_weight_the_regulariser_and_get_no_gradient():
    torch.manual_seed(0)
    features, scores = torch.randn(8, 5, requires_grad=True), torch.rand(8, 2, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(8, 1)
    spatial_regulariser(features, scores, boxes, torch.tensor([1.0, 0])).backward()
    assert features.grad is not None
    assert features.grad.any()
    assert scores.grad is None


def test_an_image_without_a_tag_is_not_regularised():
    loss = spatial_regulariser(
        torch.randn(8, 5), torch.rand(8, 2), boxes_around_one_place(8, 0), torch.tensor([0.0, NAN])
    )
    assert loss.item() == 0


# Proposals and boxes.


def test_refinement_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = refinement_loss(logits, torch.tensor([1, 0]), torch.tensor([0.5, 1.0]))
    assert loss.item() == pytest.approx((0.5 * math.log(4 / 3) + math.log(2)) / 2)


def test_losses_without_proposals_are_zero():
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = refinement_loss(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss = loss + box_loss(logits[:, :0].reshape(0, 4), torch.zeros(0, 4), torch.zeros(0), 0)
    loss.backward()
    assert loss.item() == 0


def test_cluster_loss_by_hand():
    # Two members of one cluster, of probabilities 3/4 and 1/4, 1/2 on the mean.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)], [0.0, 0.0]], requires_grad=True)
    loss = cluster_loss(logits, torch.tensor([0, 0, 1]), torch.tensor([0.6, 0.6, 0.2]), torch.tensor([0, 0, 0]))
    assert loss.item() == pytest.approx((2 * 0.6 * math.log(2) + 0.2 * math.log(2)) / 3)
    loss.backward()
    # d/dp of the bag is weight / sum of p; through the softmax that is p (1 - p).
    assert logits.grad is not None
    assert logits.grad[0, 0].item() == pytest.approx(-1.2 / 1.0 * 0.75 * 0.25 / 3)
    alone = cluster_loss(logits[2:], torch.tensor([1]), torch.ones(1), torch.tensor([0]))
    assert alone.item() == pytest.approx(math.log(2))


def test_cluster_loss_equals_a_slow_reference():
    torch.manual_seed(0)
    logits, weights = torch.randn(40, 4), torch.rand(40)
    nearest = torch.randint(5, (40,))
    labels = torch.where(torch.rand(40) < 0.6, torch.tensor([2, 0, 2, 1, 1])[nearest], 3)
    total, probabilities = 0.0, logits.softmax(dim=1).tolist()
    for cluster, label in enumerate((2, 0, 2, 1, 1)):
        members = [row for row in range(40) if labels[row] == label and nearest[row] == cluster]
        mean = sum(probabilities[row][label] for row in members) / len(members)
        total -= sum(weights[row].item() for row in members) * math.log(mean)
    total -= sum(weights[row].item() * math.log(probabilities[row][3]) for row in range(40) if labels[row] == 3)
    assert cluster_loss(logits, labels, weights, nearest).item() == pytest.approx(total / 40, rel=1e-5)


def test_box_loss_by_hand():
    predicted, deltas = torch.tensor([[0.0, 0.5, 0, 3.0]]), torch.zeros(1, 4)
    # Smooth L1: half a square below one, one less a half from there on.
    assert box_loss(predicted, deltas, torch.tensor([0.5]), 10).item() == pytest.approx(0.5 * (0.125 + 2.5) / 10)
    assert box_loss(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0), 10).item() == 0


# Unknown tags.


def test_background_may_be_an_object_of_an_unknown_class():
    logits = torch.tensor([[0.3, 1.0, -0.5, 0.2], [0.3, 1.0, -0.5, 0.2], [0.0, 2.0, 1.0, -1.0]], requires_grad=True)
    # Background, an object of the first class, background of an image whose tags are known.
    labels = torch.tensor([3, 0, 3])
    unknown = torch.tensor([[False, True, True], [False, True, False], [False, False, False]])
    found = refinement_loss(with_unknown(logits, labels, unknown), labels, torch.ones(3))
    first, second, third = logits.detach().double().softmax(dim=1)
    expected = -((first[1] + first[2] + first[3]).log() + second[0].log() + third[3].log()) / 3
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    # The background takes nothing from the unknown classes: only the known one is pushed down.
    assert logits.grad[0, 0] > 0 and (logits.grad[0, 1:] < 0).all()


def test_without_unknown_classes_logits_are_the_same():
    logits = torch.randn(4, 3)
    assert with_unknown(logits, torch.tensor([0, 1, 2, 2]), torch.zeros(4, 2, dtype=torch.bool)) is logits
