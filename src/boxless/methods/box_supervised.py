"""What heads trained on boxes have in common: the CAM for image-level scores, and principal components of the maps."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import HeadConfig
from boxless.features import Batch
from boxless.methods.base import Model
from boxless.methods.cam import CAM, CAMConfig
from boxless.methods.pca import HypercolumnPCA

IMAGE_SCORE_POWER = 0.25
"""Exponent of the image-level score that multiplies a box's score: on small sets the CAM classifier overfits the tags,
and the head classifies other images better."""


class BoxSupervisedConfig(HeadConfig):
    """Settings of all heads that are trained on boxes.

    Args:
        pca_dims: principal components kept of the backbone's last map, and of the earlier maps together; all networks
            of a run share them.
    """

    box_supervised: ClassVar[bool] = True
    pca_dims: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (192, 64)


class BoxSupervised(Model):
    """A head on the principal components of a frozen backbone's hypercolumns, beside a CAM.

    The CAM and the principal components are fitted before the head and not trained with it: `cam` and `pca` are what
    the networks of one run share.

    Args:
        backbone: for channels and stride; its maps come as hypercolumns.
        config: settings.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, config: BoxSupervisedConfig, classes: int) -> None:
        super().__init__(nn.Sequential())
        self.stride, self.classes = backbone.stride, classes
        self.cam = CAM(backbone, nn.Sequential(), CAMConfig(objectness=True), classes).requires_grad_(False)
        self.pca = HypercolumnPCA((backbone.channels, *backbone.level_channels), config.pca_dims)

    @property
    def fixed_part(self) -> nn.Module | None:
        """See `Model`."""
        return self.pca

    def image_scores(self, batch: Batch) -> list[Tensor]:
        """Image-level scores (classes,) of each view, in evaluation mode."""
        maps = batch.maps.float()
        rows = zip(self.cam.score(batch, maps)[0], batch.unpadded(maps), strict=True)
        return [self.cam.image_logits(own, pooled).sigmoid() for pooled, own in rows]
