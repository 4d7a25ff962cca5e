"""Image -> class heatmaps through global pooling: Oquab et al. (CVPR 2015) and CAM (Zhou et al., CVPR 2016)."""

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from boxless.config import LocalizerConfig
from boxless.features import Batch
from boxless.methods.cam_threshold import DEFAULT_THRESHOLD
from boxless.methods.losses import image_label_loss
from boxless.methods.objectness import Objectness
from boxless.methods.outputs import ViewOutput


class Localizer(nn.Module):
    """A fully convolutional head that makes one map a class, pooled to one score a class.

    With `average` pooling and no hidden layer this is a linear classifier on globally averaged features, and its maps
    are class activation maps (Zhou et al., equation 2). With `max` pooling it is Oquab's network: the score of a class
    is that of its best place (section 3). A maximum teaches one place an image and class; with `sharpness` training
    begins near the average of all places and ends near the maximum.

    Args:
        tail: the backbone's trained stages; empty where all is frozen.
        channels: of the map that the tail gives, those of hypercolumns not counted.
        config: layers and pooling.
        classes: number of classes.
        early: channels of the first level of the hypercolumns behind them, for `config.foreground`.
    """

    def __init__(
        self, tail: nn.Sequential, channels: int, config: LocalizerConfig, classes: int, early: int = 0
    ) -> None:
        super().__init__()
        self.tail = tail
        self.channels = channels
        self.early = slice(channels, channels + early)
        # It is fitted when the rest has been trained, and has no part in the losses.
        self.objectness = Objectness(early).requires_grad_(False) if config.objectness else None
        self.pooling = config.pooling
        self.sharpness = config.sharpness
        # With the weights, as training finds it where the configuration leaves it open; no number until the foreground
        # has been fitted.
        self.register_buffer(
            "threshold", torch.tensor(math.nan if config.objectness else config.threshold or DEFAULT_THRESHOLD)
        )
        self.threshold: Tensor
        self.progress = 0.0
        """Share of the training that is done, as the loop sets it."""
        layers: list[nn.Module] = []
        widths = [channels, *config.hidden, classes]
        for depth, (before, after) in enumerate(pairwise(widths)):
            side = config.kernel if depth == 0 and config.hidden else 1
            layers += [nn.ReLU(inplace=True), nn.Dropout(config.dropout)] if depth else []
            layers.append(nn.Conv2d(before, after, side, padding=side // 2))
        self.head = nn.Sequential(*layers)

    @property
    def needs_averages_only(self) -> bool:
        """Whether an image's averaged feature map gives the same losses as the map itself."""
        return self.pooling == "average" and len(self.head) == 1 and len(self.tail) == 0

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        features = self.tail(batch.maps.float())
        logits, maps = self.score(batch, features)
        if self.training:
            assert batch.image_labels is not None
            return {"tags": image_label_loss(logits, batch.image_labels, logits=True)}
        objects: list[Tensor | None] = [None] * len(maps)
        if self.objectness is not None and not self.threshold.isnan():
            objects = [self.objectness(row[self.early]) for row in batch.own(features)]
        rows = zip(logits.sigmoid(), maps, objects, strict=True)
        return [ViewOutput(scores, maps=row, objectness=places) for scores, row, places in rows]

    def score(self, batch: Batch, maps: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, classes) and class heatmaps, for each view (classes, h, w), of the tail's maps (B, C, H, W).

        The bias of the last layer is left out of the heatmaps, as in equation 2 of CAM: zero then means that a place
        speaks neither for nor against the class.
        """
        own = batch.own(self.head(maps[:, : self.channels]).float())
        return torch.stack([self._pool(row) for row in own]), [row - self._bias for row in own]

    def heatmaps(self, maps: Tensor) -> Tensor:
        """Class heatmaps (B, classes, h, w) of the tail's maps (B, C, h, w) without padding."""
        planes: Tensor = self.head(maps[:, : self.channels]).float()
        return planes - self._bias

    @property
    def _bias(self) -> Tensor:
        return cast(Tensor, cast(nn.Conv2d, self.head[-1]).bias)[:, None, None]

    def _pool(self, row: Tensor) -> Tensor:
        if self.pooling == "average":
            return row.mean(dim=(1, 2))
        if not self.training or self.sharpness is None:
            return row.amax(dim=(1, 2))
        first, last = self.sharpness
        return soft_maximum(row, first * (last / first) ** self.progress)


def soft_maximum(maps: Tensor, sharpness: float) -> Tensor:
    """Log-sum-exp over the places of maps (classes, h, w): (classes,) (Pinheiro & Collobert, CVPR 2015, section 3.2).

    log(mean(exp(sharpness * x))) / sharpness lies between the mean, where sharpness is small, and the maximum.
    """
    return ((maps * sharpness).logsumexp(dim=(1, 2)) - math.log(maps[0].numel())) / sharpness
