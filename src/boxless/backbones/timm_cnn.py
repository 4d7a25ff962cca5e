"""timm's feature extractors as stages: convolutional networks and hierarchical transformers."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import timm
from torch import Tensor, nn

from boxless.backbones.base import MultiMapStage
from boxless.backbones.cells import PadToMultiple

_hooks = threading.Lock()


def stages_of(model: Any, stride: int) -> Iterator[nn.Sequential]:
    """Ways to run a timm feature extractor, the best first; which of them work depends on the network.

    A network that timm hands out layer by layer becomes one stage per map. Any other is one stage that gives its last
    three maps. Where a map lacks the border of the image, or a layer takes multiples of the stride only, images are
    padded first.

    Args:
        model: what `timm.create_model(..., features_only=True)` gives.
        stride: of its last map.
    """
    pad = PadToMultiple(stride)
    if isinstance(model, timm.models.FeatureListNet):
        first, *rest = _layers_by_map(model)
        yield nn.Sequential(nn.Sequential(*first), *(nn.Sequential(*layers) for layers in rest))
        yield nn.Sequential(nn.Sequential(pad, *first), *(nn.Sequential(*layers) for layers in rest))
    yield nn.Sequential(LastMaps(model))
    yield nn.Sequential(LastMaps(model, pad))


def _layers_by_map(model: Any) -> list[list[nn.Module]]:
    stages: list[list[nn.Module]] = [[]]
    for name, layer in model.items():
        stages[-1].append(layer)
        if name in model.return_layers:
            stages.append([])
    return [layers for layers in stages if layers]


class LastMaps(MultiMapStage):
    """A timm feature extractor as one stage with its last three maps.

    Args:
        model: gives a list of maps, (B, C, h, w) or (B, h, w, C).
        pad: applied to the images.
    """

    def __init__(self, model: Any, pad: PadToMultiple | None = None) -> None:
        super().__init__()
        self.model = model
        self.pad = pad
        self._channels_last = str(getattr(model, "output_fmt", "")).endswith("NHWC")
        self._hooked = isinstance(model, timm.models.FeatureHookNet)

    def maps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C, h, w)."""
        images = images if self.pad is None else self.pad(images)
        # Hooks keep the maps in the network, which the threads of the feature cache share.
        with _hooks if self._hooked else nullcontext():
            maps = self.model(images)[-3:]
        return [found.permute(0, 3, 1, 2).contiguous() for found in maps] if self._channels_last else list(maps)
