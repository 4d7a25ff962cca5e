"""Operations on boxes: xyxy, float, in pixels of a view, right and bottom exclusive."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

CHANCE_ROWS = 500
"""About how many other boxes tell which IoU is chance."""
DELTA_SCALE_XY, DELTA_SCALE_WH = 0.1, 0.2
"""Scales that give regression targets a deviation of about one (Fast R-CNN's code)."""
MAX_LOG_RATIO = 1.4
"""exp(1.4) is about 4: no box grows or shrinks by more, as the network extrapolates there."""


def areas(boxes: Tensor) -> Tensor:
    """Areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def clip_boxes(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (N, 4), xyxy pixels, clipped to a view of `size` (2,), height and width in pixels."""
    height, width = size.tolist()
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def mirror_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (N, 4), xyxy pixels, in a view of `width` pixels mirrored left to right."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of every box (N, 4), xyxy, with the one of the same row (N, 4): (N,)."""
    corners = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (corners[1] - corners[0]).clamp(min=0).prod(dim=1)
    return shared / (areas(boxes) + areas(others) - shared)


def chance_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """The mean IoU of every box (N, 4), xyxy, with those of the other rows (N, 4), N at least 2: (N,).

    It is the IoU to expect of two boxes that know the usual places and sizes of a class and nothing of the image. Of
    many rows about `CHANCE_ROWS` are compared.
    """
    rows = torch.arange(0, len(others), max(1, len(others) // CHANCE_ROWS), device=boxes.device)
    overlaps = box_iou(boxes, others[rows])
    own = torch.zeros_like(overlaps)
    own[rows, torch.arange(len(rows), device=boxes.device)] = 1
    found: Tensor = (overlaps * (1 - own)).sum(dim=1) / (1 - own).sum(dim=1)
    return found


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
    return clip_boxes(torch.cat([centres - halves, centres + halves], dim=1), size)
