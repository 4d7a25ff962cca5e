import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from running import as_stored
from torch import nn
from torn_writes import torn

from boxless.backbones import Backbone, Hypercolumns
from boxless.cache import load_array
from boxless.config import BackboneConfig, ViewConfig
from boxless.datasets import load_dataset
from boxless.devices import images_at_once, views_at_once
from boxless.errors import BoxlessError
from boxless.features import Batch, FeatureStore, Item, Targets, collate, to_pixels
from boxless.images import content_keys, read_image, write_image
from boxless.views import View, views_of

CPU = torch.device("cpu")
VIEWS = (View(64), View(96, True))


UNCHANGED = Backbone(nn.Sequential(), 3, 1, (0, 0, 0), (1, 1, 1), "", "")
"""Of pixels from 0 to 1."""


def backbone(seed: int = 0) -> Backbone:
    """Two random stages of stride 16 whose maps have as many cells as ceil(side / 16)."""
    torch.manual_seed(seed)
    stages = nn.Sequential(nn.Conv2d(3, 8, 3, stride=16, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 6, 1)))
    return Backbone(stages.eval(), 6, 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), "random", "none")


def make_store(seed: int = 0, freeze: str | int = "all", config: BackboneConfig | None = None) -> FeatureStore:
    network = backbone(seed)
    return FeatureStore(network, network.split(freeze)[0], config or BackboneConfig(), CPU)


@pytest.fixture
def images(demo: Path) -> dict[str, Path]:
    """Content key -> file of three images."""
    return keyed(sample.path for sample in load_dataset(demo, "train").samples[:3])


def keyed(paths: Iterable[Path]) -> dict[str, Path]:
    return {key: path for path, key in content_keys(paths, {}).items()}


