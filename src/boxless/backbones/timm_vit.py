"""timm networks whose maps all have one resolution, vision transformers above all, as one stage of three maps."""

from typing import Any

from torch import Tensor

from boxless.backbones.base import MultiMapStage
from boxless.backbones.cells import PadToMultiple


def is_isotropic(model: Any) -> bool:
    """Whether all blocks of a timm network give maps of the same resolution, and there are enough for two levels."""
    infos = getattr(model, "feature_info", ())
    infos = getattr(infos, "info", infos)
    network = getattr(model, "model", model)
    return (
        hasattr(network, "forward_intermediates")
        and len(infos) >= 3
        and len({info["reduction"] for info in infos}) == 1
    )


class TransformerStage(MultiMapStage):
    """A vision transformer's patch tokens after a third, two thirds and all of its blocks, each as a map.

    The levels are spaced evenly, as in DPT (Ranftl et al., ICCV 2021, section 3): the blocks of the first third still
    tell positions and edges, those of the last one what the object is. All are normalised by the final layer norm, as
    DINOv2 and DINOv3 read dense features. Class and register tokens are left out.

    Args:
        model: a timm network with `forward_intermediates`; what comes after its last block is removed.
        stride: side of a patch in pixels; images are padded to multiples of it.
    """

    def __init__(self, model: Any, stride: int) -> None:
        super().__init__()
        depth = len(model.feature_info)
        self.blocks = [depth // 3 - 1, 2 * depth // 3 - 1, depth - 1]
        model.prune_intermediate_layers(self.blocks, prune_head=True)
        self.model = model
        self.pad = PadToMultiple(stride)

    def maps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C, h, w)."""
        found: list[Tensor] = self.model.forward_intermediates(
            self.pad(images), indices=self.blocks, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return found
