"""The detector over proposals that all multiple-instance methods are compositions of."""

import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import DetectorConfig
from boxless.errors import BoxlessError
from boxless.features import Batch
from boxless.methods.evidence import Evidence
from boxless.methods.heads import MILHead, average_regions, equalise, frames, fully_connected, hollow, pool_regions
from boxless.methods.losses import spatial_regulariser, tag_loss


class WeakDetector(nn.Module):
    """Proposals pooled from a map, scored by a multiple-instance head.

    WSDDN (Bilen & Vedaldi, CVPR 2016) as it is; with `contrast` ContextLocNet (Kantorov et al., ECCV 2016) trained with
    WSDDN's loss.

    Args:
        tail: the backbone's trained stages; empty where all is frozen.
        backbone: for channels, stride and pretrained hidden layers.
        config: the composition.
        classes: number of classes.

    Raises:
        BoxlessError: the backbone has no fully connected layers, or there is but one class.
    """

    def __init__(self, tail: nn.Sequential, backbone: Backbone, config: DetectorConfig, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise BoxlessError("one class only: a softmax over one class learns nothing; take --method cam or oquab")
        self.tail = tail
        self.stride = backbone.stride
        self.config = config
        if config.hidden == "backbone":
            if not backbone.fully_connected:
                raise BoxlessError("head.hidden=backbone: only alexnet and vgg16 have such layers; give widths")
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
        self.head = MILHead(width, classes, config.temperature)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[Evidence]:
        """Losses in training mode, one `Evidence` a view in evaluation mode."""
        assert batch.boxes is not None
        proposals = batch.boxes
        if self.training and self.config.sample:
            proposals = [_sampled(boxes, self.config.sample) for boxes in proposals]
        maps = self.tail(batch.maps)
        maps = self.reduce(equalise(maps) if self.config.equalise else maps)
        regions, surroundings = self._pool(batch.own(maps), proposals, batch.sizes)
        counts = [len(boxes) for boxes in proposals]
        scores = self.head(regions, surroundings, counts)
        image_scores = torch.stack([view.sum(dim=0) for view in scores])
        if not self.training:
            return [Evidence(image, view) for image, view in zip(image_scores, scores, strict=True)]
        assert batch.targets is not None
        losses = {"tags": tag_loss(image_scores, batch.targets, logits=False)}
        if self.config.spatial_weight:
            rows = zip(torch.split(regions, counts), scores, proposals, batch.targets, strict=True)
            total = torch.stack([spatial_regulariser(*row) for row in rows]).mean()
            losses["spatial"] = self.config.spatial_weight * total
        return losses

    def _pool(self, maps: list[Tensor], proposals: list[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of all proposals (sum of N, D), and of their surroundings where the method contrasts them."""
        around = [frames(boxes, size) for boxes, size in zip(proposals, sizes, strict=True)]
        if self.config.pooling == "average":
            regions, surroundings = average_regions(maps, proposals, around, self.stride)
            return self.trunk(regions), self.trunk(surroundings) if self.config.contrast else None
        regions = self.trunk(pool_regions(maps, proposals, self.stride, self.side))
        if not self.config.contrast:
            return regions, None
        return regions, self.trunk(hollow(pool_regions(maps, around, self.stride, self.side)))


def _sampled(boxes: Tensor, most: int) -> Tensor:
    return boxes if len(boxes) <= most else boxes[torch.randperm(len(boxes))[:most]]


def _pretrained(backbone: Backbone, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for layer in backbone.fully_connected:
        layers += [layer, nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
