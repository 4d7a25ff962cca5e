"""What training reads behind the fixed part of a network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from running import STUDENT
from torch import Tensor, nn

import boxless
from boxless.backbones import Backbone
from boxless.cached_dataset import CachedDataset, cache_dataset
from boxless.config import BackboneConfig
from boxless.datasets import load_dataset
from boxless.features import FeatureStore
from boxless.training.fixed_maps import FixedMaps, compute_fixed_maps
from boxless.views import View

VIEWS = (View(64), View(64, True), View(96))


class Halved(nn.Module):
    """A fixed part that counts its calls."""

    calls = 0

    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, view: Tensor) -> Tensor:
        Halved.calls += 1
        return view.float()[:2] * self.factor


@pytest.fixture
def data(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachedDataset:
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    stages = nn.Sequential(nn.Conv2d(3, 4, 3, stride=16, padding=1)).eval()
    backbone = Backbone(stages, 4, 16, (0.5,) * 3, (0.5,) * 3, "random", "none")
    store = FeatureStore(backbone, backbone.split("all")[0], BackboneConfig(), torch.device("cpu"))
    dataset = load_dataset(demo, "train")
    return cache_dataset(boxless.Dataset("few", dataset.classes, dataset.samples[:3]), store, VIEWS, None)


def test_each_map_is_computed_once_and_again_only_where_it_is_damaged(data: CachedDataset, tmp_path: Path):
    def computed(part: nn.Module) -> tuple[FixedMaps, int]:
        before = Halved.calls
        return compute_fixed_maps(part, data, VIEWS, tmp_path / "fixed"), Halved.calls - before

    fixed, calls = computed(Halved())
    assert calls == 9
    for row, key in enumerate(data.keys):
        for view in VIEWS:
            expected = (data.map(row, view).float()[:2] * 0.5).half()
            assert torch.equal(fixed.load(key, view), expected)
    assert computed(Halved())[1] == 0
    file = fixed.file(data.keys[1], VIEWS[2])
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert computed(Halved())[1] == 1
    # Other weights are another part.
    other, calls = computed(Halved(0.25))
    assert calls == 9 and other.part != fixed.part
    np.testing.assert_array_equal(other.load(data.keys[0], VIEWS[0]) * 2, fixed.load(data.keys[0], VIEWS[0]))


def test_the_part_itself_stays_where_it_is(data: CachedDataset, tmp_path: Path):
    part = Halved().double().train()
    compute_fixed_maps(part, data, VIEWS[:1], tmp_path / "fixed")
    assert part.training and part.factor.dtype == torch.float64


@pytest.mark.slow
@pytest.mark.usefixtures("short_training")
def test_a_finished_run_keeps_none(demo: Path, tmp_path: Path):
    seen = []

    def watch(row: dict[str, object]) -> None:
        seen.append((tmp_path / "run" / "fixed-maps").is_dir())

    options = ["supervision=boxes", "training.epochs=1", *STUDENT]
    boxless.train(demo, tmp_path / "run", method="student", split="train", options=options, on_epoch_end=watch)
    assert seen[-1] and not (tmp_path / "run" / "fixed-maps").exists()