def arrays(cache: Path) -> dict[Path, int]:
    """Every stored map -> when it was written."""
    return {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy.zst")}


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Views.


@pytest.mark.parametrize(
    ("scale", "size", "expected"),
    [
        (512, (640, 480), (512, 384)),
        (512, (480, 640), (384, 512)),
        (512, (100, 50), (512, 256)),  # enlarged
        (100, (333, 200), (100, 60)),
        (64, (3000, 8), (64, 1)),  # 0.17 rows are one
    ],
)
def test_the_longest_side_of_a_view_is_its_scale(scale: int, size: tuple[int, int], expected: tuple[int, int]):
    assert View(scale).size(*size) == expected
    assert View(scale, True).size(*size) == expected


def test_boxes_move_into_the_view():
    boxes = np.array([[64, 48, 320, 240], [0, 0, 640, 480]], np.float32)
    before = boxes.copy()
    plain, flipped = View(320).boxes(boxes, 640, 480), View(320, True).boxes(boxes, 640, 480)
    assert plain.tolist() == [[32, 24, 160, 120], [0, 0, 320, 240]]
    assert flipped.tolist() == [[160, 24, 288, 120], [0, 0, 320, 240]]
    assert plain.dtype == flipped.dtype == np.float32
    np.testing.assert_array_equal(boxes, before)
    # 50 x 201 becomes 16 x 64: each side has its own factor.
    np.testing.assert_allclose(
        View(64).boxes(np.array([[25, 67, 50, 201]], np.float32), 50, 201), [[8, 64 / 3, 16, 64]]
    )


def test_boxes_of_plain_and_flipped_views_hold_the_same_pixels():
    image = np.zeros((48, 64, 3), np.uint8)
    image[10:30, 8:20] = 255
    box = np.array([[8, 10, 20, 30]], np.float32)
    for view in (View(64), View(64, True), View(128), View(128, True)):
        pixels = to_pixels(image, view, UNCHANGED)
        left, top, right, bottom = view.boxes(box, 64, 48)[0].astype(int)
        assert pixels[:, top + 1 : bottom - 1, left + 1 : right - 1].min() == 1
        pixels[:, top - 1 : bottom + 1, left - 1 : right + 1] = 0
        assert pixels.max() == 0


@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_do_not_leave_the_image_to_the_left_or_above(flipped: bool):
    view = View(512, flipped)
    for width in range(1, 1200):
        whole = np.array([[0, 0, width, 500]], np.float32)
        assert view.boxes(whole, width, 500).min() >= 0, width


def test_mirrored_views_come_after_plain_ones():
    assert views_of(ViewConfig(scales=(64, 96))) == (View(64), View(96))
    both = views_of(ViewConfig(scales=(64, 96), flips=True))
    assert both == (View(64), View(96), View(64, True), View(96, True))


# Pixels.


def test_pixels_are_normalised_channel_by_channel():
    image = np.empty((16, 32, 3), np.uint8)
    image[:] = (255, 51, 0)
    network = replace(UNCHANGED, mean=(0.5, 0.4, 0.25), std=(0.5, 0.1, 0.5))
    pixels = to_pixels(image, View(32), network)
    assert pixels.shape == (3, 16, 32)
    assert pixels.dtype == torch.float32
    for channel, value in zip(pixels, (1.0, -2.0, -0.5), strict=True):
        torch.testing.assert_close(channel, torch.full((16, 32), value))


def test_pixels_of_a_view_of_the_same_size_are_the_image_and_its_mirror():
    image = noise(32, 16)
    plain = to_pixels(image, View(32), UNCHANGED)
    np.testing.assert_allclose(plain.numpy(), image.transpose(2, 0, 1) / 255, rtol=1e-6)
    flipped = to_pixels(image, View(32, True), UNCHANGED)
    assert torch.equal(flipped, plain.flip(2))
    assert flipped.is_contiguous()


def test_a_smaller_view_averages_pixels():
    image = noise(32, 16)
    half = to_pixels(image, View(16), UNCHANGED) * 255
    means = image.reshape(8, 2, 16, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(half.numpy() - means.transpose(2, 0, 1)).max() <= 0.51  # rounded to whole values


def test_a_larger_view_interpolates():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 200
    row = to_pixels(image, View(16), UNCHANGED)[0, 0] * 255
    np.testing.assert_allclose(row, [0] * 7 + [50, 150] + [200] * 7, atol=0.6)


# Batches.


def test_collate_pads_with_zeros_and_keeps_values(monkeypatch: pytest.MonkeyPatch):
    # New memory is often zero by chance.
    monkeypatch.setattr("boxless.features.torch.empty", lambda *sides, dtype: torch.full(sides, torch.nan, dtype=dtype))
    small, large = torch.rand(2, 2, 3) + 1, torch.rand(2, 4, 2) + 1
    boxes = [torch.rand(5, 4), torch.rand(1, 4)]
    image_labels = [torch.tensor([1.0, float("nan")]), torch.tensor([0.0, 1.0])]
    batch = collate(
        [Item(small, (30, 44), boxes[0], image_labels[0]), Item(large, (60, 31), boxes[1], image_labels[1])]
    )
    assert batch.maps.shape == (2, 2, 4, 3)
    assert torch.equal(batch.maps[0, :, :2], small)
    assert torch.equal(batch.maps[1, :, :, :2], large)
    assert batch.maps[0, :, 2:].count_nonzero() == batch.maps[1, :, :, 2:].count_nonzero() == 0
    assert batch.sizes.tolist() == [[30, 44], [60, 31]]
    assert batch.sizes.dtype == batch.extents.dtype == torch.int64
    assert batch.extents.tolist() == [[2, 3], [4, 2]]
    assert batch.proposals is not None
    assert all(torch.equal(one, other) for one, other in zip(batch.proposals, boxes, strict=True))
    torch.testing.assert_close(batch.image_labels, torch.stack(image_labels), equal_nan=True)


def test_collate_pads_a_map_that_is_smaller_both_ways(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.features.torch.empty", lambda *sides, dtype: torch.full(sides, torch.nan, dtype=dtype))
    batch = collate([Item(torch.ones(2, 1, 2), (16, 32)), Item(torch.ones(2, 3, 4), (48, 64))])
    assert batch.maps[0].sum() == 2 * 2 and batch.maps[0, :, :1, :2].sum() == 4
    assert batch.maps[1].sum() == 2 * 12


def test_maps_of_folded_and_of_other_networks_do_not_share_a_folder(cache: Path, images: dict[str, Path]):
    convolution = nn.Conv2d(3, 2, 8, stride=16)
    for stages in (nn.Sequential(convolution), nn.Sequential(convolution, nn.BatchNorm2d(2))):
        backbone = Backbone(stages.eval(), 2, 16, (0,) * 3, (1,) * 3, "", "")
        FeatureStore(backbone, stages, BackboneConfig(), torch.device("cpu")).compute(images, VIEWS[:1])
    stored = [json.loads(file.read_text()) for file in cache.rglob("settings.json")]
    assert sorted("folding" in each for each in stored) == [False, True]


def test_collate_keeps_the_precision_of_stored_maps():
    stored = torch.rand(2, 3, 4).half()
    assert torch.equal(collate([Item(stored, (48, 64))]).maps[0], stored)
    assert collate([Item(stored.float(), (48, 64))]).maps.dtype == torch.float32


def test_collate_without_boxes_and_image_labels():
    batch = collate([Item(torch.ones(1, 2, 2), (32, 32))])
    assert batch.proposals is None
    assert batch.image_labels is None


def test_targets_stay_with_their_view_and_move_with_the_batch():
    one = Targets(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([1]), torch.tensor([False]), torch.tensor([True, False]))
    other = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    items = [Item(torch.ones(1, 2, 2), (32, 32), targets=targets) for targets in (one, other)]
    batch = collate(items).to(torch.device("meta"))
    assert batch.targets is not None
    assert [len(view.boxes) for view in batch.targets] == [1, 0]
    parts = [part for view in batch.targets for part in view if part is not None]
    assert len(parts) == 7 and all(part.device.type == "meta" for part in parts)
    assert collate([Item(torch.ones(1, 2, 2), (32, 32))]).targets is None


def test_a_batch_moves_as_a_whole():
    pair = torch.ones(1, 2, dtype=torch.int64)
    batch = Batch(torch.ones(1, 1, 1, 1), pair, pair, [torch.ones(2, 4)], torch.ones(1, 3))
    moved = batch.to(torch.device("meta"))
    assert moved.maps.is_meta
    assert moved.sizes.is_meta
    assert moved.extents.is_meta
    assert moved.proposals is not None
    assert moved.proposals[0].is_meta
    assert moved.image_labels is not None
    assert moved.image_labels.is_meta
    bare = replace(batch, proposals=None, image_labels=None).to(CPU)
    assert bare.proposals is None
    assert bare.image_labels is None


# The store.


def test_extract_runs_the_frozen_stages_on_the_views_pixels():
    network, store, image = backbone(), make_store(), noise(100, 70)
    for view in VIEWS:
        features = store.extract(image, view)
        with torch.inference_mode():
            expected = network.stages(to_pixels(image, view, network)[None])[0]
        assert features.dtype == torch.float32
        assert not features.requires_grad
        assert features.shape == (6, -(-view.size(100, 70)[1] // 16), view.scale // 16)
        assert torch.equal(features, features.half().float())
        torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)


def test_stored_maps_are_what_extract_gives_in_eight_bits(images: dict[str, Path], cache: Path):
    store = make_store()
    assert store.compute(images, VIEWS) == {}
    assert len(arrays(cache)) == 6
    for file in arrays(cache):
        assert load_array(file).dtype == np.uint8
    for key, path in images.items():
        for view in VIEWS:
            assert store.load(key, path, view).dtype == torch.float16
            assert torch.equal(store.load(key, path, view), as_stored(store.extract(read_image(path), view)))


def test_numbers_beyond_eight_bits_are_stored_as_the_nearest(images: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    numbers = torch.tensor([0, 1, 1.125, 1.375, 1.126, -0.3, 3e-8, 65504, -65504]).reshape(1, 3, 3)
    monkeypatch.setattr(FeatureStore, "_forward", lambda self, pixels: [numbers] * len(pixels))
    store, (key, path) = make_store(), next(iter(images.items()))
    store.compute({key: path}, VIEWS[:1])
    # Two bits behind the point: ties go to the even number. The largest is 57,344.
    expected = torch.tensor([0, 1, 1, 1.5, 1.25, -0.3125, 0, 57344, -57344]).reshape(1, 3, 3)
    assert torch.equal(store.load(key, path, VIEWS[0]).float(), expected)


def test_a_flipped_view_has_the_map_of_the_mirrored_image():
    store, half = make_store(), noise(40, 48)
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    assert torch.equal(store.extract(image, View(80)), store.extract(image, View(80, True)))
    asymmetric = noise(80, 48)
    plain, flipped = store.extract(asymmetric, View(80)), store.extract(asymmetric, View(80, True))
    assert not torch.equal(plain, flipped)
    assert torch.equal(flipped, store.extract(asymmetric[:, ::-1], View(80)))


def test_stored_maps_are_not_computed_again(images: dict[str, Path], cache: Path):
    make_store().compute(images, VIEWS[:1])
    first = arrays(cache)
    assert len(first) == 3
    # Only the new view is added.
    make_store().compute(images, VIEWS)
    both = arrays(cache)
    assert len(both) == 6
    assert both.items() >= first.items()
    make_store().compute(images, VIEWS)
    assert arrays(cache) == both


def test_a_stopped_call_is_resumed(images: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[torch.Size] = []
    forward = FeatureStore._forward

    def limited(self: FeatureStore, pixels: torch.Tensor) -> list[torch.Tensor]:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(pixels.shape)
        return forward(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "_forward", limited)
        with pytest.raises(KeyboardInterrupt):
            make_store().compute(images, VIEWS)
    before = arrays(cache)
    assert len(before) == 4
    store = make_store()
    store.compute(images, VIEWS)
    assert len(arrays(cache)) == 6
    assert arrays(cache).items() >= before.items()
    for key, path in images.items():
        assert torch.equal(store.load(key, path, VIEWS[1]), as_stored(store.extract(read_image(path), VIEWS[1])))


def test_damaged_maps_are_computed_anew(images: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture):
    make_store().compute(images, VIEWS)
    whole = {file: file.read_bytes() for file in cache.rglob("*.npy.zst")}
    damaged = list(whole)[1]
    content = bytearray(whole[damaged])
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    # On a slow machine the progress is logged too, at level INFO.
    with caplog.at_level(logging.WARNING, "boxless"):
        make_store().compute(images, VIEWS)
    assert {file: file.read_bytes() for file in cache.rglob("*.npy.zst")} == whole
    (message,) = caplog.messages
    assert message.startswith(f"{damaged}: damaged cache entry (") and message.endswith("; it is computed anew")


def test_a_half_written_map_is_no_map(images: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.cache.write_whole", torn)
    with pytest.raises(KeyboardInterrupt):
        make_store().compute(images, VIEWS)
    found = {file.name for file in cache.rglob("*") if file.is_file() and file.parent.name != "used"}
    assert found == {"settings.json"}
    with pytest.raises(BoxlessError, match="run the same command again"):
        make_store().load(*next(iter(images.items())), VIEWS[0])


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_broken_images_are_reported_and_the_others_stored(
    images: dict[str, Path], cache: Path, tmp_path: Path, freeze: str
):
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.jpg"
    broken.write_bytes(next(iter(images.values())).read_bytes()[:400])
    empty.write_bytes(b"")
    store = make_store(freeze=freeze)
    skipped = store.compute(keyed([broken]) | images | keyed([empty]), VIEWS)
    assert skipped.keys() == {broken, empty}
    assert all(str(path) in reason for path, reason in skipped.items())
    assert len(arrays(cache)) == (6 if freeze == "all" else 0)
    for key, path in images.items():
        assert store.load(key, path, VIEWS[0]).shape[0] == (6 if freeze == "all" else 3)


def test_without_frozen_stages_pixels_are_loaded_and_nothing_is_stored(images: dict[str, Path], cache: Path):
    store = make_store(freeze="none")
    assert not store.cached
    assert store.compute(images, VIEWS) == {}
    for key, path in images.items():
        for view in VIEWS:
            expected = to_pixels(read_image(path), view, backbone())
            assert torch.equal(store.load(key, path, view), expected)
            assert torch.equal(store.extract(read_image(path), view), expected)
    assert not cache.exists()


def test_views_of_an_image_are_read_once(images: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch):
    store, reads = make_store(freeze="none"), []

    def counted(path: Path) -> NDArray[np.uint8]:
        reads.append(path)
        return read_image(path)

    monkeypatch.setattr("boxless.features.read_image", counted)
    for key, path in images.items():
        one, other = store.load_all(key, path, VIEWS)
        assert torch.equal(one, store.load(key, path, VIEWS[0])) and torch.equal(other, store.load(key, path, VIEWS[1]))
    assert len(reads) == 3 * 3


# Batches, as on a GPU.


@pytest.fixture
def batched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches as on a GPU, computed on the CPU; their sizes."""
    sizes, forward, gpu = [], FeatureStore._forward, torch.device("cuda")

    def recorded(self: FeatureStore, pixels: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(FeatureStore, "_forward", recorded)
    monkeypatch.setattr("boxless.features.views_at_once", lambda sides, device: views_at_once(sides, gpu))
    monkeypatch.setattr("boxless.features.images_at_once", lambda device: images_at_once(gpu))
    return sizes


@pytest.fixture
def sized(tmp_path: Path) -> dict[str, Path]:
    """Content key -> file of three images of one size and one that is turned."""
    paths = []
    for number, (width, height) in enumerate([(100, 70), (70, 100), (100, 70), (100, 70)]):
        paths.append(tmp_path / f"{number}.png")
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        write_image(paths[-1], pixels)
    return keyed(paths)


def test_batches_give_the_maps_of_single_images(sized: dict[str, Path], cache: Path, batched: list[int]):
    store = make_store()
    assert store.compute(sized, VIEWS) == {}
    assert batched == [3, 3, 1, 1]
    for key, path in sized.items():
        for view in VIEWS:
            assert torch.equal(store.load(key, path, view), as_stored(store.extract(read_image(path), view)))


def test_a_broken_image_is_left_out_of_its_batch(
    sized: dict[str, Path], cache: Path, tmp_path: Path, batched: list[int]
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(next(iter(sized.values())).read_bytes()[:400])
    assert make_store().compute(keyed([broken]) | sized, VIEWS[:1]).keys() == {broken}
    assert batched == [3, 1] and len(arrays(cache)) == 4


def test_other_weights_stages_or_networks_have_their_own_entries(images: dict[str, Path], cache: Path):
    make_store().compute(images, VIEWS[:1])
    first = arrays(cache)
    others = [
        make_store(seed=1),
        make_store(freeze=1),
        make_store(config=BackboneConfig(name="resnet18")),
        make_store(config=BackboneConfig(output_stride=8)),
    ]
    for number, other in enumerate(others, 2):
        other.compute(images, VIEWS[:1])
        assert len(arrays(cache)) == 3 * number
        assert arrays(cache).items() >= first.items()
    # The same weights from elsewhere, or with other trained stages, give the same maps.
    for config in (BackboneConfig(weights="some.pth"), BackboneConfig(freeze=2)):
        make_store(config=config).compute(images, VIEWS[:1])
        assert len(arrays(cache)) == 15


def test_hypercolumns_have_entries_of_their_own(images: dict[str, Path], cache: Path):
    network = backbone()

    def hypercolumns(*levels: int) -> FeatureStore:
        return FeatureStore(network, Hypercolumns(network.stages, levels), BackboneConfig(), CPU)

    for number, store in enumerate((make_store(), hypercolumns(0), hypercolumns(0, 1)), 1):
        store.compute(images, VIEWS[:1])
        assert len(arrays(cache)) == 3 * number
    hypercolumns(0).compute(images, VIEWS[:1])
    assert len(arrays(cache)) == 9
    (key, path), *_ = images.items()
    plain, deep = (store.load(key, path, VIEWS[0]) for store in (make_store(), hypercolumns(0)))
    assert deep.shape == (6 + 8, *plain.shape[1:])
    assert torch.equal(deep[:6], plain)
    stored = [json.loads(file.read_text()) for file in cache.rglob("settings.json")]
    assert sorted(settings.get("levels", []) for settings in stored) == [[], [0], [0, 1]]


def test_images_are_extracted_one_a_thread_independently(
    images: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
):
    store, threads, names = make_store(), torch.get_num_threads(), set()
    forward = FeatureStore._forward

    def recorded(self: FeatureStore, pixels: torch.Tensor) -> list[torch.Tensor]:
        assert len(pixels) == 1
        names.add((threading.get_ident(), torch.get_num_threads()))
        return forward(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "_forward", recorded)
        torch.set_num_threads(3)
        try:
            store.compute(images, VIEWS)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(threads)
    assert threading.get_ident() not in {name for name, _ in names}
    assert {number for _, number in names} == {1}
    for key, path in images.items():
        for view in VIEWS:
            assert torch.equal(store.load(key, path, view), as_stored(store.extract(read_image(path), view)))


def test_a_folder_of_maps_names_what_made_it(images: dict[str, Path], cache: Path):
    make_store().compute(images, [View(96, True)])
    (settings,) = (json.loads(file.read_text()) for file in cache.rglob("settings.json"))
    assert settings["backbone"] == {"name": "efficientnet_lite0", "output_stride": 16}
    assert settings["stages"] == 2
    assert "source" not in settings, "a loaded run, whose weights come from its own folder, must find the same maps"
    assert (settings["scale"], settings["flipped"]) == (96, True)
    assert settings["versions"]["torch"] == torch.__version__
