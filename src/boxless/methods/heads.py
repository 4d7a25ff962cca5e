"""The parts that detectors over proposals are composed of."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

CONTEXT_RATIO = 1.8
"""Side of the surrounding frame over that of the region (ContextLocNet, section 3.2)."""


def pool_regions(maps: Iterable[Tensor], boxes: Sequence[Tensor], stride: int, side: int) -> Tensor:
    """RoI max pooling (Girshick, ICCV 2015, section 2.1) of every view's boxes.

    RoIPool, not RoIAlign: WSDDN's results depend on it.

    Args:
        maps: for each view (C, H, W), without padding: bins at the edge would take it in.
        boxes: for each view (N, 4), xyxy pixels of the view, right and bottom exclusive.
        stride: pixels a cell.
        side: cells a side of the pooled grid.

    Returns:
        (sum of N, C, side, side), the boxes of the views one after the other.
    """
    # roi_pool counts its last cell in, so the last pixel inside the box is what it must be given.
    inclusive = [torch.cat([view[:, :2], view[:, 2:] - 1], dim=1) for view in boxes]
    views = zip(maps, inclusive, strict=True)
    return torch.cat([roi_pool(own[None], [rows], output_size=side, spatial_scale=1 / stride) for own, rows in views])


def context_regions(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes grown about their centres by `CONTEXT_RATIO` and cut to the view: (N, 4) -> (N, 4), xyxy pixels.

    Args:
        boxes: (N, 4), xyxy pixels.
        size: (2,), height and width of the view in pixels.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (CONTEXT_RATIO / 2)
    return cut(torch.cat([centre - half, centre + half], dim=1), size)


def cut(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (N, 4), xyxy pixels, cut to a view of `size` (2,), height and width in pixels."""
    height, width = size.tolist()
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def mask_region(pooled: Tensor) -> Tensor:
    """Zero the cells of a pooled frame (N, C, side, side) that the region covers: its surroundings are left."""
    side = pooled.shape[-1]
    # The inner square has the parity of the grid, so that it stands in the middle.
    inner = max(side % 2, round((side / CONTEXT_RATIO - side % 2) / 2) * 2 + side % 2)
    edge = (side - inner) // 2
    mask = pooled.new_ones(side, side)
    mask[edge : side - edge, edge : side - edge] = 0
    return pooled * mask


