"""What tests of box-supervised heads share: a small backbone, views with random maps, and slow references."""

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.features import Item, Targets, collate
from boxless.methods import BoxSupervised, ViewOutput

Head = TypeVar("Head", bound=BoxSupervised)

CHANNELS = (6, 4, 3)
"""Of the last map, and of the two earlier ones behind it."""


def small_backbone() -> Backbone:
    """A backbone of three 1x1 convolutions whose maps have `CHANNELS`."""
    torch.manual_seed(0)
    stages = nn.Sequential(*(nn.Conv2d(*sides, 1) for sides in ((3, 4), (4, 3), (3, 6)))).eval()
    return Backbone(stages, 6, 16, (0,) * 3, (1,) * 3, "", "", levels=(0, 1))


def random_map(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(sum(CHANNELS), rows, columns, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def with_large_weights(model: Head) -> Head:
    """Give a head weights far from zero and principal components of random maps."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.4)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.4)
    model.pca.fit(random_map(6, 9, seed) for seed in range(4))
    return model.eval()


def item(width: int = 144, height: int = 96, number: int = 40, seed: int = 0) -> Item:
    """A view with a random map, random proposals that cross cells, and two objects that some of them overlap."""
    torch.manual_seed(seed)
    corners, sides = torch.rand(number, 2) * 60, torch.rand(number, 2) * 50 + 10
    boxes = torch.cat([corners, corners + sides], dim=1).minimum(torch.tensor([width, height, width, height]) * 1.0)
    near = torch.cat([boxes[:2] + torch.rand(2, 4) * 4, boxes], dim=0)
    targets = Targets(boxes[:2], torch.tensor([2, 0]), torch.tensor([False, False]))
    return Item(random_map(height // 16, width // 16, seed), (height, width), near, torch.tensor([1.0, 0, 1]), targets)


def with_ignored(row: Item, ignore: tuple[bool, ...]) -> Item:
    """The same view with these of its objects ignored."""
    assert row.targets is not None
    return replace(row, targets=row.targets._replace(ignore=torch.tensor(ignore)))


def outputs(model: BoxSupervised, *items: Item) -> list[ViewOutput]:
    """The outputs of a model in evaluation mode."""
    with torch.inference_mode():
        found = model.eval()(collate([replace(one, image_labels=None, targets=None) for one in items]))
    assert isinstance(found, list)
    return found


def loss_tensors(model: BoxSupervised, items: list[Item]) -> dict[str, Tensor]:
    """The losses of a model in training mode, for items with whole maps."""
    model.train()
    found = model(collate([replace(row, map=model.fixed_part(row.map)) for row in items]))
    assert isinstance(found, dict)
    return found


def losses(model: BoxSupervised, items: list[Item]) -> dict[str, float]:
    """The same as numbers."""
    return {name: value.item() for name, value in loss_tensors(model, items).items()}


def mirrored(row: Item) -> Item:
    """The view mirrored left to right."""
    width = row.size[1]

    def mirror(boxes: Tensor) -> Tensor:
        return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)

    assert row.proposals is not None and row.targets is not None
    targets = row.targets._replace(boxes=mirror(row.targets.boxes))
    return replace(row, map=row.map.flip(2), proposals=mirror(row.proposals), targets=targets)


def slow_pca(view: Tensor, model: BoxSupervised) -> np.ndarray[Any, Any]:
    """Principal components of a map (C, h, w), cell by cell: (out_channels, h, w)."""
    rows = []
    for y in range(view.shape[1]):
        for x in range(view.shape[2]):
            last, first, second = (
                part / (part.square().mean() + 1e-6).sqrt() for part in torch.split(view[:, y, x], CHANNELS)
            )
            parts = [(model.pca.last, last), (model.pca.earlier, torch.cat([first, second]))]
            rows.append(torch.cat([pca.components @ (cell - pca.mean) for pca, cell in parts]))
    return torch.stack(rows, dim=1).reshape(-1, *view.shape[1:]).numpy()


def image_scores(model: BoxSupervised, row: Item) -> Tensor:
    """Image-level scores: the mean of the logits of the CAM, a linear classifier of the averaged last map, and of the
    local CAM where it is fitted."""
    (layer,), local = model.cam.head, model.cam.local
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None and local is not None
    logits = row.map[: CHANNELS[0]].mean(dim=(1, 2)) @ layer.weight[:, :, 0, 0].T + layer.bias
    if not model.cam.threshold.isnan():
        logits = (logits + local.pool(local(row.map[CHANNELS[0] :]))) / 2
    return logits.sigmoid().detach()
