"""Is object localization for free? (Oquab, Bottou, Laptev, Sivic, CVPR 2015): heatmaps by global max pooling."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import HEADS, HeadConfig
from boxless.methods.cam import DEFAULT_THRESHOLD, HeatmapModel


@HEADS.register("oquab")
class OquabConfig(HeadConfig):
    """A fully convolutional network with global max pooling.

    Args:
        hidden: channels of the layers before the class maps; none makes a linear classifier.
        kernel: side of the first hidden layer's kernel.
        dropout: rate before every layer but the first.
        sharpness: of the log-sum-exp that replaces the maximum in training (Pinheiro & Collobert, CVPR 2015), at the
            first and at the last step; null trains the maximum itself.
        threshold: locations of at least this fraction of a map's maximum belong to the object.
    """

    kind: str = "oquab"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256,)
    kernel: Literal[1, 3] = 1
    dropout: float = Field(0.0, ge=0, lt=1)
    sharpness: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    threshold: float = Field(DEFAULT_THRESHOLD, gt=0, lt=1)

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if self.kernel != 1 and not self.hidden:
            raise ValueError("kernel is that of the first hidden layer: it needs hidden")
        return self

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "Oquab":
        """See `HeadConfig.build`."""
        return Oquab(backbone, tail, self, classes)


class Oquab(HeatmapModel):
    """The score of a class is that of its best location (section 3).

    The gradient of a maximum reaches one location per image and class; with `sharpness` training begins near the
    average of all locations and ends near the maximum.

    Args:
        backbone: for its channels.
        tail: the backbone's trained stages; empty where all is frozen.
        config: settings.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, tail: nn.Sequential, config: OquabConfig, classes: int) -> None:
        widths = (backbone.channels, *config.hidden, classes)
        super().__init__(tail, widths, config.kernel, config.dropout, config.threshold)
        self.sharpness = config.sharpness

    def pool(self, heatmaps: Tensor) -> Tensor:
        """Global max pooling; in training its smooth stand-in where `sharpness` is set."""
        if not self.training or self.sharpness is None:
            return heatmaps.amax(dim=(1, 2))
        first, last = self.sharpness
        return log_sum_exp(heatmaps, first * (last / first) ** self.progress)


def log_sum_exp(maps: Tensor, sharpness: float) -> Tensor:
    """Log-sum-exp over the locations of maps (classes, h, w): (classes,) (Pinheiro & Collobert, section 3.2).

    log(mean(exp(sharpness * x))) / sharpness lies between the mean, where sharpness is small, and the maximum.
    """
    return ((maps * sharpness).logsumexp(dim=(1, 2)) - math.log(maps[0].numel())) / sharpness
