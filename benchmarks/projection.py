"""`seeded` with a learned 1x1 convolution in the place of principal components, in the tables of `sets.py`.

    BOXLESS_DATA=shared/data python benchmarks/projection.py --method learned_projection --images 300 --seeds 0,1,2
    BOXLESS_DATA=shared/data python benchmarks/sets.py --images 300 --seeds 0,1,2

The convolution is trained with the head, in the detector and in all networks that are cross-fitted. It has as many
outputs as components are kept, and like these reads the last map and the earlier maps at unit RMS each.
"""

from typing import Any

import sets
import torch
import typer
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import HEADS
from boxless.features import Batch
from boxless.methods import PRESETS, FastRCNN, FastRCNNConfig, preset
from boxless.methods.fast_rcnn import PreparedView
from boxless.methods.layers import unit_rms

METHOD = "learned_projection"


@HEADS.register(METHOD)
class LearnedProjectionConfig(FastRCNNConfig):
    """The settings of `fast_rcnn`."""

    kind: str = METHOD

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "LearnedProjection":
        """See `HeadConfig.build`."""
        return LearnedProjection(backbone, self, classes)


class LearnedProjection(FastRCNN):
    """`FastRCNN` behind a 1x1 convolution that is trained with it."""

    def __init__(self, backbone: Backbone, config: LearnedProjectionConfig, classes: int) -> None:
        super().__init__(backbone, config, classes)
        self.project = nn.Conv2d(sum(self.pca.channels), self.pca.out_channels, 1)

    @property
    def fixed_part(self) -> nn.Module | None:
        """None: the convolution is trained, so it reads the maps themselves."""
        return None

    def prepare_views(self, batch: Batch) -> list[PreparedView]:
        """See `FastRCNN`."""
        maps = [self._projected(view) for view in batch.unpadded(batch.maps)]
        return [PreparedView(*row) for row in zip(maps, batch.sizes, self.image_scores(batch), strict=True)]

    def _training_rows(self, view: Tensor, *others: Any) -> tuple[Tensor, ...]:
        return super()._training_rows(self._projected(view), *others)

    def _projected(self, view: Tensor) -> Tensor:
        last, *earlier = torch.split(view.float(), list(self.pca.channels))
        normalised = torch.cat([unit_rms(last), *map(unit_rms, earlier)])
        projected: Tensor = self.project(normalised)
        return projected


PRESETS[METHOD] = {**preset("seeded"), "head": {"kind": METHOD}}

if __name__ == "__main__":
    typer.run(sets.main)
