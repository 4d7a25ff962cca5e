"""FCOS (Tian et al., ICCV 2019) on one map of a frozen backbone: a detector without proposals, trained on boxes."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import box_area, clip_boxes_to_image, generalized_box_iou_loss, sigmoid_focal_loss

from boxless.backbones import Backbone
from boxless.config import HEADS
from boxless.features import Batch, Targets
from boxless.methods.base import ViewOutput
from boxless.methods.box_ops import paired_iou
from boxless.methods.box_supervised import IMAGE_SCORE_POWER, BoxSupervised, BoxSupervisedConfig
from boxless.methods.roi_pooling import context_regions

CENTRE_SIDE = 0.5
"""Sides of the central part of a box, whose cells are trained on it, over those of the box (centre sampling)."""
FAR_WEIGHT = 0.3
"""Weight of background cells outside of the context regions of all boxes, for the classes that the image has: pseudo
labels miss objects."""
ALPHA, GAMMA = 0.25, 2.0
"""Weight and exponent of the focal loss (Lin et al., ICCV 2017, section 4.1)."""
PRIOR = 0.01
"""Probability of a class in a cell before training (Lin et al., section 4.1)."""
MAX_LOG_DISTANCE = math.log(256)
"""Most that a side may be away from a cell, as the log of strides, against overflow early in training."""


@HEADS.register("fcos")
class FCOSConfig(BoxSupervisedConfig):
    """A detector without proposals that is trained on boxes (FCOS; Tian et al., ICCV 2019).

    Args:
        pca_dims: principal components kept of the backbone's last map, and of the earlier maps together; all networks
            of a run share them.
        channels: of the layers over them.
    """

    single_view: ClassVar[bool] = True
    kind: str = "fcos"
    channels: int = Field(128, ge=1)

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "FCOS":
        """See `HeadConfig.build`."""
        return FCOS(backbone, self, classes)


class FCOS(BoxSupervised):
    """Every cell of the map predicts a class, the distances to the sides of its box, and the quality of that box.

    FCOS's head (section 3.1) on one level; the quality is the IoU of the predicted box (Wu, Li, Wang, Image and Vision
    Computing 2020) in place of centre-ness. The score of a box is its class probability times its quality, times the
    image-level score to the power of `IMAGE_SCORE_POWER`.

    Args:
        backbone: for channels and stride; its maps come as hypercolumns.
        config: settings.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, config: FCOSConfig, classes: int) -> None:
        super().__init__(backbone, config, classes)
        width = config.channels
        self.reduce = nn.Sequential(nn.Conv2d(self.pca.out_channels, width, 1), nn.ReLU(inplace=True))
        self.class_tower, self.box_tower = _tower(width), _tower(width)
        self.classify = _last(width, classes, -math.log((1 - PRIOR) / PRIOR))
        self.ltrb, self.quality = _last(width, 4, 0), _last(width, 1, 0)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode, whose rows are the cells of its map."""
        maps = batch.unpadded(batch.maps)
        if self.training:
            return self._losses(batch, [view.float() for view in maps])
        maps = [self.pca(view) for view in maps]
        return [self._output(*row) for row in zip(maps, batch.sizes, self.image_scores(batch), strict=True)]

    def _losses(self, batch: Batch, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Equation 2 of FCOS, and the loss of the quality: sums over cells, over the number of those on objects."""
        assert batch.targets is not None and batch.image_labels is not None
        images = zip(maps, batch.targets, batch.sizes, batch.image_labels, strict=True)
        rows = [self._training_cells(*image) for image in images]
        logits, quality, boxes, labels, weights, matched = (torch.cat(parts) for parts in zip(*rows, strict=True))
        positive = labels < self.classes
        number = positive.sum().clamp(min=1)
        one_hot = nn.functional.one_hot(labels, self.classes + 1)[:, : self.classes].float()
        focal = sigmoid_focal_loss(logits, one_hot, ALPHA, GAMMA) * weights
        boxes, matched = boxes[positive], matched[positive]
        overlap = paired_iou(boxes.detach(), matched)
        quality_loss = nn.functional.binary_cross_entropy_with_logits(quality[positive], overlap, reduction="sum")
        return {
            "classes": focal.sum() / number,
            "boxes": generalized_box_iou_loss(boxes, matched, reduction="sum") / number,
            "quality": quality_loss / number,
        }

    def _training_cells(self, view: Tensor, targets: Targets, size: Tensor, image_labels: Tensor) -> tuple[Tensor, ...]:
        """Predictions of every cell of an image and their targets: labels, weights (cells, classes) and boxes."""
        logits, quality, boxes = self._predict_cells(view, mirrored=bool(torch.rand(()) < 0.5))
        labels, weights, nearest = match_cells(_centres(view, self.stride), targets, size, self.classes, FAR_WEIGHT)
        matched = targets.boxes[nearest] if len(targets.boxes) else boxes.detach()
        # Whatever the boxes say about a cell, it is none of the classes that the image does not have, and it may be
        # any of those that are unknown.
        by_class = torch.where(image_labels == 0, 1.0, weights[:, None]).masked_fill(image_labels.isnan(), 0)
        if targets.complete is not None:
            by_class = by_class.masked_fill((by_class == FAR_WEIGHT) & targets.complete, 1)
        return logits, quality, boxes, labels, by_class, matched

    def _output(self, view: Tensor, size: Tensor, image_scores: Tensor) -> ViewOutput:
        """Scores and boxes of the cells of one view."""
        logits, quality, boxes = self._predict_cells(view)
        boxes = clip_boxes_to_image(boxes, tuple(size.tolist()))
        scores = logits.sigmoid() * quality.sigmoid()[:, None] * image_scores**IMAGE_SCORE_POWER
        # The last cells may reach beyond the view, and so may their boxes.
        return ViewOutput(image_scores, scores * (boxes[:, 2:] > boxes[:, :2]).all(dim=1)[:, None], boxes=boxes)

    def _predict_cells(self, view: Tensor, *, mirrored: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions for the cells of a view (out_channels, h, w), row by row, in its own coordinates if mirrored too.

        Returns:
            Class logits (cells, classes), logits of the quality (cells,), and boxes (cells, 4), xyxy pixels of the
            view, which may reach beyond it.
        """
        features = self.reduce((view.flip(2) if mirrored else view)[None])
        box_features = self.box_tower(features)
        logits, quality = self.classify(self.class_tower(features)), self.quality(box_features)
        # Left, top, right and bottom, in strides (section 3.2).
        ltrb = (self.ltrb(box_features).float() * self.scale).clamp(max=MAX_LOG_DISTANCE).exp() * self.stride
        if mirrored:
            logits, quality, ltrb = logits.flip(3), quality.flip(3), ltrb.flip(3)[:, [2, 1, 0, 3]]
        classes, qualities, sides = (part[0].float().flatten(1).T for part in (logits, quality, ltrb))
        centres = _centres(view, self.stride)
        return classes, qualities[:, 0], torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], dim=1)


def match_cells(
    centres: Tensor, targets: Targets, size: Tensor, background: int, far_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Match every cell to the smallest box whose central part it is in; outside of all it is background.

    As FCOS does (section 3.1) with centre sampling: cells of a box outside of its central part have no weight. Nor do
    cells of boxes to ignore, unless they are in the central part of another.

    Args:
        centres: (cells, 2), x and y in pixels of the view.
        targets: of the view; without any box all cells are background.
        size: (2,), height and width of the view in pixels.
        background: label of the background.
        far_weight: weight of background outside of the context regions of all boxes.

    Returns:
        Labels (cells,) int64, weights (cells,), and the row of the box that each is matched to (cells,) int64.
    """
    boxes, used = targets.boxes, ~targets.ignore
    labels = torch.full((len(centres),), background, device=centres.device)
    if not len(boxes):
        return labels, centres.new_ones(len(centres)), torch.zeros_like(labels)
    middle_of_box, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (CENTRE_SIDE / 2)
    middle = _within(centres, torch.cat([middle_of_box - half, middle_of_box + half], dim=1))
    # A small box gets the nearest cell, even if that is outside of its central part.
    distances = (centres[:, None] - middle_of_box).square().sum(dim=2)
    middle |= distances == distances.amin(dim=0)
    middle &= used
    positive = middle.any(dim=1)
    nearest = torch.where(middle, box_area(boxes), torch.inf).argmin(dim=1)
    near = _within(centres, context_regions(boxes[used], size)).any(dim=1)
    weights = torch.where(near, 1.0, far_weight)
    weights = torch.where(_within(centres, boxes).any(dim=1), 0.0, weights)
    return torch.where(positive, targets.labels[nearest], labels), torch.where(positive, 1.0, weights), nearest


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
