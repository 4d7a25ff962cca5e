"""WSDDN's two streams and the detector around them, against the papers' equations."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import roi_pool

from boxless.backbones import Backbone
from boxless.errors import BoxlessError
from boxless.features import Batch, Item, collate
from boxless.methods import MILConfig, MILDetector, ViewOutput, mil
from boxless.methods.losses import image_label_loss, spatial_regulariser
from boxless.methods.mil import MILHead
from boxless.methods.refinement import RefinementConfig
from boxless.methods.roi_pooling import context_regions, mask_region, roi_average_pool

PLAIN = MILConfig(hidden=(16,))
CONTRAST = MILConfig(hidden=(16,), contrast=True)
AVERAGE = MILConfig(unit_rms=True, pool=1, hidden=(), contrast=True)
DEEPER = MILConfig(hidden=(16, 12))
OICR = MILConfig(hidden=(16,), refinement=RefinementConfig())
REGRESSION = MILConfig(hidden=(16,), refinement=RefinementConfig(box_regression=True))
ALL = {
    "plain": PLAIN,
    "contrast": CONTRAST,
    "average": AVERAGE,
    "deeper": DEEPER,
    "oicr": OICR,
    "regression": REGRESSION,
}


# The two streams.


def softmax(logits: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


def linear(layer: nn.Linear, features: Tensor) -> NDArray[np.float64]:
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return np.asarray(features.numpy().astype(np.float64) @ layer.weight.detach().numpy().T + bias)


@pytest.fixture
def head() -> MILHead:
    """A head with weights that are far from zero."""
    torch.manual_seed(0)
    head = MILHead(6, 3, 2.0)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def test_scores_are_the_product_of_two_softmaxes(head: MILHead):
    regions = torch.randn(9, 6)
    scores = head(regions, None, [4, 5])
    assert [view.shape for view in scores] == [(4, 3), (5, 3)]
    for view, rows in zip(scores, (slice(0, 4), slice(4, 9)), strict=True):
        which_class = softmax(linear(head.classify, regions[rows]), axis=1)
        which_region = softmax(linear(head.detect, regions[rows]) / 2, axis=0)
        np.testing.assert_allclose(view.detach().numpy(), which_class * which_region, rtol=1e-5)
        assert (view.sum(dim=0) <= 1 + 1e-6).all()
        assert (view > 0).all()


def test_the_classification_stream_compares_classes_and_the_detection_stream_proposals(head: MILHead):
    regions = torch.randn(4, 6)
    before = head(regions, None, [4])[0]
    with torch.no_grad():
        head.classify.weight.zero_()
        head.classify.bias.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
    # Classes are 1/8, 2/8 and 5/8 for each proposal; the rest is the share of each proposal in its class.
    shares = head(regions, None, [4])[0] / torch.tensor([1 / 8, 2 / 8, 5 / 8])
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(3))
    with torch.no_grad():
        head.detect.weight.zero_()
    flat = head(regions, None, [4])[0]
    torch.testing.assert_close(flat, torch.tensor([[1 / 8, 2 / 8, 5 / 8]]).repeat(4, 1) / 4)
    assert not torch.allclose(before, flat)


def test_views_are_scored_independently(head: MILHead):
    regions = torch.randn(9, 6)
    together = head(regions, None, [4, 5])
    torch.testing.assert_close(together[0], head(regions[:4], None, [4])[0])
    torch.testing.assert_close(together[1], head(regions[4:], None, [5])[0])


def test_the_context_is_subtracted_in_the_detection_stream_alone(head: MILHead):
    regions, context = torch.randn(5, 6), torch.randn(5, 6)
    (scores,) = head(regions, context, [5])
    which_class = softmax(linear(head.classify, regions), axis=1)
    contrast = linear(head.detect, regions) - linear(head.detect, context)
    np.testing.assert_allclose(scores.detach().numpy(), which_class * softmax(contrast / 2, axis=0), rtol=1e-5)
    # Where regions equal their context, all proposals score alike.
    (alike,) = head(regions, regions, [5])
    np.testing.assert_allclose(alike.detach().numpy(), which_class / 5, rtol=1e-5)


def test_the_temperature_divides_the_detection_logits(head: MILHead):
    regions = torch.randn(5, 6)
    (expected,) = head(regions, None, [5])
    with torch.no_grad():
        head.detect.weight *= 2
    head.temperature = 4.0
    torch.testing.assert_close(head(regions, None, [5])[0], expected)


@pytest.mark.parametrize("deviation", [0.01, 0.001])
def test_new_layers_are_small(deviation: float):
    torch.manual_seed(0)
    config = MILConfig(hidden=(512,), deviation=deviation, refinement=RefinementConfig())
    model = MILDetector(backbone(), nn.Sequential(), config, 20)
    assert model.refinement is not None and MILConfig().deviation == 0.01
    for layer in (model.head.classify, model.head.detect, model.refinement.stages[0]):
        assert 0.9 * deviation < layer.get_parameter("weight").std() < 1.1 * deviation
        assert layer is model.head.detect or not layer.get_parameter("bias").any()


def test_scores_are_in_single_precision_whatever_the_features(head: MILHead):
    (scores,) = head.half()(torch.randn(5, 6).half(), None, [5])
    assert scores.dtype == torch.float32


# The detector.


@pytest.fixture(autouse=True)
def reduces_to_four_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the six that the maps have; `test_faithful.py` has detectors that pool the backbone's own."""
    monkeypatch.setattr(mil, "REDUCED_CHANNELS", 4)


