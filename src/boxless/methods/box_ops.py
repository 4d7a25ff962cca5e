"""Operations on boxes: xyxy, float, in pixels of a view, right and bottom exclusive."""

import torch
from torch import Tensor
from torchvision.ops import box_area, clip_boxes_to_image

DELTA_SCALE_XY, DELTA_SCALE_WH = 0.1, 0.2
"""Scales that give regression targets a deviation of about one (Fast R-CNN's code)."""
MAX_LOG_RATIO = 1.4
"""exp(1.4) is about 4: no box grows or shrinks by more, as the network extrapolates there."""


def mirror_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (N, 4), xyxy pixels, in a view of `width` pixels mirrored left to right."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of every box (N, 4), xyxy, with the one of the same row (N, 4): (N,)."""
    corners = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (corners[1] - corners[0]).clamp(min=0).prod(dim=1)
    overlaps: Tensor = shared / (box_area(boxes) + box_area(others) - shared)
    return overlaps


def encode(boxes: Tensor, targets: Tensor) -> Tensor:
    """Deltas that move boxes onto targets (R-CNN's parameters; Girshick et al., CVPR 2014, appendix C): (N, 4) each."""
    sides, target_sides = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + targets[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / (2 * sides)
    return torch.cat([shift / DELTA_SCALE_XY, (target_sides / sides).log() / DELTA_SCALE_WH], dim=1)


def decode(boxes: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """Boxes moved by deltas, the inverse of `encode`, clipped to the view: (N, 4).

    Args:
        boxes: (N, 4), xyxy pixels.
        deltas: (N, 4).
        size: (2,), height and width of the view in pixels.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + deltas[:, :2] * DELTA_SCALE_XY * sides
    halves = sides * (deltas[:, 2:] * DELTA_SCALE_WH).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    moved = torch.cat([centres - halves, centres + halves], dim=1)
    found: Tensor = clip_boxes_to_image(moved, tuple(size.tolist()))
    return found
