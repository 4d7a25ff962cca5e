from typing import Any

import pytest
import torch
from heatmap_models import (
    assert_independent_of_the_batch,
    backbone_of,
    convolved,
    item,
    loss,
    outputs,
    with_large_weights,
)
from torch import nn

from boxless.features import collate
from boxless.methods import Oquab, OquabConfig
from boxless.methods.losses import image_label_loss
from boxless.methods.oquab import log_sum_exp


def make(**settings: Any) -> Oquab:
    config = OquabConfig(**({"hidden": ()} | settings))
    return with_large_weights(Oquab(backbone_of(4), nn.Sequential(), config, 3))


def test_max_pooling_takes_the_best_location():
    model, row = make(), item(80, 60)
    (layer,) = model.head
    (found,) = outputs(model, row)
    best = convolved(layer, row.map).flatten(1).max(dim=1).values
    torch.testing.assert_close(found.image_scores, best.sigmoid())
    # The gradient reaches the best location alone.
    batch = collate([row])
    batch.maps.requires_grad_()
    loss(model, batch).backward()
    assert batch.maps.grad is not None
    places = {divmod(place, 5) for place in convolved(layer, row.map).flatten(1).argmax(dim=1).tolist()}
    assert {(y, x) for y, x in batch.maps.grad[0].any(dim=0).nonzero().tolist()} == places


def test_log_sum_exp_lies_between_mean_and_maximum():
    # exp(ln 9), exp(ln 1), exp(ln 1), exp(ln 5): their mean is 4.
    maps = torch.tensor([[[9.0, 1.0], [1.0, 5.0]], [[0.5, 0.5], [0.5, 0.5]]]).log()
    torch.testing.assert_close(log_sum_exp(maps, 1.0), torch.tensor([4.0, 0.5]).log())
    # Squares: (81 + 1 + 1 + 25) / 4 = 27.
    torch.testing.assert_close(log_sum_exp(maps, 2.0)[0], torch.tensor(27.0).log() / 2)
    torch.testing.assert_close(log_sum_exp(maps, 1e-3), maps.mean(dim=(1, 2)), atol=2e-3, rtol=0)
    torch.testing.assert_close(log_sum_exp(maps, 1e4), maps.amax(dim=(1, 2)), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("progress", "sharpness"), [(0.0, 0.5), (0.5, 2.0), (1.0, 8.0)])
def test_training_sharpens_to_the_maximum_that_inference_takes(progress: float, sharpness: float):
    model = make(sharpness=(0.5, 8))
    model.progress = progress
    (layer,) = model.head
    # Two sizes: padding has no part in it.
    rows = [item(80, 60), item(33, 20)]
    logits = [convolved(layer, row.map) for row in rows]
    batch = collate(rows)
    assert batch.image_labels is not None
    pooled = torch.stack([(row * sharpness).exp().mean(dim=(1, 2)).log() / sharpness for row in logits])
    torch.testing.assert_close(loss(model, batch), image_label_loss(pooled, batch.image_labels, logits=True))
    best = torch.stack([row.amax(dim=(1, 2)) for row in logits])
    torch.testing.assert_close(torch.stack([found.image_scores for found in outputs(model, *rows)]), best.sigmoid())


def test_hidden_layers_are_a_convolution_and_then_single_cells():
    model, row = make(hidden=(6, 5), kernel=3), item(80, 60)
    first, second, last = (layer for layer in model.head if isinstance(layer, nn.Conv2d))
    assert (first.kernel_size, second.kernel_size, last.kernel_size) == ((3, 3), (1, 1), (1, 1))
    padded = nn.functional.pad(row.map, (1, 1, 1, 1))
    around = padded.unfold(1, 3, 1).unfold(2, 3, 1)
    hidden = torch.einsum("ocij,chwij->ohw", first.weight, around) + first.bias[:, None, None]
    logits = convolved(last, convolved(second, hidden.relu()).relu())
    (found,) = outputs(model, row)
    torch.testing.assert_close(found.image_scores, logits.amax(dim=(1, 2)).sigmoid())
    torch.testing.assert_close(found.maps, logits - last.bias[:, None, None])


def test_dropout_comes_before_every_layer_but_the_first():
    head = make(hidden=(6, 5), kernel=3, dropout=0.5).head
    assert [type(layer).__name__ for layer in head] == [
        *("Conv2d", "ReLU", "Dropout", "Conv2d", "ReLU", "Dropout", "Conv2d")
    ]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("whole_cells", [False, True], ids=["all-cells", "whole-cells"])
@pytest.mark.parametrize("settings", [{}, {"hidden": (6, 5), "kernel": 3, "dropout": 0.5}], ids=["linear", "hidden"])
def test_outputs_do_not_depend_on_the_batch(settings: dict[str, Any], whole_cells: bool):
    model = make(**settings)
    assert not model.needs_averages_only
    assert_independent_of_the_batch(model, whole_cells=whole_cells)


def test_the_threshold_is_that_of_the_settings_or_the_default():
    assert make().threshold.item() == pytest.approx(0.1)
    assert make(threshold=0.33).threshold.item() == pytest.approx(0.33)