def average_regions(
    maps: Iterable[Tensor], boxes: Sequence[Tensor], around: Sequence[Tensor], stride: int, side: int = 1
) -> tuple[Tensor, Tensor]:
    """The mean of a map over the cells of a grid on every region, and over what its frame has beyond it.

    Exact for corners within cells, from one integral map a view (Viola & Jones, CVPR 2001): the cost of a region does
    not depend on its size.

    Args:
        maps: for each view (C, H, W), without padding: bins at the edge would take it in.
        boxes: for each view (N, 4), xyxy pixels of the view.
        around: their frames, likewise, each around its box.
        stride: pixels a cell of the map.
        side: cells a side of the grid.

    Returns:
        Regions (sum of N, side, side, C) and surroundings (sum of N, C), the boxes of the views one after the other;
        where a frame has nothing beyond its region, zeros.
    """
    regions, surroundings = [], []
    for view, inner, outer in zip(maps, boxes, around, strict=True):
        integral = nn.functional.pad(view.float().cumsum(1).cumsum(2), (1, 0, 1, 0)).permute(1, 2, 0).contiguous()
        inside, whole = _sums(integral, inner / stride, side), _sums(integral, outer / stride, 1)[:, 0, 0]
        area, frame = (_areas(edges)[:, None] / stride**2 for edges in (inner, outer))
        regions.append(inside / (area / side**2)[:, :, None, None])
        surroundings.append((whole - inside.sum(dim=(1, 2))) / (frame - area).clamp(min=0.5))
    return torch.cat(regions), torch.cat(surroundings)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _sums(integral: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Sums of a map within grids on boxes (N, 4) in cells, from its integral (H + 1, W + 1, C): (N, side, side, C)."""
    rows, columns, channels = integral.shape
    steps = torch.linspace(0, 1, side + 1, device=boxes.device)
    near, far = boxes[:, :2, None], boxes[:, 2:, None]
    # (N, side + 1) each; with one cell these are the edges of the box to the bit.
    x, y = torch.lerp(near, far, steps).unbind(dim=1)
    (left, across), (top, down) = _taps(x, columns), _taps(y, rows)
    at = top[:, :, None, :, None] * columns + left[:, None, :, None, :]
    weights = down[:, :, None, :, None] * across[:, None, :, None, :]
    # A cell is a weighted sum of sixteen places of the integral, which one bag adds up without a copy of any.
    sums = nn.functional.embedding_bag(
        at.reshape(-1, 16), integral.reshape(-1, channels), per_sample_weights=weights.reshape(-1, 16), mode="sum"
    )
    return sums.view(-1, side, side, channels)


def _taps(edges: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Where an integral of `most` places along an axis is read for the cells between edges (N, side + 1), and with
    what weights: (N, side, 4) each, the far edge's two neighbours and then the near edge's."""
    low = edges.floor().clamp(max=most - 2)
    share, low = edges - low, low.long()
    places = torch.stack([low[:, 1:], low[:, 1:] + 1, low[:, :-1], low[:, :-1] + 1], dim=-1)
    weights = torch.stack([1 - share[:, 1:], share[:, 1:], share[:, :-1] - 1, -share[:, :-1]], dim=-1)
    return places, weights


def unit_rms(maps: Tensor) -> Tensor:
    """Scale every cell (..., C, H, W) to a root mean square of one over its channels.

    Deep maps peak on the most telling part of an object; the direction of a cell's features tells the class all over
    it.
    """
    return maps / cell_rms(maps)


def cell_rms(maps: Tensor) -> Tensor:
    """Root mean square of every cell over its channels, never quite zero: (..., C, H, W) -> (..., 1, H, W)."""
    return (maps.square().mean(dim=-3, keepdim=True) + 1e-6).sqrt()


def fully_connected(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Hidden layers over flattened regions, each followed by ReLU and dropout; without any, dropout alone."""
    layers: list[nn.Module] = [nn.Flatten()]
    if not widths:
        layers.append(nn.Dropout(dropout))
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers)


def linear(inputs: int, outputs: int, deviation: float) -> nn.Linear:
    """A linear layer with weights drawn from N(0, deviation) and no bias to begin with."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)
    return layer


def encode(boxes: Tensor, targets: Tensor) -> Tensor:
    """What moves boxes onto targets (R-CNN's parameters; Girshick et al., CVPR 2014, appendix C): (N, 4) each."""
    sides, goals = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + targets[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / (2 * sides)
    return torch.cat([shift / SHIFT, (goals / sides).log() / STRETCH], dim=1)


def decode(boxes: Tensor, moves: Tensor, size: Tensor) -> Tensor:
    """Boxes (N, 4) moved by (N, 4), the inverse of `encode`, and cut to the view.

    Args:
        boxes: (N, 4), xyxy pixels.
        moves: (N, 4).
        size: (2,), height and width of the view in pixels.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + moves[:, :2] * SHIFT * sides
    # A box grows or shrinks to a quarter at most: beyond that the network guesses.
    halves = sides * (moves[:, 2:] * STRETCH).clamp(-1.4, 1.4).exp() / 2
    return cut(torch.cat([centres - halves, centres + halves], dim=1), size)


SHIFT, STRETCH = 0.1, 0.2
"""Scales of the regression targets that make them about one (Fast R-CNN's code)."""


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of every box (N, 4), xyxy, with the one of the same row (N, 4): (N,)."""
    corners = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (corners[1] - corners[0]).clamp(min=0).prod(dim=1)
    return shared / (_areas(boxes) + _areas(others) - shared)


def mirror_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (N, 4), xyxy pixels, in a view of `width` pixels mirrored left to right."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


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
        # A bias would be the same for all proposals, and the softmax over them knows only differences.
        self.detect = nn.Linear(inputs, classes, bias=False)
        self.temperature = temperature
        for layer in (self.classify, self.detect):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

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
