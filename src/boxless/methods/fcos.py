"""A detector without proposals taught by boxes: FCOS (Tian et al., ICCV 2019) on one map of a frozen network."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from boxless.backbones import Backbone
from boxless.config import FCOSConfig
from boxless.features import Batch, Targets
from boxless.methods.box_supervised import IMAGE_SCORE_POWER, BoxSupervisedDetector
from boxless.methods.heads import context_regions, cut, paired_iou
from boxless.methods.outputs import ViewOutput

MIDDLE = 0.5
"""Sides of the part of a box whose cells are taught to find it, over those of the box (centre sampling)."""
ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al., ICCV 2017, section 4.1)."""
PRIOR = 0.01
"""How likely a class is in a cell before anything is learned (Lin et al., section 4.1)."""
FARTHEST = math.log(256)
"""Most that a side may be away from a cell, as the logarithm of strides: an early guess must not overflow."""


class FCOS(BoxSupervisedDetector):
    """Every cell of the map says which class it is in the middle of, how far the object reaches, and how sure that is.

    FCOS's head (section 3.1) on one level; the quality that stands beside the class is the IoU of the predicted box
    (Wu, Li, Wang, Image and Vision Computing 2020) instead of centre-ness. A box scores how likely the class is in the
    cell times its quality, times how likely the class is in the image to the power of `IMAGE_SCORE_POWER` (before heatmaps have
    their say: `Detector.decide`).

    Args:
        backbone: for channels and stride; its maps come as hypercolumns.
        config: the composition.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, config: FCOSConfig, classes: int) -> None:
        super().__init__(backbone, config.components, classes)
        self.config = config
        width = config.channels
        self.reduce = nn.Sequential(nn.Conv2d(self.out_channels, width, 1), nn.ReLU(inplace=True))
        self.class_tower, self.box_tower = _tower(width), _tower(width)
        self.classify = _last(width, classes, -math.log((1 - PRIOR) / PRIOR))
        self.reach, self.judge = _last(width, 4, 0), _last(width, 1, 0)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode, whose rows are the cells of its map."""
        maps = [self.project(view) for view in batch.own(batch.maps)]
        if self.training:
            return self._losses(batch, maps)
        return [self._evidence(*row) for row in zip(maps, batch.sizes, self.first_opinions(batch), strict=True)]

    def _losses(self, batch: Batch, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Equation 2 of FCOS, and the loss of the quality: sums over cells, over the number of those on objects."""
        assert batch.targets is not None and batch.image_labels is not None
        rows = [self._lesson(*row) for row in zip(maps, batch.targets, batch.sizes, batch.image_labels, strict=True)]
        logits, quality, boxes, labels, weights, goals = (torch.cat(parts) for parts in zip(*rows, strict=True))
        held = labels < self.classes
        number = held.sum().clamp(min=1)
        one_hot = nn.functional.one_hot(labels, self.classes + 1)[:, : self.classes].float()
        focal = sigmoid_focal_loss(logits, one_hot, ALPHA, GAMMA) * weights
        boxes, goals = boxes[held], goals[held]
        overlap = paired_iou(boxes.detach(), goals)
        judged = nn.functional.binary_cross_entropy_with_logits(quality[held], overlap, reduction="sum")
        return {
            "classes": focal.sum() / number,
            "boxes": generalized_box_iou_loss(boxes, goals, reduction="sum") / number,
            "quality": judged / number,
        }

    def _lesson(self, view: Tensor, targets: Targets, size: Tensor, image_labels: Tensor) -> tuple[Tensor, ...]:
        """What one image says, cell by cell, and what it is to say: labels, weights (cells, classes) and boxes."""
        logits, quality, boxes = self._look(view, mirrored=bool(torch.rand(()) < 0.5))
        labels, weights, nearest = match_cells(
            _centres(view, self.stride), targets, size, self.classes, self.config.far_weight
        )
        goals = targets.boxes[nearest] if len(targets.boxes) else boxes.detach()
        # However little boxes say about a cell, of classes that are not in the image it is none.
        return logits, quality, boxes, labels, torch.where(image_labels == 0, 1.0, weights[:, None]), goals

    def _evidence(self, view: Tensor, size: Tensor, first: ViewOutput) -> ViewOutput:
        """The mean of both mirrorings, beside what the localizer says."""
        looks = []
        for mirrored in (False, True):
            logits, quality, boxes = self._look(view, mirrored=mirrored)
            boxes = cut(boxes, size)
            scores = logits.sigmoid() * quality.sigmoid()[:, None] * first.image_scores**IMAGE_SCORE_POWER
            # The last cells may reach beyond the view, and their boxes lie there.
            scores = scores * (boxes[:, 2:] > boxes[:, :2]).all(dim=1)[:, None]
            looks.append(replace(first, proposal_scores=scores, boxes=boxes))
        return looks[0].mean_with(looks[1])

    def _look(self, view: Tensor, *, mirrored: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What the cells of a view (out_channels, h, w) say of it, row by row, however it is looked at.

        Returns:
            Class logits (cells, classes), logits of the quality (cells,), and boxes (cells, 4), xyxy pixels of the
            view, which may reach beyond it.
        """
        features = self.reduce((view.flip(2) if mirrored else view)[None])
        around = self.box_tower(features)
        logits, quality = self.classify(self.class_tower(features)), self.judge(around)
        # Left, top, right and bottom, in strides (section 3.2).
        reach = (self.reach(around).float() * self.scale).clamp(max=FARTHEST).exp() * self.stride
        if mirrored:
            logits, quality, reach = logits.flip(3), quality.flip(3), reach.flip(3)[:, [2, 1, 0, 3]]
        classes, judged, sides = (part[0].float().flatten(1).T for part in (logits, quality, reach))
        centres = _centres(view, self.stride)
        return classes, judged[:, 0], torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], dim=1)


