import pytest
import torch
from heatmap_models import assert_independent_of_the_batch, backbone_of, item, loss, outputs, with_large_weights
from torch import nn

from boxless.features import Item, collate
from boxless.methods import CAM, CAMConfig
from boxless.methods.losses import image_label_loss


def make(tail: nn.Sequential | None = None, channels: int = 4) -> CAM:
    return with_large_weights(CAM(backbone_of(channels), tail or nn.Sequential(), CAMConfig(), 3))


def with_objectness() -> CAM:
    """A CAM over a last map of four channels, with objectness over an early one of two behind it."""
    torch.manual_seed(0)
    config = CAMConfig(objectness=True)
    model = CAM(backbone_of(4, levels=(0,)), nn.Sequential(), config, 3).eval()
    assert model.local is not None
    nn.init.normal_(model.local.cells.weight)
    return model


def test_scores_are_those_of_a_linear_classifier_on_averaged_features():
    model, row = make(), item(50, 40)
    (layer,) = model.head
    (found,) = outputs(model, row)
    logits = layer.weight[:, :, 0, 0] @ row.map.mean(dim=(1, 2)) + layer.bias
    torch.testing.assert_close(found.image_scores, logits.sigmoid())
    assert found.proposal_scores is None


def test_maps_are_class_activation_maps_without_bias():
    model, row = make(), item(50, 40)
    (layer,) = model.head
    (found,) = outputs(model, row)
    assert found.maps is not None
    assert found.maps.shape == (3, 3, 4)
    expected = torch.einsum("oc,chw->ohw", layer.weight[:, :, 0, 0], row.map)
    torch.testing.assert_close(found.maps, expected)
    # Averaged and with the bias, they are the classifier's logits.
    torch.testing.assert_close((found.maps.mean(dim=(1, 2)) + layer.bias).sigmoid(), found.image_scores)


def test_the_loss_is_that_of_the_image_labels():
    model, rows = make(), [item(50, 40), item(90, 30, (0, float("nan"), 1))]
    logits = torch.stack([found.image_scores.logit() for found in outputs(model, *rows)])
    batch = collate(rows)
    assert batch.image_labels is not None
    expected = image_label_loss(logits, batch.image_labels, logits=True)
    torch.testing.assert_close(loss(model, batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whole_cells", [False, True], ids=["all-cells", "whole-cells"])
def test_outputs_do_not_depend_on_the_batch(whole_cells: bool):
    assert_independent_of_the_batch(make(), whole_cells=whole_cells)


def test_averaged_maps_give_the_same_loss():
    model, rows = make(), [item(50, 40), item(90, 30, (0, float("nan"), 1))]
    assert model.needs_averages_only
    averaged = [Item(row.map.mean(dim=(1, 2), keepdim=True), (1, 1), None, row.image_labels) for row in rows]
    torch.testing.assert_close(loss(model, collate(averaged)), loss(model, collate(rows)))
    assert not make(nn.Sequential(nn.Conv2d(4, 4, 1))).needs_averages_only


def test_the_tail_is_run_and_trained():
    model, row = make(nn.Sequential(nn.Conv2d(4, 7, 1), nn.ReLU()), channels=7), item(64, 48)
    (found,) = outputs(model, row)
    with torch.inference_mode():
        (expected,) = outputs(make(channels=7), Item(model.tail(row.map), row.size))
    torch.testing.assert_close(found.image_scores, expected.image_scores)
    loss(model, collate([row])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


# Objectness.


def test_classes_are_scored_on_the_last_map_and_objectness_on_the_early_one():
    model = with_objectness()
    model.threshold.fill_(0.1)
    # Channels of the last map, of the early one, and of a level that objectness does not read.
    maps = torch.randn(4 + 2 + 3, 3, 5)
    larger = Item(torch.randn(9, 6, 7), (90, 100))
    (alone,), in_batch = outputs(model, Item(maps, (40, 70))), outputs(model, larger, Item(maps, (40, 70)))[1]
    plain = make()
    plain.head.load_state_dict(model.head.state_dict())
    (expected,) = outputs(plain, Item(maps[:4], (40, 70)))
    assert model.objectness is not None and model.local is not None
    with torch.inference_mode():
        torch.testing.assert_close(alone.objectness, model.objectness(maps[4:6]))
        local = model.local.pool(model.local(maps[4:6]))
    # The logits are the mean of those of the CAM and of the local CAM.
    torch.testing.assert_close(alone.image_scores, ((expected.image_scores.logit() + local) / 2).sigmoid())
    torch.testing.assert_close(in_batch.image_scores, alone.image_scores)
    # The average over neighbours includes no padding of the batch.
    torch.testing.assert_close(in_batch.objectness, alone.objectness)
    torch.testing.assert_close(alone.maps, expected.maps)
    assert expected.objectness is None


def test_objectness_that_is_not_fitted_yet_is_not_output():
    model, row = with_objectness(), Item(torch.randn(6, 3, 5), (40, 70))
    assert outputs(model, row)[0].objectness is None
    model.threshold.fill_(0.3)
    assert outputs(model, row)[0].objectness is not None
