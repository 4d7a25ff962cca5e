import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.methods import CAM, CAMConfig
from boxless.pseudo_labels.cross_fitting import draw_folds
from boxless.pseudo_labels.local_cam_errors import held_out_errors, local_cams_classify_well
from boxless.structures import Annotations, Dataset, GivenBoxes, Sample
from boxless.views import View

IMAGES = 60


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxless.methods.local_cam.STEPS", 60)


def cam_and_data(
    maps_of: Callable[[bool, torch.Generator], tuple[Tensor, Tensor]], channels: int = 8
) -> tuple[CachedDataset, Detector]:
    """Images of which every other one shows the only class, with the last map and the early level that are given."""
    stages = nn.Sequential(nn.Conv2d(3, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1))
    backbone = Backbone(stages, channels, 16, (0,) * 3, (1,) * 3, "", "", levels=(0,))
    model = CAM(backbone, nn.Sequential(), CAMConfig(objectness=True), 1).eval()
    random = torch.Generator().manual_seed(0)
    maps = {str(row): torch.cat(maps_of(row % 2 == 1, random)) for row in range(IMAGES)}
    samples = tuple(Sample(str(row), Path(str(row)), frozenset([0] if row % 2 else [])) for row in range(IMAGES))
    data = CachedDataset(
        Dataset("some", ("x",), samples),
        tuple(maps),
        ((128, 64),) * IMAGES,
        SimpleNamespace(load=lambda key, path, view: maps[key]),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        {},
        {},
    )
    cam = SimpleNamespace(model=model, views=(View(128),), device=torch.device("cpu"))
    return data, cam  # type: ignore[return-value]


def told_by_the_average(shown: bool, random: torch.Generator) -> tuple[Tensor, Tensor]:
    whole = torch.randn(8, 4, 8, generator=random)
    whole[0] = (1 if shown else -1) + whole[0] - whole[0].mean()
    return whole, torch.randn(2, 4, 8, generator=random)


def told_by_one_cell(shown: bool, random: torch.Generator) -> tuple[Tensor, Tensor]:
    # All cells are of one direction, but for one cell of the class.
    early = torch.tensor([1.0, 0])[:, None, None].repeat(1, 4, 8)
    if shown:
        early[:, 2, 3] = torch.tensor([0, 1.0])
    return torch.randn(8, 4, 8, generator=random), early


def noise(shown: bool, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(200, 4, 8, generator=random), torch.randn(50, 4, 8, generator=random)


def boxes_of(*labels: int) -> Annotations:
    """A box of each class."""
    number = len(labels)
    return Annotations(np.zeros((number, 4), np.float32), np.array(labels, np.int64), np.zeros(number, np.bool_))


def told_by_both(shown: bool, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return told_by_the_average(shown, random)[0], told_by_one_cell(shown, random)[1]


def test_local_cams_that_do_not_tell_the_class_are_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data, cam = cam_and_data(told_by_the_average)
    cam_error, local_error = held_out_errors(data, cam, seed=0)
    assert cam_error == 0 and local_error > 0.2
    with caplog.at_level("INFO"):
        assert not local_cams_classify_well(data, cam, 0, tmp_path / "errors.json")
    assert "1.00 by CAMs" in caplog.text and "the boxes of local CAMs are left out" in caplog.text
    assert json.loads((tmp_path / "errors.json").read_text()) == {"cam": 0, "local_cam": local_error}


def test_local_cams_that_alone_tell_the_class_are_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data, cam = cam_and_data(told_by_one_cell)
    cam_error, local_error = held_out_errors(data, cam, seed=0)
    assert cam_error > 0.2 and local_error == 0
    with caplog.at_level("INFO"):
        assert local_cams_classify_well(data, cam, 0, tmp_path / "errors.json")
    assert "1.00 by local CAMs; the boxes of local CAMs are trained on" in caplog.text


def test_errors_are_those_of_images_that_were_not_trained_on():
    # Noise, of which so many channels are learned by heart.
    data, cam = cam_and_data(noise, channels=200)
    assert min(held_out_errors(data, cam, seed=0)) > 0.25
    halves = draw_folds(data, 2, 0)
    twice = data.subset([row for half in range(2) for row in np.flatnonzero(halves == half).tolist() * 2])
    # Copies of an image are in the same half: what is learned by heart is of no use.
    assert min(held_out_errors(twice, cam, seed=0)) > 0.25


@pytest.mark.parametrize(
    ("cam_error", "local_error", "well"),
    [(0.1, 0.1849, True), (0.1, 0.1851, False), (0, 0.0369, True), (0, 0.0371, False), (math.nan, math.nan, False)],
)
def test_the_limit_is_a_ratio_of_errors_that_are_kept(
    cam_error: float, local_error: float, well: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = [(cam_error, local_error)]
    monkeypatch.setattr("boxless.pseudo_labels.local_cam_errors.held_out_errors", lambda *_: found.pop())
    # They are measured once.
    for _ in range(2):
        assert local_cams_classify_well(Any, Any, 0, tmp_path / "errors.json") == well
    (tmp_path / "errors.json").write_text("{")
    found.append((1, 0))
    assert local_cams_classify_well(Any, Any, 0, tmp_path / "errors.json")


def test_the_only_image_without_given_boxes_is_held_out():
    data, cam = cam_and_data(told_by_both)
    # An image without any tag is predicted too.
    tagged = [replace(one, tags=one.tags or frozenset({1})) for one in data.dataset.samples]
    samples = [replace(one, given=GivenBoxes(boxes_of(*one.tags), boxes_of())) for one in tagged[:-1]] + tagged[-1:]
    boxed = replace(data, dataset=replace(data.dataset, classes=("x", "y"), samples=tuple(samples)))
    assert set(draw_folds(boxed, 2, 0).tolist()) == {-1, 0}
    assert held_out_errors(boxed, cam, seed=0) == (0, 0)


def test_without_an_image_to_predict_there_are_no_errors(tmp_path: Path):
    data, cam = cam_and_data(told_by_both)
    tagged = [replace(one, tags=one.tags or frozenset({1})) for one in data.dataset.samples]
    samples = tuple(replace(one, given=GivenBoxes(boxes_of(*one.tags), boxes_of())) for one in tagged)
    boxed = replace(data, dataset=replace(data.dataset, classes=("x", "y"), samples=samples))
    assert np.isnan(held_out_errors(boxed, cam, seed=0)).all()
    assert not local_cams_classify_well(boxed, cam, 0, tmp_path / "errors.json")


def test_a_class_that_every_image_shows_or_none_has_no_part_in_the_errors():
    data, cam = cam_and_data(told_by_both)
    samples = tuple(replace(one, tags=one.tags | {1}) for one in data.dataset.samples)
    more = replace(data, dataset=Dataset("some", ("x", "always", "never"), samples))
    assert held_out_errors(more, cam, seed=0) == (0, 0)
    one = replace(more.dataset, samples=tuple(replace(one, tags=frozenset({1})) for one in samples))
    assert np.isnan(held_out_errors(replace(data, dataset=one), cam, seed=0)).all()


def test_of_many_images_some_are_drawn(monkeypatch: pytest.MonkeyPatch):
    data, cam = cam_and_data(told_by_both)
    monkeypatch.setattr("boxless.pseudo_labels.local_cam_errors.MAX_IMAGES", 20)
    read: set[str] = set()
    counting = SimpleNamespace(load=lambda key, path, view: read.add(key) or data.features.load(key, path, view))
    held_out_errors(replace(data, features=counting), cam, seed=0)  # type: ignore[arg-type]
    assert len(read) == 20