def match_cells(
    centres: Tensor, targets: Targets, size: Tensor, background: int, far_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What every cell is to be: the class of the smallest box that it is in the middle of, or background.

    As FCOS does (section 3.1) with centre sampling: cells of a box that are not in its middle may well see its object,
    and have no weight. Nor do cells of difficult boxes, unless they are in the middle of another.

    Args:
        centres: (cells, 2), x and y in pixels of the view.
        targets: of the view; without any box all is background.
        size: (2,), height and width of the view in pixels.
        background: label of what is no object.
        far_weight: weight of background beyond the frames around all boxes: there may be an object nobody has found.

    Returns:
        Labels (cells,) int64, weights (cells,), and the row of the box that each is to find (cells,) int64.
    """
    boxes, sure = targets.boxes, ~targets.ignore
    labels = torch.full((len(centres),), background, device=centres.device)
    if not len(boxes):
        return labels, centres.new_ones(len(centres)), torch.zeros_like(labels)
    middle_of_box, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (MIDDLE / 2)
    middle = _within(centres, torch.cat([middle_of_box - half, middle_of_box + half], dim=1))
    # However small a box is, one cell finds it.
    distances = (centres[:, None] - middle_of_box).square().sum(dim=2)
    middle |= distances == distances.amin(dim=0)
    middle &= sure
    held = middle.any(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    nearest = torch.where(middle, areas, torch.inf).argmin(dim=1)
    near = _within(centres, context_regions(boxes[sure], size)).any(dim=1)
    weights = torch.where(near, 1.0, far_weight)
    weights = torch.where(_within(centres, boxes).any(dim=1), 0.0, weights)
    return torch.where(held, targets.labels[nearest], labels), torch.where(held, 1.0, weights), nearest


def _within(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (N, 2) are in boxes (M, 4): (N, M) bool."""
    return ((points[:, None] > boxes[:, :2]) & (points[:, None] < boxes[:, 2:])).all(dim=2)


def _centres(view: Tensor, stride: int) -> Tensor:
    """The centres of the cells of a map (C, h, w), row by row: (h * w, 2), x and y in pixels."""
    rows, columns = ((torch.arange(side, device=view.device) + 0.5) * stride for side in view.shape[1:])
    return torch.stack([columns.repeat(len(rows)), rows.repeat_interleave(len(columns))], dim=1)


def _tower(width: int) -> nn.Sequential:
    layers = [layer for _ in range(2) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))]
    return nn.Sequential(*layers)


def _last(inputs: int, outputs: int, bias: float) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer
