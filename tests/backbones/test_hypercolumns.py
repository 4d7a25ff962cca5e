import pytest
import torch
from building import bare
from torch import nn

from boxless.backbones import Backbone, Hypercolumns, MultiMapStage
from boxless.errors import BoxlessError


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("alexnet", (8, 16), (64, 192)),
        ("vgg16", (8, 16), (256, 512)),
        ("resnet50", (8, 16), (512, 1024)),
        ("efficientnet_lite0", (16, 16), (112, 192)),
        ("resnet18", (8, 16), (128, 256)),
        ("convnext_atto", (8, 16), (80, 160)),
    ],
)
def test_levels_are_maps_shortly_before_the_last(name: str, strides: tuple[int, int], channels: tuple[int, int]):
    backbone = bare(name)
    maps = [torch.zeros(1, 3, 160, 160, device="meta")]
    for stage in backbone.stages:
        maps.append(stage(maps[-1]))
    found = [maps[row + 1] for row in backbone.levels]
    assert tuple(level.shape[1] for level in found) == channels
    for level, stride in zip(found, strides, strict=True):
        assert abs(level.shape[2] - 160 // stride) <= 1
    assert 0 <= backbone.levels[0] < backbone.levels[1] < len(backbone.stages) - 1


def test_hypercolumns_are_the_stages_own_maps_averaged_down():
    torch.manual_seed(0)
    stages = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 1)), nn.AvgPool2d(3)
    )
    pixels = torch.randn(2, 3, 24, 36)
    joined = Hypercolumns(stages, (0, 1))(pixels)
    first = stages[0](pixels)
    second = stages[1](first)
    assert joined.shape == (2, 5 + 4 + 5, 4, 6)
    torch.testing.assert_close(joined[:, :5], stages(pixels), rtol=0, atol=0)
    for level, side, columns in ((first, 6, slice(5, 9)), (second, 3, slice(9, 14))):
        means = level.unfold(2, side, side).unfold(3, side, side).mean(dim=(4, 5))
        torch.testing.assert_close(joined[:, columns], means)
    # Cells of a level that do not fill those of the last map count wherever they touch.
    odd = pixels[:, :, :20, :32]
    corner = Hypercolumns(stages, (0,))(odd)[:, 5:, 0, 0]
    torch.testing.assert_close(corner, stages[0](odd)[:, :, :7, :7].mean(dim=(2, 3)))
    # Weights are named as those of the stages.
    assert Hypercolumns(stages, (0,)).state_dict().keys() == stages.state_dict().keys()


class Pyramid(MultiMapStage):
    """Averages of blocks of 2, 4 and 8 pixels."""

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [nn.functional.avg_pool2d(images, side) for side in (2, 4, 8)]


def test_a_stage_may_give_several_maps():
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 16, 24)
    stages = nn.Sequential(nn.Hardtanh(), Pyramid())
    means = nn.functional.avg_pool2d(pixels.clamp(-1, 1), 8)
    # Maps are counted over all stages: 0 is that of the activation, 1 to 3 those of the pyramid.
    assert torch.equal(stages(pixels), means)
    torch.testing.assert_close(Hypercolumns(stages, (0, 1, 2))(pixels), means.repeat(1, 4, 1, 1))
    backbone = Backbone(stages, 3, 8, (0.5,) * 3, (0.5,) * 3, "none", "none", levels=(1, 2))
    assert backbone.level_channels == (3, 3)
    assert backbone.hypercolumns().levels == (1, 2)


def test_without_levels_there_are_no_hypercolumns():
    backbone = Backbone(nn.Sequential(nn.Conv2d(3, 4, 8, 8)), 4, 8, (0.5,) * 3, (0.5,) * 3, "none", "none")
    with pytest.raises(BoxlessError, match=r"one map only.*choose another backbone, or --method cam head\.objectness"):
        backbone.hypercolumns()
