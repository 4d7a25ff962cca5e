"""A backbone: the stages of a pretrained network, and the hypercolumns of their maps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from boxless.config import BackboneConfig
from boxless.errors import BoxlessError
from boxless.registry import Registry
from boxless.wording import counted

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A feature extractor as a sequence of stages.

    Args:
        stages: run in order, they turn a normalised image (B, 3, H, W) into a map (B, channels, h, w). Cell (row,
            column) of the map describes the pixels around ((column + 0.5) * stride, (row + 0.5) * stride): exactly for
            transformers, within half a cell for convolutional networks, depending on how their layers pad. Cells of the
            last row and column may reach beyond the image.
        channels: of the map.
        stride: image pixels per map cell.
        mean, std: of the pixels (RGB in [0, 1]) that the weights expect.
        source, licence: of the weights, for the manifest.
        fully_connected: the classifier's two pretrained hidden layers with their activations, where it has them
            (AlexNet, VGG16); they take a map of `pool` x `pool` cells.
        pool: see above; 0 where there are none.
        levels: indices of earlier maps that hypercolumns add to the last one, counted over all maps of `stages` in
            order: one per stage, or several from a `MultiMapStage`. Empty where there is one map only.
        min_side: pixels that the shorter side of an image needs for a map of one cell; shorter ones are padded.
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
    min_side: int = 1

    @cached_property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the maps of `levels`."""
        maps = maps_of_zeros(self.stages, 160, 208)
        return tuple(maps[level].shape[1] for level in self.levels)

    def hypercolumns(self) -> "Hypercolumns":
        """All stages, with the maps of `levels` concatenated to the last one.

        Raises:
            BoxlessError: the backbone has no levels.
        """
        if not self.levels:
            raise BoxlessError(
                "this backbone gives one map only, and the method needs those of earlier stages too; choose another "
                "backbone, or --method cam head.objectness=false"
            )
        return Hypercolumns(self.stages, self.levels)

    def split(self, freeze: str | int) -> tuple[nn.Sequential, nn.Sequential]:
        """The frozen stages and the trained ones.

        Args:
            freeze: `all`, `none`, or the number of first stages.

        Raises:
            BoxlessError: there are fewer stages.
        """
        count = {"all": len(self.stages), "none": 0}.get(str(freeze), freeze)
        assert isinstance(count, int)
        if count > len(self.stages):
            raise BoxlessError(f"backbone.freeze={freeze}: this backbone has {counted(len(self.stages), 'stage')}")
        return self.stages[:count], self.stages[count:]


class MultiMapStage(nn.Module):
    """A stage that gives several maps: a network that cannot be run in parts. Subclasses define `maps`."""

    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """(B, 3, H, W) -> maps (B, C, h, w) from early to late, of which the last is the stage's output."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """The last map."""
        return self.maps(images)[-1]


class Hypercolumns(nn.Sequential):
    """Stages whose last map is concatenated with earlier ones (Hariharan et al., CVPR 2015, section 3).

    Late maps tell what an object is, earlier ones where it ends.

    Args:
        stages: run in order, they turn an image (B, 3, H, W) into a map (B, C, h, w).
        levels: indices of the maps that are averaged down to h x w and appended to the channels of the last one, see
            `Backbone`.
    """

    def __init__(self, stages: nn.Sequential, levels: Sequence[int]) -> None:
        super().__init__(*stages)
        self.levels = tuple(levels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C + channels of the levels, h, w)."""
        # The maps of the first stages are large: only those of the levels are kept.
        kept, last = {}, images
        for index, last in enumerate(maps_of(self, images)):
            if index in self.levels:
                kept[index] = last
        rows, columns = last.shape[-2:]
        own = [nn.functional.adaptive_avg_pool2d(kept[level], (rows, columns)) for level in self.levels]
        return torch.cat([last, *own], dim=1)


def maps_of(stages: nn.Sequential, images: Tensor) -> Iterator[Tensor]:
    """Run the stages on images (B, 3, H, W) and yield all their maps in order."""
    for stage in stages:
        maps = stage.maps(images) if isinstance(stage, MultiMapStage) else (stage(images),)
        yield from maps
        images = maps[-1]


def maps_of_zeros(stages: nn.Sequential, height: int, width: int) -> list[Tensor]:
    """All maps of an image of zeros, for their shapes; the stages stay in evaluation mode."""
    with torch.inference_mode():
        maps = list(maps_of(stages, torch.zeros(1, 3, height, width)))
    # In evaluation mode some timm networks cache what they derive from their weights, until they are in training mode;
    # other weights may be loaded next.
    stages.train().eval()
    return maps


BACKBONES: Registry[Callable[[BackboneConfig], Backbone]] = Registry("backbone")
"""Functions that build a backbone from its configuration; all other names are timm's.

`docs/examples/backbone.py` is an example of one that stands outside the package.
"""
