"""The parts that detectors over proposals are composed of."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

FRAME_RATIO = 1.8
"""Side of the surrounding frame over that of the region (ContextLocNet, section 3.2)."""


def pool_regions(maps: Tensor, boxes: Sequence[Tensor], stride: int, side: int) -> Tensor:
    """RoI max pooling (Girshick, ICCV 2015, section 2.1) of every view's boxes.

    RoIPool, not RoIAlign: WSDDN's results depend on it.

    Args:
        maps: (B, C, H, W).
        boxes: for each view (N, 4), xyxy pixels of the view, right and bottom exclusive.
        stride: pixels a cell.
        side: cells a side of the pooled grid.

    Returns:
        (sum of N, C, side, side), the boxes of the views one after the other.
    """
    # roi_pool counts its last cell in, so the last pixel inside the box is what it must be given.
    inclusive = [torch.cat([view[:, :2], view[:, 2:] - 1], dim=1) for view in boxes]
    return cast(Tensor, roi_pool(maps, inclusive, output_size=side, spatial_scale=1 / stride))


def frames(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes grown about their centres by `FRAME_RATIO` and cut to the view: (N, 4) -> (N, 4), xyxy pixels.

    Args:
        boxes: (N, 4), xyxy pixels.
        size: (2,), height and width of the view in pixels.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (FRAME_RATIO / 2)
    grown = torch.cat([centre - half, centre + half], dim=1)
    height, width = size.tolist()
    return torch.minimum(grown.clamp(min=0), grown.new_tensor([width, height, width, height]))


def hollow(pooled: Tensor) -> Tensor:
    """Zero the cells of a pooled frame (N, C, side, side) that the region covers: its surroundings are left."""
    side = pooled.shape[-1]
    # The inner square has the parity of the grid, so that it stands in the middle.
    inner = max(side % 2, round((side / FRAME_RATIO - side % 2) / 2) * 2 + side % 2)
    edge = (side - inner) // 2
    mask = pooled.new_ones(side, side)
    mask[edge : side - edge, edge : side - edge] = 0
    return pooled * mask


def fully_connected(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Hidden layers over flattened regions, each followed by ReLU and dropout."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers)


class MILHead(nn.Module):
    """WSDDN's two streams (section 3.2): which class is this region, and which region is this class.

    Args:
        inputs: width of the region features.
        classes: number of classes.
        temperature: divisor of the detection logits; the authors' code has 2 where the paper is silent.
    """

    def __init__(self, inputs: int, classes: int, temperature: float) -> None:
        super().__init__()
        self.classify = nn.Linear(inputs, classes)
        self.detect = nn.Linear(inputs, classes)
        self.temperature = temperature
        for layer in (self.classify, self.detect):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor, surroundings: Tensor | None, counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Proposal scores of each view, equations 1 to 3.

        Args:
            regions: (sum of N, D).
            surroundings: (sum of N, D), features of the frames whose detection logit is subtracted (ContextLocNet's
                contrastive model), or None.
            counts: N of each view.

        Returns:
            For each view (N, classes); they sum to at most one over its proposals.
        """
        detection = self.detect(regions)
        if surroundings is not None:
            detection = detection - self.detect(surroundings)
        classes = self.classify(regions).float().softmax(dim=1)
        return tuple(
            which_class * (which_region.float() / self.temperature).softmax(dim=0)
            for which_class, which_region in zip(
                classes.split(list(counts)), detection.split(list(counts)), strict=True
            )
        )
