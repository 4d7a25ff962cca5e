"""AlexNet, VGG16 and ResNet-50 of torchvision, as the papers on learning from tags use them."""

from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from boxless.backbones.base import BACKBONES, IMAGENET_MEAN, IMAGENET_STD, Backbone
from boxless.backbones.weights import download, licence_of, load_weights
from boxless.config import BackboneConfig


@BACKBONES.register("alexnet")
def alexnet(config: BackboneConfig) -> Backbone:
    """AlexNet without its last pooling layer, at a stride of 16, as in WSDDN (Bilen & Vedaldi, CVPR 2016)."""
    model = _model(config)
    return _with_hidden_layers(config, model, list(model.features.children())[:-1], pool=6, stride=16, min_side=31)


@BACKBONES.register("vgg16")
def vgg16(config: BackboneConfig) -> Backbone:
    """VGG16 without its last pooling layer, at a stride of 16, or of 8 as in OICR (Tang et al., CVPR 2017)."""
    model = _model(config)
    layers = list(model.features.children())[:-1]
    stride = 8 if config.output_stride == 8 else 16
    if stride == 8:
        _dilate(layers)
    return _with_hidden_layers(config, model, layers, pool=7, stride=stride, min_side=stride)


@BACKBONES.register("resnet50")
def resnet50(config: BackboneConfig) -> Backbone:
    """ResNet-50, whose last stages are dilated to reach the output stride."""
    model = _model(config, replace_stride_with_dilation=[False, config.output_stride <= 8, config.output_stride <= 16])
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return Backbone(
        stages=nn.Sequential(stem, model.layer1, model.layer2, model.layer3, model.layer4),
        channels=2048,
        stride=config.output_stride,
        levels=(2, 3),
        **_origin(config),
    )


def _model(config: BackboneConfig, **options: Any) -> Any:
    build = getattr(torchvision.models, config.name)
    if config.weights == "auto":
        return download(config.name, lambda: build(weights="DEFAULT", **options))
    model = build(weights=None, **options)
    if config.weights != "none":
        load_weights(model, Path(config.weights))
    return model


def _origin(config: BackboneConfig) -> dict[str, Any]:
    source = "random" if config.weights == "none" else f"torchvision {config.name}, {config.weights}"
    licence = licence_of(config, "BSD-3-Clause (torchvision)")
    return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "source": source, "licence": licence}


def _with_hidden_layers(
    config: BackboneConfig, model: Any, layers: list[nn.Module], pool: int, stride: int, min_side: int
) -> Backbone:
    hidden = tuple(layer for layer in model.classifier if isinstance(layer, nn.Linear))[:2]
    stages = _after_each(layers, nn.MaxPool2d)
    return Backbone(
        stages=stages,
        channels=hidden[0].in_features // pool**2,
        stride=stride,
        fully_connected=hidden,
        pool=pool,
        levels=(len(stages) - 3, len(stages) - 2),
        min_side=min_side,
        **_origin(config),
    )


def _dilate(layers: list[nn.Module]) -> None:
    """Halve the stride as OICR does: the last pooling layer does nothing, and what comes after it is dilated."""
    last = max(number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))
    layers[last] = nn.MaxPool2d(1)
    for layer in layers[last:]:
        if isinstance(layer, nn.Conv2d):
            layer.dilation = layer.padding = (2, 2)


def _after_each(layers: list[nn.Module], kind: type[nn.Module]) -> nn.Sequential:
    """Stages that end with each layer of a kind."""
    stages: list[list[nn.Module]] = [[]]
    for layer in layers:
        stages[-1].append(layer)
        if isinstance(layer, kind):
            stages.append([])
    return nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
