from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from boxless.backbones import Backbone
from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.methods import CAM, CAMConfig
from boxless.pseudo_labels import seeds
from boxless.pseudo_labels.seeds import local_cam_seed, mixed_cam_seed
from boxless.structures import Dataset, Sample
from boxless.views import View


def detector_of(model: CAM, scale: int) -> Detector:
    """A detector of this model with one view."""
    made = Detector.__new__(Detector)
    made.model, made.views, made.device, made.proposals = model, (View(scale),), torch.device("cpu"), None
    return made


def test_the_local_cam_seed_is_the_proposal_around_the_cells_that_show_the_tag():
    # The early level has two channels; class 0 responds to the first, class 1 to the second.
    stages = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 1, 1))
    backbone = Backbone(stages, 1, 16, (0,) * 3, (1,) * 3, "", "", levels=(0,))
    model = CAM(backbone, nn.Sequential(), CAMConfig(objectness=True), 2).eval()
    assert model.local is not None
    model.local.cells.weight.data[:, :, 0, 0] = torch.eye(2)
    maps = torch.zeros(3, 4, 8)
    maps[1], maps[2] = 0.1, 1.0
    maps[1, 1:3, 4:7], maps[2, 1:3, 4:7] = 1.0, 0.1
    proposals = np.array([[0, 0, 128, 64], [64, 16, 112, 48], [0, 0, 64, 64], [48, 0, 80, 16]], np.float32)
    samples = tuple(Sample(name, Path(name), frozenset(tags)) for name, tags in (("a", {0, 1}), ("b", {}), ("c", {1})))
    data = CachedDataset(
        Dataset("some", ("x", "y"), samples),
        tuple("abc"),
        ((128, 64),) * 3,
        SimpleNamespace(load=lambda key, path, view: maps),  # type: ignore[arg-type]
        SimpleNamespace(load=lambda key: proposals),  # type: ignore[arg-type]
        {},
        {},
    )
    first, bare, third = local_cam_seed(data, detector_of(model, 128))
    assert first.labels.tolist() == [0, 1] and third.labels.tolist() == [1] and bare.boxes.shape == (0, 4)
    assert first.boxes.tolist() == [[64, 16, 112, 48], [0, 0, 64, 64]]
    assert third.boxes.tolist() == [[0, 0, 64, 64]] and not third.ignore.any()


@pytest.mark.parametrize(("share", "local", "right"), [(1 / 3, 1, 52), (1 / 2, 1, 64), (1 / 3, -1, 43)])
def test_the_mixed_seed_is_the_box_of_a_weighted_mean_of_cam_and_local_cam(
    share: float, local: float, right: int, monkeypatch: pytest.MonkeyPatch
):
    stages = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, 1))
    backbone = Backbone(stages, 1, 16, (0,) * 3, (1,) * 3, "", "", levels=(0,))
    model = CAM(backbone, nn.Sequential(), CAMConfig(objectness=True), 1).eval()
    assert model.local is not None
    for layer in (model.local.cells, model.head[-1]):
        nn.init.ones_(layer.weight)
    model.threshold.fill_(0.6)
    monkeypatch.setattr(model, "objectness_of", lambda maps: torch.zeros(maps.shape[1:]))
    # The CAM is 3 in all columns but the last, the local CAM responds to that one alone.
    maps = torch.zeros(2, 4, 4)
    maps[0, :, :3], maps[1, :, 3] = 3.0, local
    # One that is nowhere positive says nothing.
    maps[1, :, :3] = min(local, 0)
    monkeypatch.setattr(seeds, "LOCAL_SHARE", share)
    sample = Sample("a", Path("a"), frozenset({0}))
    stored = SimpleNamespace(load=lambda *_: maps, load_all=lambda *_: [maps])
    data = CachedDataset(Dataset("some", ("x",), (sample,)), ("a",), ((64, 64),), stored, None, {}, {})  # type: ignore[arg-type]
    (found,) = mixed_cam_seed(data, detector_of(model, 64))
    # The last column is half as strong as the others, or as strong. Odds of 1 / 0.6 and 0.5 / 0.6 are probabilities of
    # 0.625 and 0.455, which reach 0.5 at pixel 51.7 between the centres 40 and 56 of the last two columns; of the CAM
    # alone they are 0.625 and 0, and it is pixel 43.2.
    assert found.boxes.tolist() == [[0, 0, right, 64]]