def backbone(**changes: Any) -> Backbone:
    settings: dict[str, Any] = {"stages": nn.Sequential(), "channels": 6, "stride": 16, "mean": (0,) * 3}
    return Backbone(**(settings | {"std": (1,) * 3, "source": "", "licence": ""} | changes))


def make(config: MILConfig, tail: nn.Sequential | None = None) -> MILDetector:
    """A detector of three classes whose weights are far from zero."""
    torch.manual_seed(0)
    model = MILDetector(backbone(), tail or nn.Sequential(), config, 3)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.5)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.5)
    return model.eval()


def item(width: int, height: int, number: int = 30, *, whole_cells: bool = False) -> Item:
    """A view with a random map and random proposals, the whole view among them.

    `whole_cells` as of AlexNet, whose map has no cells at the edge.
    """
    rows, columns = (height // 16, width // 16) if whole_cells else (-(-height // 16), -(-width // 16))
    x, y = torch.rand(number, 2).sort(dim=1).values * width, torch.rand(number, 2).sort(dim=1).values * height
    boxes = torch.stack([x[:, 0], y[:, 0], (x[:, 1] + 4).clamp(max=width), (y[:, 1] + 4).clamp(max=height)], dim=1)
    boxes = torch.cat([boxes, torch.tensor([[0.0, 0, width, height]])])
    return Item(torch.randn(6, rows, columns), (height, width), boxes, torch.tensor([1.0, 0, float("nan")]))


def outputs(model: MILDetector, *items: Item) -> list[ViewOutput]:
    with torch.inference_mode():
        found = model.eval()(collate(items))
    assert isinstance(found, list)
    return found


def losses(model: MILDetector, batch: Batch) -> dict[str, Tensor]:
    found = model.train()(batch)
    assert isinstance(found, dict)
    return found


def reference_scores(model: MILDetector, row: Item) -> Tensor:
    """Proposal scores of one view, by WSDDN's equations 1 to 3 over torchvision's RoIPool or exact averages."""
    assert row.proposals is not None
    maps, boxes = row.map[None], row.proposals
    around = context_regions(boxes, torch.tensor(row.size))
    if model.config.unit_rms:
        maps = maps / (maps.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    maps = model.reduce(maps)

    def pooled(view: Tensor) -> Tensor:
        last_pixel = torch.cat([view[:, :2], view[:, 2:] - 1], dim=1)
        return roi_pool(maps, [last_pixel], output_size=3, spatial_scale=1 / 16)

    if model.config.pool == 1:
        regions, context = roi_average_pool(maps, [boxes], [around], 16)
    else:
        regions, context = pooled(boxes), mask_region(pooled(around))
    features, beyond = model.trunk(regions), model.trunk(context)
    detection = features @ model.head.detect.weight.T
    if model.config.contrast:
        detection = detection - beyond @ model.head.detect.weight.T
    which_class = (features @ model.head.classify.weight.T + model.head.classify.bias).softmax(dim=1)
    return which_class * (detection / model.config.temperature).softmax(dim=0)


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].refinement is None])
def test_scores_are_those_of_the_papers_equations(name: str):
    model, row = make(ALL[name]), item(90, 70)
    (found,) = outputs(model, row)
    with torch.inference_mode():
        torch.testing.assert_close(found.proposal_scores, reference_scores(model, row))
    assert found.proposal_scores is not None
    torch.testing.assert_close(found.image_scores, found.proposal_scores.sum(dim=0))
    assert (found.image_scores <= 1 + 1e-5).all()
    assert found.maps is None


