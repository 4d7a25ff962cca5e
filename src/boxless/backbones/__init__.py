"""Backbones: pretrained networks as stages that turn an image into maps.

A function that takes a `BackboneConfig` and returns a `Backbone` is added under a name by `@BACKBONES.register(name)`;
`docs/examples/backbone.py` is an example. All other names are timm's.
"""

from boxless.backbones import efficientnet as _efficientnet  # noqa: F401  (registers its names)
from boxless.backbones import torchvision_networks as _torchvision_networks  # noqa: F401
from boxless.backbones.base import BACKBONES, Backbone, Hypercolumns, MultiMapStage
from boxless.backbones.folding import folded, normalised
from boxless.backbones.timm_backbone import timm_backbone
from boxless.backbones.weights import fingerprint
from boxless.config import BackboneConfig

__all__ = [
    "BACKBONES",
    "Backbone",
    "Hypercolumns",
    "MultiMapStage",
    "create_backbone",
    "fingerprint",
    "folded",
    "normalised",
]


def create_backbone(config: BackboneConfig) -> Backbone:
    """Build a backbone and load its weights.

    The stages are in evaluation mode: batch normalisation keeps its ImageNet statistics, as batches are a few images.

    Raises:
        BoxlessError: the name is unknown, or the weights cannot be had; the message lists alternatives.
    """
    backbone = BACKBONES.get(config.name, timm_backbone)(config)
    backbone.stages.eval()
    return backbone
