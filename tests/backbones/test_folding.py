import pytest
import torch
from torch import nn

from boxless.backbones import Hypercolumns, create_backbone, fingerprint, folded
from boxless.config import BackboneConfig


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50", "densenet121", "resnetv2_50"])
def test_folded_stages_are_the_same_function(name: str):
    stages = create_backbone(BackboneConfig(name=name, weights="none")).hypercolumns()
    torch.manual_seed(0)
    for layer in stages.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight, layer.running_var):
                assert value is not None
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (layer.bias, layer.running_mean):
                assert value is not None
                nn.init.normal_(value, std=0.1)
    before, pixels = fingerprint(stages), torch.randn(2, 3, 96, 128)
    lean = folded(stages)
    assert fingerprint(stages) == before
    assert isinstance(lean, Hypercolumns) and lean.levels == stages.levels
    with torch.inference_mode():
        wanted = stages(pixels)
        torch.testing.assert_close(lean(pixels), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    left, before_it = (sum(isinstance(layer, nn.BatchNorm2d) for layer in each.modules()) for each in (lean, stages))
    assert left < before_it


class Backwards(nn.Sequential):
    """Names its layers in one order and runs them in the other."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        for layer in reversed(list(self)):
            maps = layer(maps)
        return maps


def test_a_convolution_and_a_normalisation_become_one():
    convolution, norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, eps=0)
    norm.running_mean, norm.running_var = torch.tensor([1.0, 2]), torch.tensor([4.0, 9])
    with torch.no_grad():
        for value, given in ((norm.weight, [3.0, 1]), (norm.bias, [5.0, 6]), (convolution.bias, [7.0, 8])):
            assert value is not None
            value.copy_(torch.tensor(given))
    single, rest = folded(nn.Sequential(convolution, norm).eval())
    # (x - 1) / 2 * 3 + 5 and (x - 2) / 3 + 6 of x = w * pixel + bias.
    torch.testing.assert_close(single.weight, convolution.weight * torch.tensor([1.5, 1 / 3])[:, None, None, None])
    torch.testing.assert_close(single.bias, torch.tensor([14.0, 8]))
    assert isinstance(rest, nn.Identity)


def test_where_layers_run_in_another_order_nothing_is_folded():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.running_mean = torch.tensor([1.0, -2, 3])
    stages = nn.Sequential(Backwards(nn.Conv2d(3, 3, 3), norm, nn.ReLU())).eval()
    assert folded(stages) is stages


def test_stages_without_normalisation_are_not_copied():
    stages = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval()
    assert folded(stages) is stages