@pytest.mark.parametrize("whole_cells", [False, True], ids=["all-cells", "whole-cells"])
@pytest.mark.parametrize("name", ALL)
def test_scores_of_an_image_do_not_depend_on_the_batch(name: str, whole_cells: bool):
    model = make(ALL[name])
    for width, height in ((96, 64), (100, 70), (137, 72), (64, 64)):
        row, larger = (item(*size, whole_cells=whole_cells) for size in ((width, height), (200, 180)))
        (alone,) = outputs(model, row)
        torch.testing.assert_close(outputs(model, row, larger)[0].proposal_scores, alone.proposal_scores)
        torch.testing.assert_close(outputs(model, larger, row)[1].proposal_scores, alone.proposal_scores)


def test_the_loss_is_that_of_the_image_labels():
    model, rows = make(PLAIN.model_copy(update={"dropout": 0.0})), [item(90, 70), item(60, 90, 12)]
    batch = collate(rows)
    assert batch.image_labels is not None
    scores = torch.stack([found.image_scores for found in outputs(model, *rows)])
    found = losses(model, batch)
    assert found.keys() == {"image labels"}
    torch.testing.assert_close(found["image labels"], image_label_loss(scores, batch.image_labels, logits=False))


def test_with_refinement_the_image_loss_is_the_mean_over_classes():
    config = PLAIN.model_copy(update={"dropout": 0.0, "refinement": RefinementConfig()})
    model, rows = make(config), [item(90, 70), item(60, 90, 12)]
    batch = collate(rows)
    assert batch.image_labels is not None
    scores = torch.stack([found.image_scores for found in outputs(model, *rows)])
    known = ~batch.image_labels.isnan()
    total = nn.functional.binary_cross_entropy(scores[known], batch.image_labels[known], reduction="sum")
    torch.testing.assert_close(losses(model, batch)["image labels"], total / batch.image_labels.numel())


@pytest.mark.parametrize("refinement", [None, RefinementConfig()])
def test_a_background_class_is_one_more_class_that_no_image_shows(refinement: RefinementConfig | None):
    plain = PLAIN.model_copy(update={"dropout": 0.0, "refinement": refinement})
    model, rows = make(plain.model_copy(update={"background": True})), [item(90, 70), item(60, 90, 12)]
    # A model of four classes, of which the last is absent from all images, is trained alike.
    torch.manual_seed(0)
    other = MILDetector(backbone(), nn.Sequential(), plain.model_copy(update={"refinement": None}), 4).eval()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if "refinement" not in name})
    larger = [replace(row, image_labels=torch.tensor([1.0, 0, float("nan"), 0])) for row in rows]
    expected = losses(other, collate(larger))["image labels"]
    found = losses(model, collate(rows))["image labels"]
    torch.testing.assert_close(found, expected if refinement is None else expected / 4)
    for own, reference in zip(outputs(model, *rows), outputs(other, *larger), strict=True):
        torch.testing.assert_close(own.image_scores, reference.image_scores[:3])
        assert own.proposal_scores is not None and reference.proposal_scores is not None
        if refinement is None:
            torch.testing.assert_close(own.proposal_scores, reference.proposal_scores[:, :3])


