import math

import numpy as np
import pytest
import torch
from torch import Tensor

from boxless.methods.losses import image_label_loss, negative_label_loss, spatial_regulariser
from boxless.metrics import iou

NAN = float("nan")


# Tags.


def test_the_tag_loss_is_summed_over_classes_and_averaged_over_images():
    scores = torch.tensor([[0.8, 0.1, 0.5], [0.25, 0.9, 0.6]])
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    wanted = -sum(map(math.log, (0.8, 0.9, 0.5, 0.75, 0.9, 0.4))) / 2
    assert image_label_loss(scores, targets, logits=False).item() == pytest.approx(wanted, rel=1e-5)
    assert image_label_loss(scores.logit(), targets, logits=True).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("logits", [True, False])
def test_unsure_entries_have_no_part_in_the_loss(logits: bool):
    scores = torch.tensor([[0.8, 0.1, 0.5], [0.25, 0.9, 0.6]])
    targets = torch.tensor([[1.0, NAN, NAN], [NAN, 1, 0]])
    given = (scores.logit() if logits else scores).requires_grad_()
    loss = image_label_loss(given, targets, logits=logits)
    # Divided by the images all the same.
    assert loss.item() == pytest.approx(-sum(map(math.log, (0.8, 0.9, 0.4))) / 2, rel=1e-5)
    loss.backward()
    assert given.grad is not None
    assert (given.grad == 0).tolist() == targets.isnan().tolist()


@pytest.mark.parametrize("logits", [True, False])
def test_a_batch_of_which_nothing_is_sure_costs_nothing(logits: bool):
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


# Classes that an image does not have.


def test_the_absence_loss_by_hand():
    # Probabilities of 1/10, 2/10, 3/10 and 4/10, whatever is added to all logits.
    logits = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]]).log() + torch.tensor([[0.0], [5.0]])
    absent = torch.tensor([[True, False, True], [False, False, False]])
    wanted = (-math.log(1 - 0.1 - 0.3) - math.log(1)) / 2
    assert negative_label_loss(logits, absent).item() == pytest.approx(wanted, rel=1e-5)
    assert negative_label_loss(logits[:0], absent[:0]).item() == 0


def test_a_class_that_is_absent_but_certain_can_still_be_unlearned():
    logits = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    loss = negative_label_loss(logits, torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == pytest.approx(200 - math.log(2))
    assert logits.grad is not None and torch.allclose(logits.grad, torch.tensor([[1.0, -0.5, -0.5]]))


# The spatial regulariser.


def literal(features: Tensor, scores: Tensor, boxes: Tensor, image_labels: Tensor) -> float:
    """Section 3.4 of WSDDN word by word."""
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


def crowd(number: int, seed: int) -> Tensor:
    """Boxes around one place, half of them close together."""
    rng = np.random.default_rng(seed)
    stray = rng.uniform(-1, 1, (number, 4)) * np.where(np.arange(number)[:, None] % 2, 3, 20)
    return torch.from_numpy((np.array([30, 30, 80, 80]) + stray).astype(np.float32))


@pytest.mark.parametrize("number", [1, 4, 10, 40])
def test_the_regulariser_equals_a_literal_loop(number: int):
    torch.manual_seed(number)
    features, scores, boxes = torch.randn(number, 5), torch.rand(number, 4), crowd(number, number)
    image_labels = torch.tensor([1.0, 0, NAN, 1])
    loss = spatial_regulariser(features, scores, boxes, image_labels).item()
    assert loss == pytest.approx(literal(features, scores, boxes, image_labels), rel=1e-4)
    assert (loss > 0) == (number > 1)


def test_a_hand_worked_regulariser():
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],  # the best
            [0, 0, 10, 8],  # IoU 0.8
            [0, 0, 10, 6],  # IoU 0.6, which is not over 0.6
            [50, 50, 60, 60],  # elsewhere
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
    wanted = sum(0.5 * scores[row].item() ** 2 * row**2 for row in range(10))
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


def test_scores_weigh_and_are_not_pulled():
    torch.manual_seed(0)
    features, scores = torch.randn(8, 5, requires_grad=True), torch.rand(8, 2, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(8, 1)
    spatial_regulariser(features, scores, boxes, torch.tensor([1.0, 0])).backward()
    assert features.grad is not None
    assert features.grad.any()
    assert scores.grad is None


def test_a_image_without_a_tag_is_not_regularised():
    loss = spatial_regulariser(torch.randn(8, 5), torch.rand(8, 2), crowd(8, 0), torch.tensor([0.0, NAN]))
    assert loss.item() == 0
