from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from boxless.backbones import Backbone
from boxless.config import MILConfig, RefinementConfig
from boxless.errors import BoxlessError
from boxless.features import Batch, Item, collate
from boxless.methods import MILDetector, ViewOutput
from boxless.methods.heads import average_regions, context_regions, mask_region, unit_rms
from boxless.methods.losses import image_label_loss, spatial_regulariser

PLAIN = MILConfig(reduce=4, hidden=(16,))
CONTRAST = MILConfig(reduce=4, hidden=(16,), contrast=True)
AVERAGE = MILConfig(reduce=4, unit_rms=True, pooling="average", pool=1, hidden=(), contrast=True)
WHOLE = MILConfig(reduce=None, hidden=(16, 12))
OICR = MILConfig(reduce=4, hidden=(16,), refinement=RefinementConfig())
MIRROR = OICR.model_copy(update={"mirror": True, "refinement": RefinementConfig(regress="last")})
ALL = {"plain": PLAIN, "contrast": CONTRAST, "average": AVERAGE, "whole": WHOLE, "oicr": OICR, "mirror": MIRROR}


def network(**changes: Any) -> Backbone:
    settings: dict[str, Any] = {"stages": nn.Sequential(), "channels": 6, "stride": 16, "mean": (0,) * 3}
    return Backbone(**(settings | {"std": (1,) * 3, "source": "", "licence": ""} | changes))


def make(config: MILConfig, tail: nn.Sequential | None = None) -> MILDetector:
    """A detector of three classes whose weights are far from zero."""
    torch.manual_seed(0)
    model = MILDetector(tail or nn.Sequential(), network(), config, 3)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.5)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.5)
    return model.eval()


