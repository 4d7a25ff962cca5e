"""Multiple-instance learning over proposals: WSDDN and ContextLocNet, alone or with refinement heads."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import HEADS, HeadConfig
from boxless.errors import BoxlessError
from boxless.features import Batch
from boxless.methods.base import Model, ViewOutput
from boxless.methods.drop_block import ConcreteDropBlock
from boxless.methods.layers import fully_connected, unit_rms
from boxless.methods.losses import image_label_loss, spatial_regulariser
from boxless.methods.mining import MINING
from boxless.methods.refinement import Refinement, RefinementConfig
from boxless.methods.roi_pooling import context_regions, distinct_boxes, mask_region, roi_average_pool, roi_max_pool

REDUCED_CHANNELS = 128
"""Channels of the 1x1 convolution before pooling; maps of no more channels are pooled as they are, and so are those of
pretrained hidden layers."""


@HEADS.register("mil")
class MILConfig(HeadConfig):
    """A detector over proposals that is trained on image labels by multiple-instance learning.

    Args:
        unit_rms: whether each location is normalised to unit RMS first, which keeps deep maps from responding to parts
            only.
        pool: cells a side of the RoI max pooling grid (RoIPool, as WSDDN); 1 takes the mean over the exact box instead.
        hidden: widths of the fully connected layers, or `backbone` to take the two pretrained ones of AlexNet or VGG16
            (with their pool size).
        dropout: rate after every fully connected layer.
        temperature: divisor of the detection logits before the softmax over proposals; the authors' code has 2.
        background: whether the two streams have a background class too, which no image shows (the code of MIST).
        deviation: standard deviation of the first weights of the two streams and the refinement heads.
        contrast: whether the detection stream subtracts the context region (ContextLocNet, ECCV 2016).
        drop_block: whether the most discriminative parts of regions are dropped in training (Concrete DropBlock; MIST,
            CVPR 2020, section 4.2).
        distinct: whether of proposals that RoI pooling takes from the same cells one is trained (the code of OICR and
            PCL); the others have the same features.
        sample: most proposals per image and training step, drawn at random; null takes all.
        spatial_weight: weight of WSDDN's spatial regulariser (section 3.4); the paper has 1e-4.
        refinement: heads trained on pseudo labels mined from the two streams; null leaves them out.
    """

    scores_proposals: ClassVar[bool] = True
    kind: str = "mil"
    unit_rms: bool = False
    pool: int = Field(3, ge=1)
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | Literal["backbone"] = (512, 512)
    dropout: float = Field(0.5, ge=0, lt=1)
    temperature: float = Field(2.0, gt=0)
    background: bool = False
    deviation: float = Field(0.01, gt=0)
    contrast: bool = False
    drop_block: bool = False
    distinct: bool = False
    sample: Annotated[int, Field(ge=1)] | None = None
    spatial_weight: float = Field(0.0, ge=0)
    refinement: RefinementConfig | None = None

    @model_validator(mode="after")
    def _pooling_fits(self) -> Self:
        if self.contrast and self.hidden != "backbone" and self.pool == 2:
            raise ValueError("contrast needs pool=1, or pool=3 or more for a context region around the region")
        if self.drop_block and self.hidden != "backbone" and self.pool < 5:
            raise ValueError("drop_block needs pool=5 or more: it drops blocks of 3 by 3 cells")
        return self

    def build(self, backbone: Backbone, tail: nn.Sequential, classes: int) -> "MILDetector":
        """See `HeadConfig.build`."""
        return MILDetector(backbone, tail, self, classes)

    def check(self) -> None:
        """See `HeadConfig.check`: the mining rule is needed in training only, so a run loads without it."""
        if self.refinement is not None:
            MINING.find(self.refinement.mining)


class MILHead(nn.Module):
    """WSDDN's two streams (section 3.2): a softmax over classes times a softmax over proposals.

    Args:
        inputs: width of the region features.
        classes: number of classes.
        temperature: divisor of the detection logits; the authors' code has 2, the paper does not mention it.
        deviation: standard deviation of the first weights.
    """

    def __init__(self, inputs: int, classes: int, temperature: float, deviation: float = 0.01) -> None:
        super().__init__()
        self.classify = nn.Linear(inputs, classes)
        # A bias would be the same for all proposals, and a softmax over them ignores it.
        self.detect = nn.Linear(inputs, classes, bias=False)
        self.temperature = temperature
        for layer in (self.classify, self.detect):
            nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(self.classify.bias)

    def forward(self, regions: Tensor, context: Tensor | None, counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Proposal scores of each view, equations 1 to 3.

        Args:
            regions: (sum of N, D).
            context: (sum of N, D), features of the context regions whose detection logit is subtracted (ContextLocNet's
                contrastive model), or None.
            counts: N of each view.

        Returns:
            For each view (N, classes); they sum to at most one over its proposals.
        """
        detection = self.detect(regions)
        if context is not None:
            detection = detection - self.detect(context)
        classes = self.classify(regions).float().softmax(dim=1)
        return tuple(
            which_class * (which_region.float() / self.temperature).softmax(dim=0)
            for which_class, which_region in zip(
                classes.split(list(counts)), detection.split(list(counts)), strict=True
            )
        )


