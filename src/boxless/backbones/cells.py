"""The grid of cells of a map: cell (row, column) begins at pixel (column * stride, row * stride) of the image."""

import math

from torch import Tensor, nn

from boxless.backbones.base import maps_of_zeros

PROBE = (97, 131)
"""Height and width of an image that no stride but one divides."""


class PadToMultiple(nn.Module):
    """Pad images (B, C, H, W) with zeros, right and below, to multiples of `multiple` pixels.

    Pixels keep their coordinates, and the last row and column of cells see the whole border of the image.
    """

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        below, right = (-side % self.multiple for side in images.shape[-2:])
        return nn.functional.pad(images, (0, right, 0, below)) if below or right else images


def maps_on_grid(stages: nn.Sequential, stride: int) -> list[Tensor] | None:
    """All maps of an image of `PROBE` pixels; None where the last one does not cover it by cells of `stride` pixels.

    That is so for networks that take images of one size only or resize them, that drop the border of the image, or that
    order the axes of their maps in another way.
    """
    try:
        maps = maps_of_zeros(stages, *PROBE)
    # What networks raise for an image of another size depends on the layer that it does not fit.
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return None
    if not all(isinstance(found, Tensor) and found.dim() == 4 for found in maps):
        return None
    grid = tuple(math.ceil(side / stride) for side in PROBE)
    return maps if tuple(maps[-1].shape[-2:]) == grid else None