def item(width: int, height: int, number: int = 30, *, whole_cells: bool = False) -> Item:
    """A view with a random map and random proposals, the whole view among them.

    `whole_cells` as of AlexNet, whose map leaves out the cells at the edge.
    """
    rows, columns = (height // 16, width // 16) if whole_cells else (-(-height // 16), -(-width // 16))
    x, y = torch.rand(number, 2).sort(dim=1).values * width, torch.rand(number, 2).sort(dim=1).values * height
    boxes = torch.stack([x[:, 0], y[:, 0], (x[:, 1] + 4).clamp(max=width), (y[:, 1] + 4).clamp(max=height)], dim=1)
    boxes = torch.cat([boxes, torch.tensor([[0.0, 0, width, height]])])
    return Item(torch.randn(6, rows, columns), (height, width), boxes, torch.tensor([1.0, 0, float("nan")]))


def evidence(model: MILDetector, *items: Item) -> list[ViewOutput]:
    with torch.inference_mode():
        found = model.eval()(collate(items))
    assert isinstance(found, list)
    return found


def losses(model: MILDetector, batch: Batch) -> dict[str, Tensor]:
    found = model.train()(batch)
    assert isinstance(found, dict)
    return found


# Parts of its own.


def test_equalised_cells_have_one_magnitude_and_keep_their_direction():
    maps = torch.randn(2, 5, 3, 4).sign() * (1 + torch.rand(2, 5, 3, 4)) * 100 ** torch.rand(2, 1, 3, 4)
    even = unit_rms(maps)
    torch.testing.assert_close(even.square().mean(dim=1), torch.ones(2, 3, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(nn.functional.cosine_similarity(even, maps), torch.ones(2, 3, 4))
    assert not unit_rms(torch.zeros(1, 5, 2, 2)).any()


def literal_mean(features: Tensor, box: list[float], inside: list[float] | None, stride: int) -> Tensor:
    """The mean of a map (C, H, W) over a box and beyond another inside it, pixel by pixel of a fine raster."""
    fine = features.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    mask = torch.zeros(fine.shape[1:], dtype=torch.bool)
    left, top, right, bottom = map(int, box)
    mask[top:bottom, left:right] = True
    if inside is not None:
        left, top, right, bottom = map(int, inside)
        mask[top:bottom, left:right] = False
    return fine[:, mask].mean(dim=1)


def test_averages_are_exact_for_corners_within_cells():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 6)
    inner = [torch.tensor([[10.0, 20, 30, 70], [32, 16, 33, 17]]), torch.tensor([[0.0, 0, 90, 75]])]
    outer = [torch.tensor([[2.0, 8, 50, 80], [20, 4, 60, 40]]), torch.tensor([[0.0, 0, 96, 80]])]
    regions, surroundings = average_regions(maps, inner, outer, 16)
    rows = [(0, inner[0][0], outer[0][0]), (0, inner[0][1], outer[0][1]), (1, inner[1][0], outer[1][0])]
    for number, (view, box, frame) in enumerate(rows):
        wanted = literal_mean(maps[view], box.tolist(), None, 16)
        torch.testing.assert_close(regions[number, 0, 0], wanted, rtol=1e-3, atol=1e-3)
        wanted = literal_mean(maps[view], frame.tolist(), box.tolist(), 16)
        torch.testing.assert_close(surroundings[number], wanted, rtol=1e-3, atol=1e-3)


def test_a_region_without_surroundings_has_none():
    whole = torch.tensor([[0.0, 0, 64, 48]])
    _, surroundings = average_regions(torch.randn(1, 3, 3, 4), [whole], [whole], 16)
    torch.testing.assert_close(surroundings, torch.zeros(1, 3))


# The composition.


def by_hand(model: MILDetector, row: Item) -> Tensor:
    """Proposal scores of one view, from the parts that other tests look at."""
    assert row.boxes is not None
    maps, boxes = row.map[None], row.boxes
    around = context_regions(boxes, torch.tensor(row.size))
    if model.config.unit_rms:
        maps = maps / (maps.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    maps = model.reduce(maps)

    def pooled(view: Tensor) -> Tensor:
        last_pixel = torch.cat([view[:, :2], view[:, 2:] - 1], dim=1)
        return roi_pool(maps, [last_pixel], output_size=3, spatial_scale=1 / 16)

    if model.config.pooling == "average":
        regions, surroundings = average_regions(maps, [boxes], [around], 16)
    else:
        regions, surroundings = pooled(boxes), mask_region(pooled(around))
    features, beyond = model.trunk(regions), model.trunk(surroundings)
    detection = features @ model.head.detect.weight.T
    if model.config.contrast:
        detection = detection - beyond @ model.head.detect.weight.T
    which_class = (features @ model.head.classify.weight.T + model.head.classify.bias).softmax(dim=1)
    return which_class * (detection / model.config.temperature).softmax(dim=0)


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].refinement is None])
def test_scores_are_those_of_its_parts(name: str):
    model, row = make(ALL[name]), item(90, 70)
    (found,) = evidence(model, row)
    with torch.inference_mode():
        torch.testing.assert_close(found.proposal_scores, by_hand(model, row))
    assert found.proposal_scores is not None
    torch.testing.assert_close(found.image_scores, found.proposal_scores.sum(dim=0))
    assert (found.image_scores <= 1 + 1e-5).all()
    assert found.maps is None


@pytest.mark.parametrize("whole_cells", [False, True], ids=["all-cells", "whole-cells"])
@pytest.mark.parametrize("name", ALL)
def test_a_images_scores_do_not_depend_on_the_others_in_the_batch(name: str, whole_cells: bool):
    model = make(ALL[name])
    for width, height in ((96, 64), (100, 70), (137, 72), (64, 64)):
        row, larger = (item(*size, whole_cells=whole_cells) for size in ((width, height), (200, 180)))
        (alone,) = evidence(model, row)
        torch.testing.assert_close(evidence(model, row, larger)[0].proposal_scores, alone.proposal_scores)
        torch.testing.assert_close(evidence(model, larger, row)[1].proposal_scores, alone.proposal_scores)


