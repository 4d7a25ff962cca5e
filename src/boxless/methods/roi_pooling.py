"""Features of regions: RoI max pooling, exact averages over a grid, and the context around a region."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_area, clip_boxes_to_image, roi_pool

CONTEXT_RATIO = 1.8
"""Side of the context region over that of the region (ContextLocNet, section 3.2)."""


def roi_max_pool(maps: Iterable[Tensor], boxes: Sequence[Tensor], stride: int, side: int) -> Tensor:
    """RoI max pooling (Girshick, ICCV 2015, section 2.1) of every view's boxes.

    RoIPool, not RoIAlign: WSDDN's results depend on it. It is computed in single precision whatever that of the maps:
    there is no kernel for bfloat16 on the CPU.

    Args:
        maps: for each view (C, H, W), without padding, which bins at the edge would include.
        boxes: for each view (N, 4), xyxy pixels of the view, right and bottom exclusive.
        stride: pixels a cell.
        side: cells a side of the pooled grid.

    Returns:
        (sum of N, C, side, side) float32, the boxes of the views one after the other.
    """
    # roi_pool includes the last cell, so it is given the last pixel inside the box.
    views = zip(maps, map(_last_pixels, boxes), strict=True)
    scale = 1 / stride
    return torch.cat(
        [roi_pool(own[None].float(), [rows], output_size=side, spatial_scale=scale) for own, rows in views]
    )


def distinct_boxes(boxes: Tensor, stride: int) -> Tensor:
    """The first of all boxes that `roi_max_pool` takes from the same cells, in the order given: (N, 4) -> (M, 4).

    Args:
        boxes: (N, 4), xyxy pixels of the view, right and bottom exclusive.
        stride: pixels a cell.
    """
    # As roi_pool rounds, halves away from zero.
    cells = (_last_pixels(boxes) / stride + 0.5).floor()
    groups = torch.unique(cells, dim=0, return_inverse=True)[1]
    rows = torch.arange(len(boxes), device=boxes.device)
    first = torch.full_like(rows, len(rows)).scatter_reduce(0, groups, rows, "amin")
    return boxes[first[groups] == rows]


def _last_pixels(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) with the last pixel inside in place of the first one beyond."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - 1], dim=1)


def context_regions(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes grown about their centres by `CONTEXT_RATIO` and clipped to the view: (N, 4) -> (N, 4), xyxy pixels.

    Args:
        boxes: (N, 4), xyxy pixels.
        size: (2,), height and width of the view in pixels.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (CONTEXT_RATIO / 2)
    grown = torch.cat([centre - half, centre + half], dim=1)
    found: Tensor = clip_boxes_to_image(grown, tuple(size.tolist()))
    return found


def mask_region(pooled: Tensor) -> Tensor:
    """Zero the cells of a pooled context region (N, C, side, side) that the region itself covers."""
    side = pooled.shape[-1]
    # The inner square has the parity of the grid, so that it is centred.
    inner = max(side % 2, round((side / CONTEXT_RATIO - side % 2) / 2) * 2 + side % 2)
    edge = (side - inner) // 2
    mask = pooled.new_ones(side, side)
    mask[edge : side - edge, edge : side - edge] = 0
    return pooled * mask


def roi_average_pool(
    maps: Iterable[Tensor], boxes: Sequence[Tensor], context: Sequence[Tensor], stride: int, side: int = 1
) -> tuple[Tensor, Tensor]:
    """The mean of a map over each cell of a grid on every region, and over the context around the region.

    Exact for corners within cells, from one integral map a view (Viola & Jones, CVPR 2001): the cost of a region does
    not depend on its size.

    Args:
        maps: for each view (C, H, W), without padding, which bins at the edge would include.
        boxes: for each view (N, 4), xyxy pixels of the view.
        context: their context regions, likewise, each around its box.
        stride: pixels a cell of the map.
        side: cells a side of the grid.

    Returns:
        Regions (sum of N, side, side, C) and their context (sum of N, C), the boxes of the views one after the other;
        where a context region has nothing beyond its region, zeros.
    """
    regions, contexts = [], []
    for view, inner, outer in zip(maps, boxes, context, strict=True):
        integral = nn.functional.pad(view.float().cumsum(1).cumsum(2), (1, 0, 1, 0)).permute(1, 2, 0).contiguous()
        inside, whole = _sums(integral, inner / stride, side), _sums(integral, outer / stride, 1)[:, 0, 0]
        area, grown = (box_area(edges)[:, None] / stride**2 for edges in (inner, outer))
        regions.append(inside / (area / side**2)[:, :, None, None])
        contexts.append((whole - inside.sum(dim=(1, 2))) / (grown - area).clamp(min=0.5))
    return torch.cat(regions), torch.cat(contexts)


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
