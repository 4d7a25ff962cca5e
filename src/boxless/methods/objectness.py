"""Where objects are, whatever their class: learned from the places that class heatmaps are sure of."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from boxless.methods.heads import unit_rms

SURE, EMPTY = 0.25, 0.02
"""A place of at least `SURE` times a heatmap's maximum is on an object, one below `EMPTY` times it is not."""
PLACES = 60
"""Most places of either kind that one image teaches."""


class Objectness(nn.Module):
    """A classifier of single cells of an early feature map.

    Class activation maps peak on what tells a class from the others. An early map knows no classes, only textures and
    edges, so a classifier of its cells cannot learn where the class is told best; taught by what heatmaps are sure of,
    it finds the rest of the object.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cells = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 1))

    def forward(self, early: Tensor) -> Tensor:
        """(C, h, w) -> log odds that a place is on an object, (h, w), each the mean over its 3 x 3 neighbours."""
        logits: Tensor = self.cells(unit_rms(early[None])[0].permute(1, 2, 0))[..., 0]
        return nn.functional.avg_pool2d(logits[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def sure_places(early: Tensor, heatmaps: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cells of one image that its heatmaps are sure of.

    Args:
        early: (C, h, w).
        heatmaps: (classes present, h, w), higher is likelier; at least one.
        random: draws the places where there are more than `PLACES`.

    Returns:
        Equalised cells (N, C), and targets (N,): 1 on an object, 0 beside.
    """
    brightest = heatmaps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    relative = (heatmaps / brightest).amax(dim=0).flatten().cpu().numpy()
    on, off = (random.permutation(np.flatnonzero(kind))[:PLACES] for kind in (relative >= SURE, relative < EMPTY))
    cells = unit_rms(early[None])[0].flatten(1).T[torch.from_numpy(np.concatenate([on, off])).to(early.device)]
    return cells, torch.cat([cells.new_ones(len(on)), cells.new_zeros(len(off))])


def fit_objectness(objectness: Objectness, images: Iterable[tuple[Tensor, Tensor]], seed: int) -> None:
    """Train on the sure places of images: three passes of AdamW over all their cells.

    Args:
        objectness: is trained in place and left in evaluation mode.
        images: for each its early map (C, h, w) and the heatmaps (N, h, w) of the classes present.
        seed: of the places, their order and the dropout.
    """
    random = np.random.default_rng(seed)
    places = [sure_places(early, heatmaps, random) for early, heatmaps in images]
    cells, targets = (torch.cat(parts) for parts in zip(*places, strict=True))
    optimizer = torch.optim.AdamW(objectness.parameters(), 1e-3)
    objectness.train().requires_grad_(True)
    torch.manual_seed(seed)
    for _ in range(3):
        for rows in torch.split(torch.from_numpy(random.permutation(len(cells))).to(cells.device), 512):
            logits = objectness.cells(cells[rows])[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    objectness.eval().requires_grad_(False)
