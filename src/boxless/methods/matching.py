"""What each proposal is trained to be: matching to boxes, sampling and reweighting."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from boxless.features import Targets


@dataclass(frozen=True)
class PseudoLabels:
    """Boxes of one view that its proposals are matched to, with weights.

    Args:
        boxes: (M, 4), xyxy pixels of the view.
        labels: (M,) int64, the class of each.
        weights: (M,), of each in the loss, in [0, 1].
        bags: whether the proposals matched to a box share one loss, as a bag of which some may be wrong (PCL).
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    bags: bool = False


def pseudo_labels_of(targets: Targets) -> PseudoLabels:
    """Targets with weight 1, and 0 where they are to be ignored: proposals matched to these are not trained."""
    # Of boxes that overlap a proposal alike the first is matched, which must not be an ignored one.
    order = targets.ignore.int().argsort(stable=True)
    return PseudoLabels(targets.boxes[order], targets.labels[order], 1 - targets.ignore[order].float())


def match_proposals(
    boxes: Tensor, pseudo: PseudoLabels, background: int, ignore: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Match every proposal to the box of highest IoU; under 0.5 it is background (OICR, section 3.2).

    Args:
        boxes: (N, 4), xyxy.
        pseudo: of the same image; without any, all proposals are background.
        background: label of the background.
        ignore: proposals whose highest IoU is below get weight zero: they may hold an object without a box.

    Returns:
        Labels (N,) int64, weights (N,), and the row of the box that each is matched to (N,) int64.
    """
    if not len(pseudo.boxes):
        everything = torch.full((len(boxes),), background, device=boxes.device)
        return everything, boxes.new_ones(len(boxes)), torch.zeros_like(everything)
    overlap, nearest = box_iou(boxes, pseudo.boxes).max(dim=1)
    labels = torch.where(overlap >= 0.5, pseudo.labels[nearest], background)
    return labels, pseudo.weights[nearest] * (overlap >= ignore), nearest


def sample_proposals(labels: Tensor, weights: Tensor, background: int, most: tuple[int, int, int]) -> Tensor:
    """Rows of the proposals of one image that a training step uses, drawn at random (Fast R-CNN, section 2.3).

    Args:
        labels: (N,) int64, as `match_proposals` gives them.
        weights: (N,).
        background: label of the background.
        most: proposals on objects, on background, and of weight zero.
    """
    used = weights > 0
    kinds = (labels != background) & used, (labels == background) & used, ~used
    rows = (torch.nonzero(kind).flatten() for kind in kinds)
    return torch.cat(
        [row[torch.randperm(len(row), device=row.device)[:number]] for row, number in zip(rows, most, strict=True)]
    )


def reweight(labels: Tensor, weights: Tensor, background: int, share: float) -> Tensor:
    """Scale weights so that objects have a fixed share of the loss, as in Fast R-CNN's batches (section 2.3).

    Args:
        labels: (N,) int64, as `match_proposals` gives them.
        weights: (N,).
        background: label of the background.
        share: of the objects in the loss; where an image has no object or no background, weights stay as they are.
    """
    objects = (labels != background) & (weights > 0)
    rest = (labels == background) & (weights > 0)
    if not objects.any() or not rest.any():
        return weights
    factors = torch.where(objects, share / objects.sum(), (1 - share) / rest.sum())
    return weights * factors * (weights > 0).sum()
