import pytest
import torch
from torch import Tensor, nn

from boxless.config import LocalizerConfig
from boxless.features import Batch, Item, collate
from boxless.methods import Localizer, ViewOutput
from boxless.methods.cam import soft_maximum
from boxless.methods.losses import image_label_loss

OQUAB = LocalizerConfig(pooling="max", hidden=(6, 5), kernel=3, dropout=0.5)


def make(config: LocalizerConfig, tail: nn.Sequential | None = None, channels: int = 4) -> Localizer:
    torch.manual_seed(0)
    model = Localizer(tail or nn.Sequential(), channels, config, 3)
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def item(width: int, height: int, target: tuple[float, ...] = (1, 0, 0), *, whole_cells: bool = False) -> Item:
    """A view with a random map; `whole_cells` as of AlexNet, whose map leaves out the cells at the edge."""
    rows, columns = (height // 16, width // 16) if whole_cells else (-(-height // 16), -(-width // 16))
    return Item(torch.randn(4, rows, columns), (height, width), None, torch.tensor(target).float())


def evidence(model: Localizer, *items: Item) -> list[ViewOutput]:
    with torch.inference_mode():
        found = model.eval()(collate(items))
    assert isinstance(found, list)
    return found


def loss(model: Localizer, batch: Batch) -> Tensor:
    losses = model.train()(batch)
    assert isinstance(losses, dict)
    assert losses.keys() == {"tags"}
    return losses["tags"]


def convolved(layer: nn.Module, maps: Tensor) -> Tensor:
    """A 1x1 convolution as a product of matrices."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return torch.einsum("oc,chw->ohw", layer.weight[:, :, 0, 0], maps) + layer.bias[:, None, None]


def test_average_pooling_is_a_linear_classifier_on_averaged_features():
    model = make(LocalizerConfig())
    (layer,) = model.head
    row = item(50, 40)
    found = evidence(model, row)[0]
    logits = layer.weight[:, :, 0, 0] @ row.map.mean(dim=(1, 2)) + layer.bias
    torch.testing.assert_close(found.image_scores, logits.sigmoid())
    assert found.proposal_scores is None


def test_its_maps_are_class_activation_maps_without_bias():
    model = make(LocalizerConfig())
    (layer,) = model.head
    row = item(50, 40)
    found = evidence(model, row)[0]
    assert found.maps is not None
    assert found.maps.shape == (3, 3, 4)
    wanted = torch.einsum("oc,chw->ohw", layer.weight[:, :, 0, 0], row.map)
    torch.testing.assert_close(found.maps, wanted)
    # Averaged and with the bias, they are the classifier's logits.
    torch.testing.assert_close((found.maps.mean(dim=(1, 2)) + layer.bias).sigmoid(), found.image_scores)


def test_max_pooling_picks_the_best_place():
    model = make(LocalizerConfig(pooling="max"))
    (layer,) = model.head
    row = item(80, 60)
    found = evidence(model, row)[0]
    best = convolved(layer, row.map).flatten(1).max(dim=1).values
    torch.testing.assert_close(found.image_scores, best.sigmoid())
    # Only the best place learns.
    batch = collate([row])
    batch.maps.requires_grad_()
    loss(model, batch).backward()
    assert batch.maps.grad is not None
    places = {divmod(place, 5) for place in convolved(layer, row.map).flatten(1).argmax(dim=1).tolist()}
    assert {(y, x) for y, x in batch.maps.grad[0].any(dim=0).nonzero().tolist()} == places


def test_the_soft_maximum_lies_between_mean_and_maximum():
    # exp(ln 9), exp(ln 1), exp(ln 1), exp(ln 5): their mean is 4.
    maps = torch.tensor([[[9.0, 1.0], [1.0, 5.0]], [[0.5, 0.5], [0.5, 0.5]]]).log()
    torch.testing.assert_close(soft_maximum(maps, 1.0), torch.tensor([4.0, 0.5]).log())
    # Squares: (81 + 1 + 1 + 25) / 4 = 27.
    torch.testing.assert_close(soft_maximum(maps, 2.0)[0], torch.tensor(27.0).log() / 2)
    torch.testing.assert_close(soft_maximum(maps, 1e-3), maps.mean(dim=(1, 2)), atol=2e-3, rtol=0)
    torch.testing.assert_close(soft_maximum(maps, 1e4), maps.amax(dim=(1, 2)), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("progress", "sharpness"), [(0.0, 0.5), (0.5, 2.0), (1.0, 8.0)])
def test_training_sharpens_to_the_maximum_that_inference_takes(progress: float, sharpness: float):
    model = make(LocalizerConfig(pooling="max", sharpness=(0.5, 8)))
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
    torch.testing.assert_close(torch.stack([found.image_scores for found in evidence(model, *rows)]), best.sigmoid())


def test_hidden_layers_are_a_convolution_and_then_single_cells():
    model = make(LocalizerConfig(pooling="max", hidden=(6, 5), kernel=3))
    first, second, last = (layer for layer in model.head if isinstance(layer, nn.Conv2d))
    assert (first.kernel_size, second.kernel_size, last.kernel_size) == ((3, 3), (1, 1), (1, 1))
    row = item(80, 60)
    padded = nn.functional.pad(row.map, (1, 1, 1, 1))
    around = padded.unfold(1, 3, 1).unfold(2, 3, 1)
    hidden = torch.einsum("ocij,chwij->ohw", first.weight, around) + first.bias[:, None, None]
    logits = convolved(last, convolved(second, hidden.relu()).relu())
    found = evidence(model, row)[0]
    torch.testing.assert_close(found.image_scores, logits.amax(dim=(1, 2)).sigmoid())
    torch.testing.assert_close(found.maps, logits - last.bias[:, None, None])


def test_dropout_stands_before_every_layer_but_the_first():
    kinds = [type(layer).__name__ for layer in make(OQUAB).head]
    assert kinds == ["Conv2d", "ReLU", "Dropout", "Conv2d", "ReLU", "Dropout", "Conv2d"]
    assert [layer.p for layer in make(OQUAB).head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_the_loss_is_that_of_the_tags():
    for config in (LocalizerConfig(), LocalizerConfig(pooling="max")):
        model = make(config)
        rows = [item(50, 40), item(90, 30, (0, float("nan"), 1))]
        logits = torch.stack([found.image_scores.logit() for found in evidence(model, *rows)])
        batch = collate(rows)
        assert batch.image_labels is not None
        wanted = image_label_loss(logits, batch.image_labels, logits=True)
        torch.testing.assert_close(loss(model, batch), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whole_cells", [False, True], ids=["all-cells", "whole-cells"])
@pytest.mark.parametrize(
    "config", [LocalizerConfig(), LocalizerConfig(pooling="max"), OQUAB], ids=["cam", "max", "oquab"]
)
def test_a_image_alone_is_as_in_a_batch_with_larger_ones(config: LocalizerConfig, whole_cells: bool):
    model = make(config)
    for width, height in ((50, 40), (64, 48), (100, 30), (33, 130)):
        row = item(width, height, whole_cells=whole_cells)
        alone = evidence(model, row)[0]
        other = evidence(model, item(200, 180, whole_cells=whole_cells), row)[1]
        torch.testing.assert_close(other.image_scores, alone.image_scores)
        torch.testing.assert_close(other.maps, alone.maps)


def test_averages_alone_give_the_same_loss():
    model = make(LocalizerConfig())
    assert model.needs_averages_only
    rows = [item(50, 40), item(90, 30, (0, float("nan"), 1))]
    averaged = [Item(row.map.mean(dim=(1, 2), keepdim=True), (1, 1), None, row.image_labels) for row in rows]
    torch.testing.assert_close(loss(model, collate(averaged)), loss(model, collate(rows)))


@pytest.mark.parametrize(
    ("config", "tail"),
    [
        (LocalizerConfig(pooling="max"), nn.Sequential()),
        (LocalizerConfig(hidden=(5,)), nn.Sequential()),
        (LocalizerConfig(), nn.Sequential(nn.Conv2d(4, 4, 1))),
    ],
    ids=["max", "hidden", "tail"],
)
def test_other_compositions_need_their_maps(config: LocalizerConfig, tail: nn.Sequential):
    assert not make(config, tail).needs_averages_only


def test_the_tail_is_run_and_trained():
    tail = nn.Sequential(nn.Conv2d(4, 7, 1), nn.ReLU())
    model = make(LocalizerConfig(), tail, channels=7)
    row = item(64, 48)
    found = evidence(model, row)[0]
    with torch.inference_mode():
        wanted = evidence(make(LocalizerConfig(), channels=7), Item(tail(row.map), row.size))[0]
    torch.testing.assert_close(found.image_scores, wanted.image_scores)
    loss(model, collate([row])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
