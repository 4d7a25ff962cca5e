"""A detector over proposals taught by boxes: Fast R-CNN (Girshick, ICCV 2015) on the maps of a frozen network."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import FastRCNNConfig
from boxless.features import Batch, Targets
from boxless.methods.box_supervised import IMAGE_SCORE_POWER, BoxSupervisedDetector
from boxless.methods.heads import (
    average_regions,
    context_regions,
    decode,
    encode,
    fully_connected,
    linear,
    mirror_boxes,
)
from boxless.methods.losses import box_loss, negative_label_loss, refinement_loss
from boxless.methods.mining import assign, balance, draw, trust
from boxless.methods.outputs import ViewOutput

OBJECTS = 0.33
"""Share of the proposals on objects in an image's loss."""
IGNORE = 0.1
"""Proposals that overlap no box by this much are not background: they may hold an object that nobody has found."""
ROWS = 128
"""Regions go through the layers in multiples of this: kernels are compiled for a number of rows, and kept."""


class PreparedView(NamedTuple):
    """A view before any proposal is looked at.

    Args:
        view: (out_channels, h, w), what describes its cells.
        size: (2,), height and width of the view in pixels.
        first: what the localizer says.
    """

    view: Tensor
    size: Tensor
    first: ViewOutput


class FastRCNN(BoxSupervisedDetector):
    """Proposals described by what the maps hold on a grid over them and around them, classified and moved.

    Differs from the paper so that a laptop can do it: the network below is frozen, and as nothing of it is trained,
    regions are means over exact cells of a grid (integral maps), whose mirror images cost nothing. Proposals that boxes
    say nothing about learn from the tags which classes they are not. A box scores how likely the class is in it times
    how likely it is in the image to the power of `IMAGE_SCORE_POWER` (before heatmaps have their say: `Detector.decide`).

    Args:
        backbone: for channels and stride; its maps come as hypercolumns.
        config: the composition.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, config: FastRCNNConfig, classes: int) -> None:
        super().__init__(backbone, config.components, classes)
        self.config = config
        self.trunk = fully_connected(self.out_channels * (config.pool**2 + 1), config.hidden, config.dropout)
        self.classify = linear(config.hidden[-1], classes + 1, 0.01)
        self.regress = linear(config.hidden[-1], 4, 0.001)
        self._kept: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        assert batch.boxes is not None
        if self.training:
            return self._losses(batch)
        return self.judge(self.prepare_view(batch), batch.boxes)

    def prepare_view(self, batch: Batch) -> list[PreparedView]:
        """What is the same of each view whichever of its proposals are judged, in evaluation mode."""
        maps = [self.project(view) for view in batch.own(batch.maps)]
        return [PreparedView(*row) for row in zip(maps, batch.sizes, self.first_opinions(batch), strict=True)]

    def judge(self, views: Sequence[PreparedView], proposals: Sequence[Tensor]) -> list[ViewOutput]:
        """What the head says of proposals (N, 4) of each view, xyxy pixels of the view."""
        return [self._evidence(*view, boxes) for view, boxes in zip(views, proposals, strict=True)]

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.boxes is not None and batch.targets is not None and batch.image_labels is not None
        maps = [self.project(view) for view in batch.own(batch.maps)]
        images = zip(maps, batch.boxes, batch.targets, batch.sizes, batch.image_labels, strict=True)
        rows = [self._lesson(*image) for image in images]
        regions, labels, weights, goals, absent = (torch.cat(parts) for parts in zip(*rows, strict=True))
        number, taught = len(labels), weights > 0
        held = (labels < self.classes) & taught
        hidden = self.trunk(_padded(regions))
        logits, moves = self.classify(hidden)[:number].float(), self.regress(hidden)[:number].float()
        return {
            "classes": refinement_loss(logits[taught], labels[taught], weights[taught]),
            "boxes": box_loss(moves[held], goals[held], weights[held], int(taught.sum())),
            "absent": negative_label_loss(logits[~taught], absent[~taught]),
        }

    def _lesson(
        self, view: Tensor, proposals: Tensor, targets: Targets, size: Tensor, image_labels: Tensor
    ) -> tuple[Tensor, ...]:
        """What one image teaches.

        Returns:
            Regions (R, D), their labels (R,), weights (R,), where they move (R, 4), and which classes they are not
            (R, classes): of those without weight, which may be anything that is in the image, nothing else is known.
        """
        taught = trust(targets)
        labels, weights, nearest = assign(proposals, taught, self.classes, IGNORE)
        rows = draw(labels, weights, self.classes, (*self.config.sample, self.config.elsewhere))
        boxes, labels = proposals[rows], labels[rows]
        weights = balance(labels, weights[rows], self.classes, OBJECTS)
        goals = taught.boxes[nearest[rows]] if len(taught.boxes) else boxes
        mirrored = bool(torch.rand(()) < 0.5)
        regions = _flat(*self._grid(view, boxes, size), mirrored=mirrored)
        if mirrored:
            width = size[1].item()
            boxes, goals = mirror_boxes(boxes, width), mirror_boxes(goals, width)
        return regions, labels, weights, encode(boxes, goals), (image_labels == 0).expand(len(rows), -1)

    def _evidence(self, view: Tensor, size: Tensor, first: ViewOutput, proposals: Tensor) -> ViewOutput:
        """The mean of both mirrorings, beside what the localizer says."""
        width = size[1].item()
        looks = []
        for mirrored, hidden in enumerate(self._both_ways(*map(_padded, self._grid(view, proposals, size)))):
            boxes = mirror_boxes(proposals, width) if mirrored else proposals
            logits, moves = self.classify(hidden)[: len(boxes)].float(), self.regress(hidden)[: len(boxes)].float()
            moved = decode(boxes, moves, size)
            scores = logits.softmax(dim=1)[:, : self.classes] * first.image_scores**IMAGE_SCORE_POWER
            found = mirror_boxes(moved, width) if mirrored else moved
            looks.append(replace(first, proposal_scores=scores, boxes=found))
        return looks[0].mean_with(looks[1])

    def _both_ways(self, regions: Tensor, surroundings: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk makes of regions and of their mirror images, for little more than the price of one.

        The first layer is by far the widest. It is linear, so with w' the weights w mirrored, w x and w mirrored(x) are
        (w + w') / 2 x plus and minus (w - w') / 2 x, of which the one needs only what is symmetric in a region and the
        other only what is not: half the columns each.
        """
        symmetric, other = self._halves(regions.shape[1:])
        half, whole = regions.shape[2] // 2, (regions.shape[2] + 1) // 2
        left, middle, right = regions[:, :, :half], regions[:, :, half:whole], regions.flip(2)[:, :, :half]
        # The middle column is its own mirror image.
        even = torch.cat([(left + right).flatten(1), middle.flatten(1), surroundings], dim=1)
        common = nn.functional.linear(even, symmetric, self._first.bias)
        difference = nn.functional.linear((left - right).flatten(1), other)
        rest = self.trunk[2:]
        return rest(common + difference), rest(common - difference)

    def _halves(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The first layer's weights for what is symmetric in regions of this shape, and for what is not.

        They are kept until the weights change: to compute them takes as long as a hundred regions do.
        """
        weights = self._first.weight.detach()
        state = weights.data_ptr(), weights._version
        if self._kept is None or self._kept[0] != state:
            grid = weights[:, : shape.numel()].reshape(-1, *shape)
            half, whole = shape[1] // 2, (shape[1] + 1) // 2
            symmetric, other = (grid + grid.flip(2)) / 2, (grid - grid.flip(2)) / 2
            parts = [
                symmetric[:, :, :half].flatten(1),
                symmetric[:, :, half:whole].flatten(1),
                weights[:, shape.numel() :],
            ]
            self._kept = state, torch.cat(parts, dim=1), other[:, :, :half].flatten(1).contiguous()
        return self._kept[1:]

    @property
    def _first(self) -> nn.Linear:
        layer = self.trunk[1]
        assert isinstance(layer, nn.Linear)
        return layer

    def _grid(self, view: Tensor, boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        return average_regions([view], [boxes], [context_regions(boxes, size)], self.stride, self.config.pool)


def _padded(rows: Tensor) -> Tensor:
    """Rows (N, ...), and below them zeros up to a multiple of `ROWS`."""
    return torch.cat([rows, rows.new_zeros(-len(rows) % ROWS, *rows.shape[1:])])


def _flat(regions: Tensor, surroundings: Tensor, *, mirrored: bool) -> Tensor:
    """One row a region; the means of a mirrored map are the mirrored means."""
    return torch.cat([(regions.flip(2) if mirrored else regions).flatten(1), surroundings], dim=1)
