"""Any timm network that gives maps, as a backbone."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from boxless.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from boxless.backbones.cells import maps_on_grid
from boxless.backbones.timm_cnn import stages_of
from boxless.backbones.timm_models import create_model, source_of, timm_name
from boxless.backbones.timm_vit import TransformerStage, is_isotropic
from boxless.backbones.weights import licence_of
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError


def timm_backbone(config: BackboneConfig) -> Backbone:
    """A timm network with random weights, its published ones or those of a file.

    Raises:
        BoxlessError: the name is unknown, the weights cannot be had, or the network takes images of one size only or
            gives maps that do not cover the image by cells of its stride.
    """
    for model in _variants(config, timm_name(config.name)):
        infos = model.feature_info
        stride = infos[-1]["reduction"] if isinstance(infos, list) else infos.reduction()[-1]
        for stages in _candidates(model, stride):
            maps = maps_on_grid(stages.eval(), stride)
            if maps is not None:
                known = model.pretrained_cfg
                return Backbone(
                    stages=stages,
                    channels=maps[-1].shape[1],
                    stride=stride,
                    mean=tuple(known.get("mean") or IMAGENET_MEAN),
                    std=tuple(known.get("std") or IMAGENET_STD),
                    source=source_of(config),
                    licence=licence_of(config, known.get("license")),
                    levels=(len(maps) - 3, len(maps) - 2) if len(maps) > 2 else (),
                )
    raise BoxlessError(
        f"backbone '{config.name}' takes images of one size only, or its maps do not cover an image evenly; choose "
        "another, such as resnet18 or vit_small_patch14_reg4_dinov2"
    )


def _variants(config: BackboneConfig, name: str) -> Iterator[Any]:
    """The network built in each of the ways that make it take images of any size, as far as it has them."""
    if config.weights not in ("auto", "none"):
        # timm's feature extractors take what fits of a file and ignore the rest; the whole network is strict.
        create_model(config, name)
    whole, extractor = {"features_only": False}, {"features_only": True}
    for options in (
        {**extractor, "output_stride": config.output_stride},
        # Vision transformers resample their position embeddings.
        {**whole, "dynamic_img_size": True},
        # Swin masks its windows anew for each size.
        {**extractor, "strict_img_size": False},
        extractor,
    ):
        model = create_model(config, name, **options)
        if model is not None and options["features_only"] and is_isotropic(model):
            # The extractor lacks the final norm.
            model = create_model(config, name)
        if model is not None:
            yield model


def _candidates(model: Any, stride: int) -> Iterable[nn.Sequential]:
    if is_isotropic(model):
        return (nn.Sequential(TransformerStage(model, stride)),)
    return stages_of(model, stride)
