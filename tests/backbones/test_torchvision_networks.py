import pytest
import torch
from building import bare
from torch import nn

from boxless.errors import BoxlessError


@pytest.mark.parametrize(("name", "pool", "channels"), [("alexnet", 6, 256), ("vgg16", 7, 512)])
def test_alexnet_and_vgg16_bring_their_hidden_layers(name: str, pool: int, channels: int):
    backbone = bare(name)
    assert backbone.pool == pool
    assert [(layer.in_features, layer.out_features) for layer in backbone.fully_connected] == [
        (channels * pool**2, 4096),
        (4096, 4096),
    ]


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_lite0", "resnet18"])
def test_other_networks_have_no_hidden_layers(name: str):
    backbone = bare(name)
    assert (backbone.fully_connected, backbone.pool) == ((), 0)


@pytest.mark.parametrize(("name", "convolutions"), [("alexnet", [1, 1, 3]), ("vgg16", [2, 2, 3, 3, 3])])
def test_stages_end_at_max_pools_and_the_last_pool_is_gone(name: str, convolutions: list[int]):
    stages = list(bare(name).stages)
    assert [sum(isinstance(layer, nn.Conv2d) for layer in stage) for stage in stages] == convolutions
    pools = [[isinstance(layer, nn.MaxPool2d) for layer in stage] for stage in stages]
    assert all(stage[-1] and sum(stage) == 1 for stage in pools[:-1])
    assert not any(pools[-1])


def test_vgg16_at_stride_eight_skips_the_fourth_pool_and_dilates_the_rest():
    torch.manual_seed(0)
    backbone = bare("vgg16", 8)
    assert [sum(isinstance(layer, nn.Conv2d) for layer in stage) for stage in backbone.stages] == [2, 2, 3, 3, 3]
    pixels = torch.randn(1, 3, 64, 48)
    backbone.stages.to_empty(device="cpu")
    for parameter in backbone.stages.parameters():
        nn.init.normal_(parameter, std=0.05)
    with torch.inference_mode():
        wanted = backbone.stages[:3](pixels)
        for number, stage in enumerate(backbone.stages[3:]):
            for layer in stage:
                if isinstance(layer, nn.Conv2d):
                    spread = number + 1
                    wanted = nn.functional.conv2d(wanted, layer.weight, layer.bias, padding=spread, dilation=spread)
                    wanted = wanted.relu()
        torch.testing.assert_close(backbone.stages(pixels), wanted)


def test_split_shares_out_the_stages():
    backbone = bare("vgg16")
    stages = list(backbone.stages)
    for freeze, count in (("all", 5), ("none", 0), (1, 1), (3, 3), (5, 5)):
        frozen, tail = backbone.split(freeze)
        assert list(frozen) == stages[:count]
        assert list(tail) == stages[count:]
    with pytest.raises(BoxlessError, match=r"backbone\.freeze=6.*5 stage"):
        backbone.split(6)
