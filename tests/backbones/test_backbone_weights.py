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

from boxless.backbones import Backbone, create_backbone, fingerprint
from boxless.backbones.weights import warn_of_licence
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError


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


# Licences.


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's hub, with random weights."""

    def load(repository: str, *_: object, **__: object) -> dict[str, torch.Tensor]:
        return timm.create_model(repository.removeprefix("timm/")).state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", load)
    warn_of_licence.cache_clear()


@pytest.mark.parametrize(
    ("name", "licence", "warning"),
    [
        ("convnextv2_atto", "cc-by-nc-4.0", "excludes commercial use"),
        ("vit_small_patch16_dinov3", "dinov3-license", "has terms of its own"),
        ("convnext_atto", "apache-2.0", None),
        ("cpubone_nano", "not stated; see the model card of cpubone_nano", None),
    ],
)
def test_the_licence_is_that_of_the_published_weights(
    name: str, licence: str, warning: str | None, hub: None, caplog: pytest.LogCaptureFixture
):
    with torch.device("meta"):
        found = [create_backbone(BackboneConfig(name=name)).licence for _ in range(2)]
    assert found == [licence] * 2
    messages = [record.getMessage() for record in caplog.records if record.name == "boxless"]
    assert len(messages) == (warning is not None)
    assert all(name in one and licence in one and str(warning) in one for one in messages)


def test_weights_of_a_file_state_the_licence_of_the_published_ones(
    tmp_path: Path, hub: None, caplog: pytest.LogCaptureFixture
):
    file = tmp_path / "own.safetensors"
    for name, licence in (
        ("convnextv2_atto", "not known: weights of own.safetensors; published ones of convnextv2_atto: cc-by-nc-4.0"),
        ("cpubone_nano", "not known: weights of own.safetensors"),
    ):
        save_file(timm.create_model(name).state_dict(), file)
        assert create_backbone(BackboneConfig(name=name, weights=str(file))).licence == licence
        file.unlink()
    assert [record.levelname for record in caplog.records if record.name == "boxless"] == ["WARNING"]


def test_random_weights_need_no_licence(hub: None, caplog: pytest.LogCaptureFixture):
    with torch.device("meta"):
        backbone = create_backbone(BackboneConfig(name="convnextv2_atto", weights="none"))
    assert backbone.licence == "none needed: random"
    assert not caplog.records
