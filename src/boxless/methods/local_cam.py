"""Local CAM: class activation maps of earlier stages, whose cells see little of the image, with log-sum-exp pooling.

Every cell of a deep network's last map sees the whole image: where a class shows in the surface or the scene, its CAM
responds anywhere. A cell of an earlier map has to find the class in what it sees. Averages over all cells would ask
every cell of the image to show it; log-sum-exp asks a few.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from boxless.methods.layers import unit_rms
from boxless.methods.losses import image_label_loss
from boxless.progress import track

STEPS, BATCH, LR = 300, 16, 1e-2
"""AdamW with a cosine: the classifier is linear (docs/lab_book)."""


class LocalCAM(nn.Module):
    """A linear classifier of single cells, whose class logits are their log-sum-exp over the map.

    Args:
        channels: of the levels that it reads.
        classes: number of classes.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.cells = nn.Conv2d(sum(channels), classes, 1)
        for parameter in self.cells.parameters():
            nn.init.zeros_(parameter)

    def forward(self, levels: Tensor) -> Tensor:
        """Heatmaps (classes, h, w) of the levels (C, h, w) of an image; the bias is left out, as in CAM."""
        parts = [unit_rms(level) for level in torch.split(levels, list(self.channels))]
        heatmaps: Tensor = nn.functional.conv2d(torch.cat(parts), self.cells.weight)
        return heatmaps

    def pool(self, heatmaps: Tensor) -> Tensor:
        """Class logits (classes,): the log of the mean of the exponentials (Pinheiro and Collobert, CVPR 2015, eq. 3).

        Args:
            heatmaps: (classes, h, w).
        """
        cells = heatmaps.flatten(1)
        assert self.cells.bias is not None
        logits: Tensor = cells.logsumexp(dim=1) - math.log(cells.shape[1]) + self.cells.bias
        return logits


def fit_local_cam(local: LocalCAM, levels: Callable[[int], Tensor], image_labels: Tensor, seed: int) -> None:
    """Train on image labels.

    Args:
        local: is trained in place; no gradients are kept for it afterwards.
        levels: row of an image -> its levels (C, h, w), on the device of `local`.
        image_labels: (images, classes), 1 present, 0 absent, NaN unsure.
        seed: of the order of the images.
    """

    def logits(rows: list[int]) -> Tensor:
        return torch.stack([local.pool(local(levels(row))) for row in rows])

    local.requires_grad_(True)
    fit_classifier(local, logits, image_labels, seed, "Local CAM")
    local.requires_grad_(False)


def fit_classifier(
    classifier: nn.Module, logits: Callable[[list[int]], Tensor], image_labels: Tensor, seed: int, title: str
) -> None:
    """Train a linear classifier on image labels, in place.

    Args:
        classifier: its parameters are trained.
        logits: rows of images -> their class logits (rows, classes), by the classifier as it is.
        image_labels: (images, classes), 1 present, 0 absent, NaN unsure.
        seed: of the order of the images.
        title: of the progress bar.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), LR, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for rows in track(_batches(len(image_labels), seed), title, STEPS, transient=True):
        found = logits(rows)
        loss = image_label_loss(found, image_labels[rows].to(found.device), logits=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _batches(images: int, seed: int) -> Iterator[list[int]]:
    random = np.random.default_rng(seed)
    for _ in range(STEPS):
        yield random.permutation(images)[:BATCH].tolist()
