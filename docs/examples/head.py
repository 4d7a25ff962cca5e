"""A head with settings of its own, and a method that uses it: class maps pooled over their strongest locations.

    python head.py train tags.csv --out runs/top --method top_share head.share=0.2

CAM averages a class map over all locations, Oquab's network takes its maximum. Between the two is the mean of the
strongest locations (WELDON; Durand, Thome, Cord, CVPR 2016, section 3.2, without its lowest-scored ones).
"""

import math

from pydantic import Field
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import HEADS, HeadConfig
from boxless.methods import PRESETS, HeatmapModel
from boxless.methods.cam import DEFAULT_THRESHOLD


@HEADS.register("top_share")
class TopShareConfig(HeadConfig):
    """Class maps pooled over their strongest locations.

    Args:
        share: of the locations of a map that are pooled.
    """

    kind: str = "top_share"
    share: float = Field(0.1, gt=0, le=1)

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "TopShare":
        """See `HeadConfig.build`."""
        return TopShare(tail, self.share, (backbone.channels, classes))


class TopShare(HeatmapModel):
    """A linear classifier of locations whose image-level logit is the mean over the strongest ones.

    `HeatmapModel` has the loss on image labels and returns the heatmaps; a head that differs more derives from
    `boxless.methods.Model` and defines `forward`.

    Args:
        tail: the backbone's trained stages; empty where all is frozen.
        share: of the locations that are pooled.
        widths: channels of the map, and the number of classes.
    """

    def __init__(self, tail: nn.Sequential, share: float, widths: tuple[int, int]) -> None:
        super().__init__(tail, widths, kernel=1, dropout=0.0, threshold=DEFAULT_THRESHOLD)
        self.share = share

    def pool(self, heatmaps: Tensor) -> Tensor:
        """Class maps (classes, h, w) -> logits (classes,)."""
        locations = heatmaps.flatten(1)
        number = math.ceil(self.share * locations.shape[1])
        return locations.topk(number, dim=1).values.mean(dim=1)


PRESETS["top_share"] = {
    "head": {"kind": "top_share"},
    "training": {"steps": 600, "batch_size": 16, "lr": 3e-3},
}

if __name__ == "__main__":
    from boxless.cli import main

    main()
