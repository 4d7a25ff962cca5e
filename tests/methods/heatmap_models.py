"""What tests of CAM and Oquab's network share."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.features import Batch, Item, collate
from boxless.methods import HeatmapModel, ViewOutput

Net = TypeVar("Net", bound=HeatmapModel)


def backbone_of(channels: int, levels: tuple[int, ...] = ()) -> Backbone:
    """A backbone whose last map has so many channels, and whose first one has two."""
    stages = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, channels, 1))
    return Backbone(stages, channels, 16, (0,) * 3, (1,) * 3, "", "", levels=levels)


def with_large_weights(model: Net) -> Net:
    """Draw all weights of the head from N(0, 1)."""
    torch.manual_seed(0)
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def item(width: int, height: int, labels: tuple[float, ...] = (1, 0, 0), *, whole_cells: bool = False) -> Item:
    """A view with a random map of four channels; `whole_cells` as of AlexNet, whose map has no cells at the edge."""
    rows, columns = (height // 16, width // 16) if whole_cells else (-(-height // 16), -(-width // 16))
    return Item(torch.randn(4, rows, columns), (height, width), None, torch.tensor(labels).float())


def outputs(model: HeatmapModel, *items: Item) -> list[ViewOutput]:
    """The outputs of a model in evaluation mode."""
    with torch.inference_mode():
        found = model.eval()(collate(items))
    assert isinstance(found, list)
    return found


def loss(model: HeatmapModel, batch: Batch) -> Tensor:
    """The one loss of a model in training mode."""
    losses = model.train()(batch)
    assert isinstance(losses, dict)
    assert losses.keys() == {"image labels"}
    return losses["image labels"]


def convolved(layer: nn.Module, maps: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return torch.einsum("oc,chw->ohw", layer.weight[:, :, 0, 0], maps) + layer.bias[:, None, None]


def assert_independent_of_the_batch(model: HeatmapModel, *, whole_cells: bool) -> None:
    """An image has the same outputs alone as in a batch with a larger one."""
    for width, height in ((50, 40), (64, 48), (100, 30), (33, 130)):
        row = item(width, height, whole_cells=whole_cells)
        (alone,) = outputs(model, row)
        in_batch = outputs(model, item(200, 180, whole_cells=whole_cells), row)[1]
        torch.testing.assert_close(in_batch.image_scores, alone.image_scores)
        torch.testing.assert_close(in_batch.maps, alone.maps)