def test_the_loss_is_that_of_the_tags():
    model, rows = make(PLAIN.model_copy(update={"dropout": 0.0})), [item(90, 70), item(60, 90, 12)]
    batch = collate(rows)
    assert batch.image_labels is not None
    scores = torch.stack([found.image_scores for found in evidence(model, *rows)])
    found = losses(model, batch)
    assert found.keys() == {"tags"}
    torch.testing.assert_close(found["tags"], image_label_loss(scores, batch.image_labels, logits=False))


def test_the_spatial_regulariser_is_weighed_and_averaged_over_images():
    config = PLAIN.model_copy(update={"dropout": 0.0, "spatial_weight": 0.25})
    model, rows = make(config), [item(90, 70), item(60, 90, 12)]
    # Boxes that nearly fill the view: some of them are near the best.
    for row in rows:
        assert row.boxes is not None
        row.boxes[:, :2] = torch.rand(len(row.boxes), 2) * 16
        row.boxes[:-1, 2:] = row.boxes[-1, 2:] - torch.rand(len(row.boxes) - 1, 2) * 16
    batch = collate(rows)
    assert batch.boxes is not None
    assert batch.image_labels is not None
    found = losses(model, batch)
    scores = [view.proposal_scores for view in evidence(model, *rows)]
    total = 0.0
    for row, view, boxes, target in zip(rows, scores, batch.boxes, batch.image_labels, strict=True):
        maps = model.reduce(row.map[None])
        pooled = roi_pool(maps, [boxes - torch.tensor([0, 0, 1, 1])], output_size=3, spatial_scale=1 / 16)
        assert view is not None
        total += spatial_regulariser(model.trunk(pooled), view, boxes, target).item()
    assert total > 0
    assert found["spatial"].item() == pytest.approx(0.25 * total / 2, rel=1e-4)


def test_sampling_limits_the_proposals_of_training_alone(monkeypatch: pytest.MonkeyPatch):
    model, seen = make(PLAIN.model_copy(update={"sample": 8})), []
    forward = model.head.forward

    def noted(regions: Tensor, surroundings: Tensor | None, counts: list[int]) -> tuple[Tensor, ...]:
        seen.append(list(counts))
        return forward(regions, surroundings, counts)

    monkeypatch.setattr(model.head, "forward", noted)
    rows = [item(90, 70, 30), item(60, 90, 4)]
    losses(model, collate(rows))
    assert seen.pop() == [8, 5]
    found = evidence(model, *rows)
    assert seen.pop() == [31, 5]
    assert [view.proposal_scores.shape for view in found if view.proposal_scores is not None] == [(31, 3), (5, 3)]


def test_a_sample_is_drawn_anew_at_every_step():
    model = make(PLAIN.model_copy(update={"sample": 8, "dropout": 0.0}))
    batch = collate([item(90, 70, 60)])
    assert len({losses(model, batch)["tags"].item() for _ in range(5)}) > 1
    torch.manual_seed(3)
    first = losses(model, batch)["tags"]
    torch.manual_seed(3)
    assert torch.equal(losses(model, batch)["tags"], first)


