"""Class activation maps (CAM; Zhou et al., CVPR 2016): a linear classifier of averaged features, and its heatmaps."""

import math
from itertools import pairwise
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import HEADS, HeadConfig
from boxless.features import Batch
from boxless.methods.base import Model, ViewOutput
from boxless.methods.local_cam import LocalCAM
from boxless.methods.losses import image_label_loss
from boxless.methods.objectness import Objectness

DEFAULT_THRESHOLD = 0.1
"""Fitting it without boxes gained nothing on average of five development sets (docs/lab_book)."""


@HEADS.register("cam")
class CAMConfig(HeadConfig):
    """Class activation maps of a linear classifier.

    Args:
        threshold: locations of at least this fraction of a map's maximum belong to the object.
        objectness: whether class-agnostic objectness is trained on the locations where local CAMs are certain
            (`methods/objectness.py`, `methods/local_cam.py`), and combined with the maps to find where objects end;
            needs `backbone.freeze=all`.
    """

    kind: str = "cam"
    threshold: float = Field(DEFAULT_THRESHOLD, gt=0, lt=1)
    objectness: bool = False

    @property
    def hypercolumns(self) -> bool:
        """Objectness and local CAMs read the maps of earlier stages."""
        return self.objectness

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "CAM":
        """See `HeadConfig.build`."""
        return CAM(backbone, tail, self, classes)


class HeatmapModel(Model):
    """A fully convolutional head with one map a class, pooled to one score a class.

    Args:
        tail: the backbone's trained stages; empty where all is frozen.
        widths: channels of the map that the tail gives, of hidden layers, and the number of classes.
        kernel: side of the first hidden layer's kernel.
        dropout: rate before every layer but the first.
        threshold: fraction of a map's maximum from which a location belongs to the object; NaN until objectness is
            fitted.
    """

    def __init__(
        self, tail: nn.Sequential, widths: tuple[int, ...], kernel: int, dropout: float, threshold: float
    ) -> None:
        super().__init__(tail)
        self.channels = widths[0]
        # A buffer, so that it is saved with the weights.
        self.register_buffer("threshold", torch.tensor(threshold))
        self.threshold: Tensor
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(pairwise(widths)):
            side = kernel if depth == 0 else 1
            layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)] if depth else []
            layers.append(nn.Conv2d(before, after, side, padding=side // 2))
        self.head = nn.Sequential(*layers)

    def pool(self, heatmaps: Tensor) -> Tensor:
        """Class logits (classes,) of the class maps (classes, h, w) of one view, bias included."""
        raise NotImplementedError

    def objectness_of(self, maps: Tensor) -> Tensor | None:
        """Log odds (h, w) that a location of the tail's maps (C, h, w) is on an object; None where that is unknown."""
        return None

    def image_logits(self, maps: Tensor, pooled: Tensor) -> Tensor:
        """Class logits (classes,) of one view: those pooled, whatever its tail's maps (C, h, w) are."""
        return pooled

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        features = self.tail(batch.maps.float())
        logits, maps = self.score(batch, features)
        if self.training:
            assert batch.image_labels is not None
            return {"image labels": image_label_loss(logits, batch.image_labels, logits=True)}
        rows = zip(logits, maps, batch.unpadded(features), strict=True)
        return [
            ViewOutput(self.image_logits(own, pooled).sigmoid(), maps=row, objectness=self.objectness_of(own))
            for pooled, row, own in rows
        ]

    def score(self, batch: Batch, maps: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, classes) and heatmaps, for each view (classes, h, w), of the tail's maps (B, C, H, W).

        The bias of the last layer is left out of the heatmaps, as in equation 2 of CAM: at zero a location is evidence
        neither for nor against the class.
        """
        own = batch.unpadded(self.head(maps[:, : self.channels]).float())
        return torch.stack([self.pool(row) for row in own]), [row - self._bias for row in own]

    @property
    def _bias(self) -> Tensor:
        return cast(Tensor, cast(nn.Conv2d, self.head[-1]).bias)[:, None, None]


class CAM(HeatmapModel):
    """A linear classifier of globally averaged features; its heatmaps are class activation maps (Zhou, equation 2).

    Args:
        backbone: for its channels; with `config.objectness` its maps come as hypercolumns.
        tail: the backbone's trained stages; empty where all is frozen.
        config: settings.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, tail: nn.Sequential, config: CAMConfig, classes: int) -> None:
        # Local CAMs and objectness are fitted after the classifier.
        threshold = math.nan if config.objectness else config.threshold
        super().__init__(tail, (backbone.channels, classes), 1, 0.0, threshold)
        self.threshold_once_fitted = config.threshold
        self.objectness: Objectness | None = None
        self.local: LocalCAM | None = None
        if config.objectness:
            levels = backbone.level_channels
            self.objectness = Objectness(levels[0]).requires_grad_(False)
            self.local = LocalCAM(levels, classes).requires_grad_(False)
            self.early = slice(backbone.channels, backbone.channels + levels[0])
            self.levels = slice(backbone.channels, backbone.channels + sum(levels))

    @property
    def needs_averages_only(self) -> bool:
        """True where the backbone is frozen: the classifier is linear."""
        return len(self.tail) == 0

    def pool(self, heatmaps: Tensor) -> Tensor:
        """Global average pooling."""
        return heatmaps.mean(dim=(1, 2))

    def image_logits(self, maps: Tensor, pooled: Tensor) -> Tensor:
        """The mean with those of the local CAM, once it is fitted: averages over the image miss small objects."""
        if self.local is None or self.threshold.isnan():
            return pooled
        return (pooled + self.local.pool(self.local(maps[self.levels]))) / 2

    def objectness_of(self, maps: Tensor) -> Tensor | None:
        """Log odds (h, w) of the early level of hypercolumns (C, h, w); None until they have been fitted."""
        if self.objectness is None or self.threshold.isnan():
            return None
        found: Tensor = self.objectness(maps[self.early])
        return found
