"""Class-agnostic objectness of map locations, trained on the locations where class activation maps are certain."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from boxless.methods.layers import unit_rms

OBJECT_SHARE, BACKGROUND_SHARE = 0.25, 0.02
"""Locations of at least `OBJECT_SHARE` of a CAM's maximum are trained as object, below `BACKGROUND_SHARE` of it as
background; those between have no part."""
SAMPLES = 60
"""Most locations of either kind that are drawn from one image."""


class Objectness(nn.Module):
    """A classifier of the single locations of an early feature map.

    Class activation maps respond to the most discriminative part of an object. An early map holds texture and edges
    and no classes, so a classifier on it cannot overfit to that part: trained on the certain locations of CAMs, it
    responds to the rest of the object as well.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cells = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 1))

    def forward(self, early: Tensor) -> Tensor:
        """(C, h, w) -> log odds that a location is on an object, (h, w), averaged over 3 x 3 neighbours."""
        logits: Tensor = self.cells(unit_rms(early).permute(1, 2, 0))[..., 0]
        return nn.functional.avg_pool2d(logits[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def certain_locations(early: Tensor, heatmaps: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Locations of one image where its heatmaps are certain.

    Args:
        early: (C, h, w).
        heatmaps: (classes present, h, w), higher is likelier; at least one.
        random: draws the locations where there are more than `SAMPLES`.

    Returns:
        Features (N, C) of unit RMS, and targets (N,): 1 on an object, 0 on background.
    """
    maxima = heatmaps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    relative = (heatmaps / maxima).amax(dim=0).flatten().cpu().numpy()
    kinds = relative >= OBJECT_SHARE, relative < BACKGROUND_SHARE
    on, off = (random.permutation(np.flatnonzero(kind))[:SAMPLES] for kind in kinds)
    cells = unit_rms(early).flatten(1).T[torch.from_numpy(np.concatenate([on, off])).to(early.device)]
    return cells, torch.cat([cells.new_ones(len(on)), cells.new_zeros(len(off))])


def fit_objectness(objectness: Objectness, images: Iterable[tuple[Tensor, Tensor]], seed: int) -> None:
    """Train on the certain locations of images: three epochs of AdamW.

    Args:
        objectness: is trained in place and left in evaluation mode.
        images: for each its early map (C, h, w) and the heatmaps (N, h, w) of the classes present.
        seed: of the locations, their order and the dropout.
    """
    random = np.random.default_rng(seed)
    locations = [certain_locations(early, heatmaps, random) for early, heatmaps in images]
    cells, targets = (torch.cat(parts) for parts in zip(*locations, strict=True))
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