def test_the_tail_is_run_and_trained():
    model = make(PLAIN, nn.Sequential(nn.Conv2d(6, 6, 1), nn.Tanh()))
    row = item(90, 70)
    with torch.inference_mode():
        wanted = by_hand(model, Item(model.tail(row.map), row.size, row.boxes))
    torch.testing.assert_close(evidence(model, row)[0].proposal_scores, wanted)
    losses(model, collate([row]))["tags"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


# What does not fit.


@pytest.mark.parametrize("name", ["plain", "oicr"])
def test_one_class_is_refused(name: str):
    with pytest.raises(BoxlessError, match=r"one class only.*--method seeded, cam or oquab"):
        MILDetector(nn.Sequential(), network(), ALL[name], 1)


def test_hidden_layers_of_a_backbone_that_has_none_are_refused():
    with pytest.raises(BoxlessError, match=r"head\.hidden=backbone.*alexnet and vgg16"):
        MILDetector(nn.Sequential(), network(), MILConfig(hidden="backbone"), 3)


def test_the_hidden_layers_of_a_backbone_are_taken():
    torch.manual_seed(0)
    layers = (nn.Linear(6 * 2 * 2, 10), nn.Linear(10, 9))
    backbone = network(fully_connected=layers, pool=2)
    # The backbone's own pool and channels count, not those of the settings.
    model = MILDetector(nn.Sequential(), backbone, MILConfig(hidden="backbone", pool=5, dropout=0.0), 3).eval()
    row = item(90, 70)
    assert row.boxes is not None
    last_pixel = row.boxes - torch.tensor([0, 0, 1, 1])
    pooled = roi_pool(row.map[None], [last_pixel], output_size=2, spatial_scale=1 / 16).flatten(1)
    features = layers[1](layers[0](pooled).relu()).relu()
    wanted = model.head(features, None, [31])[0]
    torch.testing.assert_close(evidence(model, row)[0].proposal_scores, wanted.detach())
    losses(model, collate([row]))["tags"].backward()
    assert all(layer.weight.grad is not None for layer in layers)
    assert np.isfinite(layers[0].weight.grad.numpy()).all()  # type: ignore[union-attr]


def test_blocks_are_dropped_in_training_alone_and_what_drops_them_learns():
    model, row = make(PLAIN.model_copy(update={"drop_block": True, "pool": 5, "dropout": 0.0})), item(160, 96)
    plain = make(PLAIN.model_copy(update={"pool": 5, "dropout": 0.0}))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "drop_block" not in name})
    torch.testing.assert_close(evidence(model, row)[0].proposal_scores, evidence(plain, row)[0].proposal_scores)
    found = {round(losses(model, collate([row]))["tags"].item(), 5) for _ in range(5)}
    assert len(found) == 5 and len({round(losses(plain, collate([row]))["tags"].item(), 5) for _ in range(5)}) == 1
    losses(model, collate([row]))["tags"].backward()
    assert all(own.grad is not None and own.grad.isfinite().all() for own in model.drop_block.parameters())


# Refinement.


def mirrored(row: Item) -> Item:
    assert row.boxes is not None
    x1, y1, x2, y2 = row.boxes.unbind(dim=1)
    width = row.size[1]
    return Item(row.map.flip(2), row.size, torch.stack([width - x2, y1, width - x1, y2], dim=1), row.image_labels)


def test_a_mirroring_detector_sees_a_mirrored_view_alike():
    model, row = make(MIRROR), item(160, 96)
    plain, turned = evidence(model, row)[0], evidence(model, mirrored(row))[0]
    assert plain.proposal_scores is not None and turned.proposal_scores is not None
    torch.testing.assert_close(plain.proposal_scores, turned.proposal_scores)
    assert plain.boxes is not None and turned.boxes is not None
    torch.testing.assert_close(plain.boxes[:, 0], 160 - turned.boxes[:, 2], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(plain.boxes[:, 1], turned.boxes[:, 1], rtol=1e-4, atol=1e-3)
    once = make(MIRROR.model_copy(update={"mirror": False}))
    one, other = evidence(once, row)[0].proposal_scores, evidence(once, mirrored(row))[0].proposal_scores
    assert one is not None and other is not None and not torch.allclose(one, other)
    torch.testing.assert_close((one + other) / 2, plain.proposal_scores)


@pytest.mark.parametrize("turned", [False, True])
def test_maps_and_proposals_turn_together_in_training(monkeypatch: pytest.MonkeyPatch, turned: bool):
    model, row = make(MIRROR.model_copy(update={"dropout": 0.0})), item(160, 96)
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.0 if turned else 0.9))
    found = losses(model, collate([row]))
    plain = make(MIRROR.model_copy(update={"dropout": 0.0, "mirror": False}))
    wanted, other = (losses(plain, collate([seen])) for seen in ((mirrored(row), row)[:: 1 if turned else -1]))
    assert found.keys() == {"tags", "refine 1", "refine 2", "refine 3", "boxes"}
    for name, loss in wanted.items():
        torch.testing.assert_close(found[name], loss)
        assert not torch.allclose(found[name], other[name])