def test_the_spatial_regulariser_is_weighted_and_averaged_over_images():
    config = PLAIN.model_copy(update={"dropout": 0.0, "spatial_weight": 0.25})
    model, rows = make(config), [item(90, 70), item(60, 90, 12)]
    # Boxes that nearly fill the view: some of them are near the best.
    for row in rows:
        assert row.proposals is not None
        row.proposals[:, :2] = torch.rand(len(row.proposals), 2) * 16
        row.proposals[:-1, 2:] = row.proposals[-1, 2:] - torch.rand(len(row.proposals) - 1, 2) * 16
    batch = collate(rows)
    assert batch.proposals is not None
    assert batch.image_labels is not None
    found = losses(model, batch)
    scores = [view.proposal_scores for view in outputs(model, *rows)]
    total = 0.0
    for row, view, boxes, image_labels in zip(rows, scores, batch.proposals, batch.image_labels, strict=True):
        maps = model.reduce(row.map[None])
        pooled = roi_pool(maps, [boxes - torch.tensor([0, 0, 1, 1])], output_size=3, spatial_scale=1 / 16)
        assert view is not None
        total += spatial_regulariser(model.trunk(pooled), view, boxes, image_labels).item()
    assert total > 0
    assert found["spatial"].item() == pytest.approx(0.25 * total / 2, rel=1e-4)


def test_proposals_are_sampled_in_training_alone():
    model, counts = make(PLAIN.model_copy(update={"sample": 8})), []
    model.head.register_forward_hook(lambda layer, inputs, result: counts.append(list(inputs[2])))
    rows = [item(90, 70, 30), item(60, 90, 4)]
    losses(model, collate(rows))
    assert counts.pop() == [8, 5]
    found = outputs(model, *rows)
    assert counts.pop() == [31, 5]
    assert [view.proposal_scores.shape for view in found if view.proposal_scores is not None] == [(31, 3), (5, 3)]


def test_proposals_on_the_same_cells_are_trained_once_and_all_are_scored():
    model, counts, row = make(PLAIN.model_copy(update={"distinct": True, "dropout": 0.0})), [], item(90, 70, 30)
    assert row.proposals is not None
    cells = torch.unique((row.proposals / 16).round(), dim=0)
    cells = cells[(cells[:, 2:] > cells[:, :2]).all(dim=1)] * 16 + torch.tensor([0, 0, 1, 1])
    twice, once = replace(row, proposals=torch.cat([cells, cells + 3])), replace(row, proposals=cells)
    model.head.register_forward_hook(lambda layer, inputs, result: counts.append(list(inputs[2])))
    torch.testing.assert_close(losses(model, collate([twice])), losses(model, collate([once])))
    assert counts == [[len(cells)]] * 2
    assert len(outputs(model, twice)[0].proposal_scores) == 2 * len(cells)


@pytest.mark.parametrize("name", ALL)
def test_losses_and_scores_in_bfloat16_are_close_to_those_in_float32(name: str):
    model, rows = make(ALL[name].model_copy(update={"dropout": 0.0})), [item(90, 70), item(60, 90, 12)]
    expected = losses(model, collate(rows))
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(model, collate(rows))
        (scored,) = outputs(model, rows[0])
    for key, loss in expected.items():
        assert found[key].dtype == torch.float32 and found[key].item() == pytest.approx(loss.item(), rel=0.3)
    assert scored.proposal_scores is not None and scored.proposal_scores.isfinite().all()


