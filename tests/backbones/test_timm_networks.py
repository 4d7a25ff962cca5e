"""timm's networks as backbones of the default method: their maps, the cells of these and the names."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from building import bare, map_shape
from running import shorten_training
from safetensors.torch import save_file

import boxless
from boxless.backbones import Backbone, create_backbone
from boxless.backbones.base import maps_of
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError
from boxless.features import FeatureStore, to_pixels
from boxless.views import View

SLOW = pytest.mark.slow
NETWORKS = {
    # name -> stride, channels of the last map, of the two levels
    "resnet18": (16, 512, (128, 256)),
    "regnety_002": (16, 368, (56, 152)),
    "mobilenetv3_small_050": (16, 288, (16, 24)),
    "mobilenetv4_conv_medium": (16, 960, (80, 160)),
    "convnext_atto": (16, 320, (80, 160)),
    "convnextv2_atto": (16, 320, (80, 160)),
    "efficientvit_b0": (32, 128, (32, 64)),
    "edgenext_xx_small": (32, 168, (48, 88)),
    "vit_small_patch14_reg4_dinov2": (14, 384, (384, 384)),
    "vit_small_patch16_dinov3": (16, 384, (384, 384)),
    "vit_small_patch16_224": (16, 384, (384, 384)),
    "vit_base_patch32_siglip_256": (32, 768, (768, 768)),
    "eva02_tiny_patch14_224": (14, 192, (192, 192)),
    "swin_tiny_patch4_window7_224": (32, 768, (192, 384)),
}

CALIBRATED = "mobilenetv4_conv_medium"
"""Its normalisation needs statistics: the last map of random weights exceeds the range of half precision."""


@pytest.fixture(scope="module", autouse=True)
def _forget_networks() -> Iterator[None]:
    yield
    shared.cache_clear()


@cache
def shared(name: str) -> Backbone:
    """One with random weights for several tests."""
    torch.manual_seed(0)
    return create_backbone(BackboneConfig(name=name, weights="none"))


@pytest.mark.parametrize(
    ("name", "output_stride", "stride", "shape"),
    [
        # Maps of 160 x 96. The torchvision networks first; AlexNet's first layers lose the border.
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
        ("convnext_atto", 8, 8, (320, 12, 20)),
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
    assert backbone.licence == "none needed: random"
    assert len(backbone.mean) == len(backbone.std) == 3


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "efficientnet_lite0"])
def test_any_size_of_image_is_taken(name: str):
    backbone = bare(name)
    for width, height in ((97, 130), (224, 224), (511, 33)):
        channels, rows, columns = map_shape(backbone, width, height)
        assert channels == backbone.channels
        assert rows - 1 <= height / 16 <= rows + 1
        assert columns - 1 <= width / 16 <= columns + 1


@pytest.mark.parametrize(("name", "output_stride"), [("alexnet", 16), ("vgg16", 16), ("vgg16", 8)])
def test_images_of_any_shape_give_at_least_a_row_of_cells(name: str, output_stride: int):
    config = BackboneConfig(name=name, weights="none", output_stride=output_stride)
    backbone = create_backbone(config)
    store = FeatureStore(backbone, backbone.stages, config, torch.device("cpu"))
    for height, width in ((1, 64), (64, 3)):
        found = store.extract(np.full((height, width, 3), 200, np.uint8), View(64))
        assert found.shape[0] == backbone.channels and min(found.shape[1:]) == 1
        # Padded on the right and below with zeros, which are pixels of the mean.
        pixels = to_pixels(np.full((height, width, 3), 200, np.uint8), View(64), backbone)
        assert min(pixels.shape[1:]) == backbone.min_side
        assert (
            (pixels[:, :height, :width] != 0).all() and not pixels[:, height:].any() and not pixels[:, :, width:].any()
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_hypercolumns_that_cover_the_image(name: str):
    stride, channels, levels = NETWORKS[name]
    with torch.device("meta"):
        backbone = create_backbone(BackboneConfig(name=name, weights="none"))
        hypercolumns = backbone.hypercolumns()
        assert (backbone.stride, backbone.channels, backbone.level_channels) == (stride, channels, levels)
        for height, width in ((160, 208), (97, 131), (1, 50), (2 * stride + 1, 3 * stride)):
            shape = hypercolumns(torch.zeros(2, 3, height, width)).shape
            assert shape == (2, channels + sum(levels), ceil(height / stride), ceil(width / stride))


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("vit_small_patch14_reg4_dinov2", 3),
        ("vit_small_patch16_dinov3", 3),
        ("vit_small_patch16_224", 3),
        pytest.param("vit_base_patch32_siglip_256", 3, marks=SLOW),
        ("eva02_tiny_patch14_224", 3),
        pytest.param("swin_tiny_patch4_window7_224", 3, marks=SLOW),
        # After the levels the receptive fields are larger than the image.
        ("convnext_atto", 2),
        ("edgenext_xx_small", 3),
    ],
)
def test_a_square_changes_the_cells_that_it_covers(name: str, local: int):
    backbone = shared(name)
    stride, side = backbone.stride, 2
    rows, columns = 7, 9
    # The last cells reach beyond the image.
    height, width = (rows - 1) * stride + stride // 2, (columns - 1) * stride + 3
    corners = ((0, 0), (2, 5), (5, 7))
    images = torch.zeros(1 + len(corners), 3, height, width)
    for image, (top, left) in zip(images[1:], corners, strict=True):
        image[:, top * stride : (top + side) * stride, left * stride : (left + side) * stride] = 2
    with torch.inference_mode():
        maps = list(maps_of(backbone.stages, images))[-3:][:local]
    for found in maps:
        changes = torch.nn.functional.adaptive_avg_pool2d((found[1:] - found[:1]).square(), (rows, columns)).sum(1)
        for change, (top, left) in zip(changes, corners, strict=True):
            most = torch.zeros(rows * columns).index_fill(0, change.flatten().topk(side**2).indices, 1)
            assert most.view(rows, columns)[top : top + side, left : left + side].all(), (top, left)


@pytest.mark.parametrize(
    ("name", "prefix", "blocks"),
    [
        ("vit_tiny_patch16_224", 1, (3, 7, 11)),
        ("vit_small_patch14_reg4_dinov2", 5, (3, 7, 11)),
        ("vit_small_patch16_dinov3", 5, (3, 7, 11)),
        ("eva02_tiny_patch14_224", 1, (3, 7, 11)),
        pytest.param("vit_base_patch32_siglip_256", 0, (3, 7, 11), marks=SLOW),
    ],
)
def test_maps_of_a_transformer_are_the_normalised_patch_tokens(name: str, prefix: int, blocks: tuple[int, ...]):
    backbone = shared(name)
    model: Any = timm.create_model(name, dynamic_img_size=True, dynamic_img_pad=True).eval()
    state = model.state_dict() | backbone.stages[0].model.state_dict()
    model.load_state_dict(state)
    torch.manual_seed(1)
    images = torch.randn(2, 3, 97, 131)
    with torch.inference_mode():
        maps = list(maps_of(backbone.stages, images))
        wanted = model.forward_intermediates(images, indices=blocks, norm=True, intermediates_only=True)
        # What the classifier reads, without class and register tokens.
        tokens = model.forward_features(images)[:, prefix:]
    assert all(map(torch.equal, maps, wanted)) and len(maps) == 3
    assert torch.equal(maps[2].flatten(2).transpose(1, 2), tokens)
    assert torch.equal(backbone.hypercolumns()(images), torch.cat([wanted[2], *wanted[:2]], dim=1))


@pytest.mark.parametrize(
    ("name", "options", "axes"),
    [
        ("resnet18", {"output_stride": 16}, None),
        ("mobilenetv4_conv_medium", {"output_stride": 16}, None),
        ("convnext_atto", {"output_stride": 16}, None),
        ("edgenext_xx_small", {}, None),
        ("efficientvit_b0", {}, None),
        # Built from hooks.
        ("xception41", {"output_stride": 16}, None),
        pytest.param("swin_tiny_patch4_window7_224", {}, (0, 3, 1, 2), marks=SLOW),
    ],
)
def test_maps_of_other_networks_are_those_of_timm(
    name: str, options: dict[str, int], axes: tuple[int, int, int, int] | None
):
    backbone = shared(name)
    model: Any = timm.create_model(name, features_only=True, **options).eval()
    # The same weights, whatever the stages call them.
    ours, theirs = backbone.stages.state_dict().values(), model.state_dict()
    model.load_state_dict(dict(zip(theirs, ours, strict=True)))
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = list(maps_of(backbone.stages, images))
        wanted = model(images)[-3:]
    wanted = wanted if axes is None else [found.permute(axes) for found in wanted]
    found = [maps[level] for level in (*backbone.levels, len(maps) - 1)]
    assert all(map(torch.equal, found, wanted)) and len(wanted) == 3


def test_hooked_networks_run_in_several_threads():
    hypercolumns = shared("xception41").hypercolumns()
    images = [torch.full((1, 3, 32 * (1 + number % 3), 64), float(number)) for number in range(6)]

    def run(one: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = hypercolumns(one)
            return found

    alone = [run(one) for one in images]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, alone, pool.map(run, images)))


def test_what_a_network_derives_from_its_weights_follows_those_that_are_loaded():
    """This one caches its attention biases in evaluation mode."""
    first, second = (create_backbone(BackboneConfig(name="efficientvit_m0", weights="none")) for _ in range(2))
    assert first.level_channels == second.level_channels
    second.stages.load_state_dict(first.stages.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(first.stages(images), second.stages(images))


@pytest.mark.parametrize("name", ["mixer_s32_224", "hiera_tiny_224", "crossvit_tiny_240", "inception_v3"])
def test_a_network_whose_cells_do_not_cover_any_image_is_refused(name: str):
    """The first two take one size only, the third resizes images, the fourth drops their border."""
    with pytest.raises(BoxlessError, match=f"{name}.*one size only.*choose another, such as resnet18"):
        bare(name)


# Names.


def test_prefixes_choose_timm():
    for name in ("timm/resnet18", "timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"):
        backbone = bare(name)
        assert backbone.channels == 512 and len(backbone.stages) == 5
    # torchvision's has no batch normalisation, and its name is taken; timm's has hidden layers that it does not use.
    assert bare("timm/vgg16").fully_connected == ()
    assert bare("vgg16").fully_connected


def test_a_tag_chooses_the_weights_and_their_normalisation():
    assert bare("vit_small_patch16_224").mean == (0.5, 0.5, 0.5)
    assert bare("vit_small_patch16_224.dino").mean == (0.485, 0.456, 0.406)
    with pytest.raises(BoxlessError, match=r"'resnet18\.best' is unknown: timm's weights.*resnet18\.a1_in1k"):
        bare("resnet18.best")


def test_another_name_of_the_hub_is_passed_on(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def configuration(name: str, **_: object) -> tuple[dict[str, Any], str, dict[str, Any]]:
        asked.append(name)
        if name != "someone/network":
            raise OSError("there is no such repository")
        return {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "license": "mit"}, "resnet18", {}

    monkeypatch.setattr("timm.models._factory.load_model_config_from_hf", configuration)
    backbone = bare("hf-hub:someone/network")
    assert (backbone.channels, backbone.mean) == (512, (0.1, 0.2, 0.3))
    assert set(asked) == {"someone/network"}
    with pytest.raises(BoxlessError, match=r"hf-hub:some/other could not be downloaded .*no such repository"):
        bare("hf-hub:some/other")


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(BoxlessError, match=r"'resnet5' is unknown.*efficientnet_lite0.*alexnet.*such as .*resnet5\d"):
        create_backbone(BackboneConfig(name="resnet5", weights="none"))
    for name in ("blub", "timm/blub"):
        with pytest.raises(BoxlessError, match=f"'{name}' is unknown") as error:
            create_backbone(BackboneConfig(name=name, weights="none"))
        assert "such as" not in str(error.value)


# From tags to boxes.

OPTIONS = (
    *("views.scales=[96]", "training.epochs=1", "proposals.generator=grid", "proposals.min_area=0.05"),
    *("head.pca_dims=[12,6]", "head.hidden=[16]", "pseudo_labels.rounds=1", "pseudo_labels.mosaics=0"),
)


def assert_trains_and_loads(
    name: str, weights: str | Path, demo: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train the default method on a backbone, and compare the detector with that of the run folder."""
    shorten_training(monkeypatch)
    options = [f"backbone.weights={weights}", *OPTIONS]
    trained = boxless.train(demo, run, split="train", backbone=name, options=options, seed=1)
    images = [sample.path for sample in boxless.load_dataset(demo, "val").samples[:3]]
    if isinstance(weights, Path):
        # The run has all weights.
        weights.unlink()
    loaded = boxless.Detector.load(run)
    for image in images:
        before, after = trained.predict(image, threshold=0), loaded.predict(image, threshold=0)
        assert len(after) and (before.boxes == after.boxes).all() and (before.scores == after.scores).all()


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "mobilenetv4_conv_small_035",
        *(pytest.param(name, marks=SLOW) for name in NETWORKS if name not in ("regnety_002", CALIBRATED)),
    ],
)
def test_a_detector_is_trained_saved_and_loaded(name: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert_trains_and_loads(name, "none", demo, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_detector_is_trained_on_weights_of_a_file(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model, file = timm.create_model(CALIBRATED).train(), tmp_path / "weights.safetensors"
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        model(torch.randn(8, 3, 96, 96))
    save_file(model.state_dict(), file)
    assert_trains_and_loads(CALIBRATED, file, demo, tmp_path / "run", monkeypatch)