class MILDetector(Model):
    """Proposals pooled from a map and scored by two streams and refinement heads.

    By its settings WSDDN (Bilen & Vedaldi, CVPR 2016); with `contrast` ContextLocNet (Kantorov et al., ECCV 2016)
    trained with WSDDN's loss; with `refinement` OICR (Tang et al., CVPR 2017), PCL (Tang et al., PAMI 2018) or MIST
    (Ren et al., CVPR 2020), which differ in the mining rule.

    Args:
        backbone: for channels, stride and pretrained hidden layers.
        tail: the backbone's trained stages; empty where all is frozen.
        config: settings.
        classes: number of classes.

    Raises:
        BoxlessError: the backbone has no fully connected layers, or there is only one class.
    """

    def __init__(self, backbone: Backbone, tail: nn.Sequential, config: MILConfig, classes: int) -> None:
        super().__init__(tail)
        if classes < 2:
            raise BoxlessError(
                "one class only: a softmax over one class is constant; take --method seeded, cam or oquab"
            )
        self.stride, self.classes = backbone.stride, classes
        self.config = config
        if config.hidden == "backbone":
            if not backbone.fully_connected:
                raise BoxlessError("head.hidden=backbone: only alexnet and vgg16 have such layers; give widths")
            channels = backbone.channels
            self.reduce: nn.Module = nn.Identity()
            self.side, width = backbone.pool, backbone.fully_connected[-1].out_features
            self.trunk = _pretrained(backbone, config.dropout)
        else:
            channels = min(backbone.channels, REDUCED_CHANNELS)
            narrow = nn.Sequential(nn.Conv2d(backbone.channels, channels, 1), nn.ReLU(inplace=True))
            self.reduce = narrow if channels < backbone.channels else nn.Identity()
            self.side = config.pool
            pooled = channels * self.side**2
            width = config.hidden[-1] if config.hidden else pooled
            self.trunk = fully_connected(pooled, config.hidden, config.dropout)
        self.drop_block = ConcreteDropBlock(channels) if config.drop_block else nn.Identity()
        self.head = MILHead(width, classes + config.background, config.temperature, config.deviation)
        self.refinement = None
        if config.refinement is not None:
            self.refinement = Refinement(width, classes, config.refinement, config.deviation)

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[ViewOutput]:
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        assert batch.proposals is not None
        maps = batch.unpadded(self.tail(batch.maps.float()))
        if not self.training:
            return self._outputs(batch, maps)
        proposals = batch.proposals
        if self.config.distinct and self.side > 1:
            proposals = [distinct_boxes(boxes, self.stride) for boxes in proposals]
        if self.config.sample:
            proposals = [_sampled(boxes, self.config.sample) for boxes in proposals]
        return self._losses(replace(batch, proposals=proposals), maps)

    def _losses(self, batch: Batch, maps: list[Tensor]) -> dict[str, Tensor]:
        assert batch.proposals is not None and batch.image_labels is not None
        counts = [len(boxes) for boxes in batch.proposals]
        regions, context = self._pool(maps, batch.proposals, batch.sizes)
        features = torch.split(regions, counts)
        streams = self.head(regions, context, counts)
        image_scores = torch.stack([view.sum(dim=0) for view in streams])
        image_labels = nn.functional.pad(batch.image_labels, (0, int(self.config.background)))
        image_loss = image_label_loss(image_scores, image_labels, logits=False)
        if self.refinement is not None:
            # OICR, PCL and MIST average over classes (their layer's backward pass divides, its printed loss does not);
            # with the sum the refinement losses would weigh less the more classes there are.
            image_loss = image_loss / image_labels.shape[1]
        losses = {"image labels": image_loss}
        if self.config.spatial_weight:
            rows = zip(features, streams, batch.proposals, batch.image_labels, strict=True)
            total = torch.stack([spatial_regulariser(*row) for row in rows]).mean()
            losses["spatial"] = self.config.spatial_weight * total
        if self.refinement is not None:
            losses |= self.refinement.losses(features, batch.proposals, batch.image_labels, streams)
        return losses

    def _outputs(self, batch: Batch, maps: list[Tensor]) -> list[ViewOutput]:
        assert batch.proposals is not None
        counts = [len(boxes) for boxes in batch.proposals]
        regions, context = self._pool(maps, batch.proposals, batch.sizes)
        streams = [view[:, : self.classes] for view in self.head(regions, context, counts)]
        images = [view.sum(dim=0) for view in streams]
        if self.refinement is None:
            return [ViewOutput(image, view) for image, view in zip(images, streams, strict=True)]
        outputs = []
        views = zip(torch.split(regions, counts), batch.proposals, images, batch.sizes, strict=True)
        for features, boxes, image, size in views:
            scores, moved = self.refinement(features, boxes, size)
            outputs.append(ViewOutput(image, scores, boxes=moved))
        return outputs

    def _pool(self, maps: list[Tensor], proposals: list[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of all proposals (sum of N, D), and of their context regions with `contrast`."""
        maps = [self._narrow(view) for view in maps]
        around = [context_regions(boxes, size) for boxes, size in zip(proposals, sizes, strict=True)]
        if self.side == 1:
            regions, context = roi_average_pool(maps, proposals, around, self.stride)
            return self.trunk(regions), self.trunk(context) if self.config.contrast else None
        regions = self.trunk(self.drop_block(roi_max_pool(maps, proposals, self.stride, self.side)))
        if not self.config.contrast:
            return regions, None
        return regions, self.trunk(mask_region(roi_max_pool(maps, around, self.stride, self.side)))

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
