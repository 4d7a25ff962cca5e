"""Backbones without downloads."""

import torch

from boxless.backbones import Backbone, create_backbone
from boxless.config import BackboneConfig


def bare(name: str, output_stride: int = 16) -> Backbone:
    """A backbone on torch's meta device: shapes without values, in no time."""
    with torch.device("meta"):
        return create_backbone(BackboneConfig(name=name, weights="none", output_stride=output_stride))


def map_shape(backbone: Backbone, width: int, height: int) -> tuple[int, ...]:
    """Channels, rows and columns of the last map."""
    return tuple(backbone.stages(torch.zeros(1, 3, height, width, device="meta")).shape[1:])