def test_a_sample_is_drawn_anew_at_every_step():
    model = make(PLAIN.model_copy(update={"sample": 8, "dropout": 0.0}))
    batch = collate([item(90, 70, 60)])
    assert len({losses(model, batch)["image labels"].item() for _ in range(5)}) > 1
    torch.manual_seed(3)
    first = losses(model, batch)["image labels"]
    torch.manual_seed(3)
    assert torch.equal(losses(model, batch)["image labels"], first)


def test_the_tail_is_run_and_trained():
    model = make(PLAIN, nn.Sequential(nn.Conv2d(6, 6, 1), nn.Tanh()))
    row = item(90, 70)
    with torch.inference_mode():
        expected = reference_scores(model, Item(model.tail(row.map), row.size, row.proposals))
    torch.testing.assert_close(outputs(model, row)[0].proposal_scores, expected)
    losses(model, collate([row]))["image labels"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_blocks_are_dropped_in_training_alone_and_the_module_that_drops_them_is_trained():
    model, row = make(PLAIN.model_copy(update={"drop_block": True, "pool": 5, "dropout": 0.0})), item(160, 96)
    plain = make(PLAIN.model_copy(update={"pool": 5, "dropout": 0.0}))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "drop_block" not in name})
    torch.testing.assert_close(outputs(model, row)[0].proposal_scores, outputs(plain, row)[0].proposal_scores)
    batch = collate([row])
    found, expected = (
        {round(losses(one, batch)["image labels"].item(), 5) for _ in range(5)} for one in (model, plain)
    )
    assert len(found) == 5 and len(expected) == 1
    losses(model, batch)["image labels"].backward()
    assert all(own.grad is not None and own.grad.isfinite().all() for own in model.drop_block.parameters())


# Pretrained hidden layers.


def test_the_hidden_layers_of_a_backbone_are_used_and_trained():
    torch.manual_seed(0)
    layers = (nn.Linear(6 * 2 * 2, 10), nn.Linear(10, 9))
    # The backbone's own pool and channels count, not those of the settings.
    config = MILConfig(hidden="backbone", pool=5, dropout=0.0)
    model = MILDetector(backbone(fully_connected=layers, pool=2), nn.Sequential(), config, 3).eval()
    row = item(90, 70)
    assert row.proposals is not None
    last_pixel = row.proposals - torch.tensor([0, 0, 1, 1])
    pooled = roi_pool(row.map[None], [last_pixel], output_size=2, spatial_scale=1 / 16).flatten(1)
    features = layers[1](layers[0](pooled).relu()).relu()
    expected = model.head(features, None, [31])[0]
    torch.testing.assert_close(outputs(model, row)[0].proposal_scores, expected.detach())
    losses(model, collate([row]))["image labels"].backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.isfinite().all() for layer in layers)


def test_hidden_layers_of_a_backbone_without_any_are_refused():
    with pytest.raises(BoxlessError, match=r"head\.hidden=backbone.*alexnet and vgg16"):
        MILDetector(backbone(), nn.Sequential(), MILConfig(hidden="backbone"), 3)


@pytest.mark.parametrize("name", ["plain", "oicr"])
def test_one_class_is_refused(name: str):
    with pytest.raises(BoxlessError, match=r"one class only.*--method seeded, cam or oquab"):
        MILDetector(backbone(), nn.Sequential(), ALL[name], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrast": True, "pool": 2}, "contrast needs pool=1, or pool=3 or more"),
        ({"drop_block": True, "pool": 3}, "drop_block needs pool=5 or more"),
        ({"drop_block": True, "pool": 1}, "drop_block needs pool=5 or more"),
    ],
)
def test_grids_that_are_too_small_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        MILConfig(**settings)
