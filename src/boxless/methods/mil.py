"""The detector over proposals that all methods with proposals are compositions of."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import MILConfig
from boxless.errors import BoxlessError
from boxless.features import Batch
from boxless.methods.drop_block import ConcreteDropBlock
from boxless.methods.heads import (
    MILHead,
    average_regions,
    context_regions,
    fully_connected,
    mask_region,
    mirror_boxes,
    pool_regions,
    unit_rms,
)
from boxless.methods.losses import image_label_loss, spatial_regulariser
from boxless.methods.outputs import ViewOutput
from boxless.methods.refinement import Refinement


class MILDetector(nn.Module):
    """Proposals pooled from a map and scored by heads.

    WSDDN (Bilen & Vedaldi, CVPR 2016) as it is; with `contrast` ContextLocNet (Kantorov et al., ECCV 2016) trained with
    WSDDN's loss; with `refinement` OICR (Tang et al., CVPR 2017), PCL (Tang et al., PAMI 2018) or MIST (Ren et al.,
    CVPR 2020) by what mines its pseudo boxes.

    Args:
        tail: the backbone's trained stages; empty where all is frozen.
        backbone: for channels, stride and pretrained hidden layers.
        config: the composition.
        classes: number of classes.

    Raises:
        BoxlessError: the backbone has no fully connected layers, or there is but one class.
    """

    def __init__(self, tail: nn.Sequential, backbone: Backbone, config: MILConfig, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise BoxlessError(
                "one class only: a softmax over one class learns nothing; take --method seeded, cam or oquab"
            )
        self.tail = tail
        self.stride = backbone.stride
        self.config = config
        if config.hidden == "backbone":
            if not backbone.fully_connected:
                raise BoxlessError("head.hidden=backbone: only alexnet and vgg16 have such layers; give widths")
            channels = backbone.channels
            self.reduce: nn.Module = nn.Identity()
            self.side, width = backbone.pool, backbone.fully_connected[-1].out_features
            self.trunk = _pretrained(backbone, config.dropout)
        else:
            channels = config.reduce or backbone.channels
            narrow = nn.Sequential(nn.Conv2d(backbone.channels, channels, 1), nn.ReLU(inplace=True))
            self.reduce = narrow if config.reduce else nn.Identity()
            self.side = config.pool
            pooled = channels * self.side**2
            width = config.hidden[-1] if config.hidden else pooled
            self.trunk = fully_connected(pooled, config.hidden, config.dropout)
        self.drop_block = ConcreteDropBlock(channels) if config.drop_block else nn.Identity()
        self.head = MILHead(width, classes, config.temperature)
        self.refinement = None if config.refinement is None else Refinement(width, classes, config.refinement)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        assert batch.boxes is not None
        maps = self.tail(batch.maps.float())
        if not self.training:
            evidence = self._evidence(batch, maps, mirrored=False)
            if not self.config.mirror:
                return evidence
            again = self._evidence(batch, maps, mirrored=True)
            return [one.mean_with(other) for one, other in zip(evidence, again, strict=True)]
        proposals = batch.boxes
        if self.config.sample:
            proposals = [_sampled(boxes, self.config.sample) for boxes in proposals]
        return self._losses(replace(batch, boxes=proposals), maps)

    def _losses(self, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        assert batch.image_labels is not None
        mirrored = self.config.mirror and bool(torch.rand(()) < 0.5)
        own, proposals = self._turned(batch, maps, mirrored=mirrored)
        counts = [len(boxes) for boxes in proposals]
        regions, surroundings = self._pool(own, proposals, batch.sizes)
        features = torch.split(regions, counts)
        streams = self.head(regions, surroundings, counts)
        image_scores = torch.stack([view.sum(dim=0) for view in streams])
        losses = {"tags": image_label_loss(image_scores, batch.image_labels, logits=False)}
        if self.config.spatial_weight:
            rows = zip(features, streams, proposals, batch.image_labels, strict=True)
            total = torch.stack([spatial_regulariser(*row) for row in rows]).mean()
            losses["spatial"] = self.config.spatial_weight * total
        if self.refinement is not None:
            losses |= self.refinement.losses(features, proposals, batch.image_labels, streams)
        return losses

    def _evidence(self, batch: Batch, maps: Tensor, *, mirrored: bool) -> list[ViewOutput]:
        """One way to look at the views."""
        own, proposals = self._turned(batch, maps, mirrored=mirrored)
        counts = [len(boxes) for boxes in proposals]
        regions, surroundings = self._pool(own, proposals, batch.sizes)
        streams = self.head(regions, surroundings, counts)
        images = [view.sum(dim=0) for view in streams]
        if self.refinement is None:
            return [ViewOutput(image, view) for image, view in zip(images, streams, strict=True)]
        found = []
        views = zip(torch.split(regions, counts), proposals, images, batch.sizes, strict=True)
        for features, boxes, image, size in views:
            scores, moved = self.refinement(features, boxes, size)
            if moved is not None and mirrored:
                moved = mirror_boxes(moved, size[1].item())
            found.append(ViewOutput(image, scores, boxes=moved))
        return found

    def _turned(self, batch: Batch, maps: Tensor, *, mirrored: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Each view's map without padding, and its proposals, both mirrored left to right where asked."""
        assert batch.boxes is not None
        own = batch.own(maps)
        if not mirrored:
            return own, batch.boxes
        widths = batch.sizes[:, 1].tolist()
        turned = [mirror_boxes(boxes, width) for boxes, width in zip(batch.boxes, widths, strict=True)]
        return [view.flip(2) for view in own], turned

    def _pool(self, own: list[Tensor], proposals: list[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of all proposals (sum of N, D), and of their surroundings where the method contrasts them."""
        maps = [self._narrow(view) for view in own]
        around = [context_regions(boxes, size) for boxes, size in zip(proposals, sizes, strict=True)]
        if self.config.pooling == "average":
            regions, surroundings = average_regions(maps, proposals, around, self.stride)
            return self.trunk(regions), self.trunk(surroundings) if self.config.contrast else None
        regions = self.trunk(self.drop_block(pool_regions(maps, proposals, self.stride, self.side)))
        if not self.config.contrast:
            return regions, None
        return regions, self.trunk(mask_region(pool_regions(maps, around, self.stride, self.side)))

    def _narrow(self, view: Tensor) -> Tensor:
        narrowed: Tensor = self.reduce(unit_rms(view[None]) if self.config.unit_rms else view[None])
        return narrowed[0]


def _sampled(boxes: Tensor, most: int) -> Tensor:
    return boxes if len(boxes) <= most else boxes[torch.randperm(len(boxes))[:most]]


def _pretrained(backbone: Backbone, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for layer in backbone.fully_connected:
        layers += [layer, nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
