"""Fast R-CNN (Girshick, ICCV 2015) over proposals, on the hypercolumns of a frozen backbone."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import box_iou

from boxless.backbones import Backbone
from boxless.config import HEADS
from boxless.features import Batch, Targets
from boxless.methods.base import ViewOutput
from boxless.methods.box_ops import decode, encode, mirror_boxes
from boxless.methods.box_supervised import IMAGE_SCORE_POWER, BoxSupervised, BoxSupervisedConfig
from boxless.methods.layers import fully_connected, linear
from boxless.methods.losses import box_loss, negative_label_loss, refinement_loss, with_unknown
from boxless.methods.matching import match_proposals, pseudo_labels_of, reweight, sample_proposals
from boxless.methods.roi_pooling import context_regions, roi_average_pool

OBJECT_SHARE = 0.33
"""Share of the proposals on objects in the loss of an image."""
IGNORE_IOU = 0.1
"""Proposals under this IoU with every box are not background: they may hold an object without a box."""
ROW_MULTIPLE = 128
"""Regions are padded to a multiple of this: oneDNN compiles and keeps kernels for each number of rows."""


@HEADS.register("fast_rcnn")
class FastRCNNConfig(BoxSupervisedConfig):
    """A detector over proposals that is trained on boxes (Fast R-CNN; Girshick, ICCV 2015).

    Args:
        pca_dims: principal components kept of the backbone's last map, and of the earlier maps together; all networks
            of a run share them.
        pool: cells a side of the grid over a proposal; each is the mean of the map within, as is the context region.
        hidden: widths of the fully connected layers.
        dropout: rate after each of them.
        samples: most proposals per image and training step, drawn at random: on objects, on background, and of those
            that boxes say nothing about, which are trained on the classes that the image does not have.
    """

    scores_proposals: ClassVar[bool] = True
    kind: str = "fast_rcnn"
    pool: int = Field(3, ge=1)
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((512, 512), min_length=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    samples: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] = (40, 48, 16)

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "FastRCNN":
        """See `HeadConfig.build`."""
        return FastRCNN(backbone, self, classes)


class PreparedView(NamedTuple):
    """What all proposals of a view share.

    Args:
        view: (out_channels, h, w), principal components of its locations.
        size: (2,), height and width of the view in pixels.
        image_scores: (classes,), of the CAM.
    """

    view: Tensor
    size: Tensor
    image_scores: Tensor


class FastRCNN(BoxSupervised):
    """Proposals pooled on a grid and with their context, classified and regressed.

    Differs from the paper so that it trains on a CPU: the backbone is frozen, and regions are means over the exact
    cells of a grid (integral maps), so that mirroring a region permutes its cells. Proposals that boxes say nothing
    about are trained on the image's negative labels. The score of a box is its class probability times the image-level
    score to the power of `IMAGE_SCORE_POWER`.

    Args:
        backbone: for channels and stride; its maps come as hypercolumns.
        config: settings.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, config: FastRCNNConfig, classes: int) -> None:
        super().__init__(backbone, config, classes)
        self.config = config
        self.trunk = fully_connected(self.pca.out_channels * (config.pool**2 + 1), config.hidden, config.dropout)
        self.classify = linear(config.hidden[-1], classes + 1, 0.01)
        self.regress = linear(config.hidden[-1], 4, 0.001)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        assert batch.proposals is not None
        if self.training:
            return self._losses(batch)
        return self.score_proposals(self.prepare_views(batch), batch.proposals)

    def prepare_views(self, batch: Batch) -> list[PreparedView]:
        """What does not depend on the proposals, in evaluation mode."""
        maps = [self.pca(view) for view in batch.unpadded(batch.maps)]
        return [PreparedView(*row) for row in zip(maps, batch.sizes, self.image_scores(batch), strict=True)]

    def score_proposals(self, views: Sequence[PreparedView], proposals: Sequence[Tensor]) -> list[ViewOutput]:
        """Scores and regressed boxes of the proposals (N, 4) of each view, xyxy pixels of the view."""
        return [self._output(*view, boxes) for view, boxes in zip(views, proposals, strict=True)]

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.proposals is not None and batch.targets is not None and batch.image_labels is not None
        maps = [view.float() for view in batch.unpadded(batch.maps)]
        images = zip(maps, batch.proposals, batch.targets, batch.sizes, batch.image_labels, strict=True)
        rows = [self._training_rows(*image) for image in images]
        regions, labels, weights, deltas, absent, unknown = (torch.cat(parts) for parts in zip(*rows, strict=True))
        number, matched = len(labels), weights > 0
        positive = (labels < self.classes) & matched
        hidden = self.trunk(_padded(regions))
        logits, predicted = self.classify(hidden)[:number].float(), self.regress(hidden)[:number].float()
        known = with_unknown(logits[matched], labels[matched], unknown[matched])
        return {
            "classes": refinement_loss(known, labels[matched], weights[matched]),
            "boxes": box_loss(predicted[positive], deltas[positive], weights[positive], int(matched.sum())),
            "negative labels": negative_label_loss(logits[~matched], absent[~matched]),
        }

    def _training_rows(
        self, view: Tensor, proposals: Tensor, targets: Targets, size: Tensor, image_labels: Tensor
    ) -> tuple[Tensor, ...]:
        """Sampled proposals of one image and what they are trained to be.

        Returns:
            Regions (R, D), labels (R,), weights (R,), deltas to the matched boxes (R, 4), the classes that a region
            without a box does not have (R, classes), and those that the image may have (R, classes).
        """
        boxes = pseudo_labels_of(targets)
        labels, weights, nearest = match_proposals(proposals, boxes, self.classes, IGNORE_IOU)
        rows = sample_proposals(labels, weights, self.classes, self.config.samples)
        sampled, labels = proposals[rows], labels[rows]
        absent = _absent_classes(sampled, boxes.boxes, image_labels, targets.complete)
        weights = reweight(labels, weights[rows], self.classes, OBJECT_SHARE)
        matched = boxes.boxes[nearest[rows]] if len(boxes.boxes) else sampled
        mirrored = bool(torch.rand(()) < 0.5)
        regions, context = self._grid(view, sampled, size)
        if mirrored:
            # The means over a mirrored map are the mirrored means.
            regions = regions.flip(2)
            width = size[1].item()
            sampled, matched = mirror_boxes(sampled, width), mirror_boxes(matched, width)
        flat, unknown = _flat(regions, context), image_labels.isnan().expand(len(rows), -1)
        return flat, labels, weights, encode(sampled, matched), absent, unknown

    def _output(self, view: Tensor, size: Tensor, image_scores: Tensor, proposals: Tensor) -> ViewOutput:
        """Scores and regressed boxes of one view's proposals."""
        hidden = self.trunk(_padded(_flat(*self._grid(view, proposals, size))))
        logits, deltas = (layer(hidden)[: len(proposals)].float() for layer in (self.classify, self.regress))
        scores = logits.softmax(dim=1)[:, : self.classes] * image_scores**IMAGE_SCORE_POWER
        return ViewOutput(image_scores, scores, boxes=decode(proposals, deltas, size))

    def _grid(self, view: Tensor, boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        return roi_average_pool([view], [boxes], [context_regions(boxes, size)], self.stride, self.config.pool)


def _absent_classes(proposals: Tensor, boxes: Tensor, image_labels: Tensor, complete: Tensor | None) -> Tensor:
    """The classes that proposals (N, 4) do not have, if no box says more: (N, classes) bool.

    Those that the image does not have; and far from all boxes those of which it has no other object.
    """
    absent = (image_labels == 0).expand(len(proposals), -1)
    if complete is None or not len(boxes):
        return absent
    far: Tensor = box_iou(proposals, boxes).amax(dim=1) < IGNORE_IOU
    return absent | (complete & far[:, None])


def _padded(rows: Tensor) -> Tensor:
    """Rows (N, ...), with zeros below up to a multiple of `ROW_MULTIPLE`."""
    return torch.cat([rows, rows.new_zeros(-len(rows) % ROW_MULTIPLE, *rows.shape[1:])])


def _flat(regions: Tensor, context: Tensor) -> Tensor:
    """One row a region."""
    return torch.cat([regions.flatten(1), context], dim=1)
