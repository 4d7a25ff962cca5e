from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.methods import CAM, CAMConfig
from boxless.pseudo_labels.local_cam_errors import MAX_ERRORS, held_out_errors, local_cams_classify
from boxless.structures import Annotations, Dataset, GivenBoxes, Sample
from boxless.views import View

IMAGES = 60


def cam_and_data(maps_of: Callable[[bool, torch.Generator], tuple[Tensor, Tensor]]) -> tuple[CachedDataset, Detector]:
    """Images of which every other one shows the only class, with the last map and the early level that are given."""
    stages = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 8, 1))
    backbone = Backbone(stages, 8, 16, (0,) * 3, (1,) * 3, "", "", levels=(0,))
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


def told_by_both(shown: bool, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return told_by_the_average(shown, random)[0], told_by_one_cell(shown, random)[1]


def test_local_cams_that_do_not_tell_the_class_are_not_trained_on(caplog: pytest.LogCaptureFixture):
    data, cam = cam_and_data(told_by_the_average)
    whole, local = held_out_errors(data, cam, seed=0)
    assert whole == 0 and local > 0.2
    with caplog.at_level("INFO"):
        assert not local_cams_classify(data, cam, seed=0)
    assert "CAMs of 1.00: trained without boxes of local CAMs" in caplog.text


def test_local_cams_that_alone_tell_the_class_are_trained_on(caplog: pytest.LogCaptureFixture):
    data, cam = cam_and_data(told_by_one_cell)
    whole, local = held_out_errors(data, cam, seed=0)
    assert whole > 0.2 and local == 0
    with caplog.at_level("INFO"):
        assert local_cams_classify(data, cam, seed=0)
    assert "trained with boxes of local CAMs" in caplog.text


def test_without_any_error_both_are_trained_on():
    data, cam = cam_and_data(told_by_both)
    assert held_out_errors(data, cam, seed=0) == (0, 0)
    assert local_cams_classify(data, cam, seed=0)


def test_errors_are_those_of_images_that_were_not_trained_on():
    # Of thirty images the 64 cells of two such maps can be learned by heart.
    data, cam = cam_and_data(lambda shown, random: (torch.randn(8, 4, 8, generator=random), torch.randn(2, 4, 8)))
    torch.manual_seed(0)
    assert min(held_out_errors(data, cam, seed=0)) > 0.2


def test_the_limit_is_a_ratio_of_errors(monkeypatch: pytest.MonkeyPatch):
    for local, expected in ((0.1 * MAX_ERRORS, True), (0.1 * MAX_ERRORS + 1e-6, False), (float("nan"), False)):
        monkeypatch.setattr(
            "boxless.pseudo_labels.local_cam_errors.held_out_errors", lambda *_, local=local: (0.1, local)
        )
        assert local_cams_classify(None, None, 0) == expected  # type: ignore[arg-type]


def test_with_all_boxes_given_but_of_one_image_that_image_is_held_out():
    data, cam = cam_and_data(told_by_both)
    own, none = (
        Annotations(np.zeros((n, 4), np.float32), np.zeros(n, np.int64), np.zeros(n, np.bool_)) for n in (1, 0)
    )
    # The others show no class, so that one of both halves has nothing to measure.
    boxed = [replace(one, given=GivenBoxes(own, none) if one.tags else None) for one in data.dataset.samples[:-1]]
    samples = (*boxed, data.dataset.samples[-1])
    assert held_out_errors(replace(data, dataset=replace(data.dataset, samples=samples)), cam, seed=0) == (0, 0)


def test_a_class_that_no_held_out_image_shows_has_no_part_in_the_errors():
    data, cam = cam_and_data(told_by_both)
    samples = tuple(Sample(own.id, own.path, frozenset()) for own in data.dataset.samples)
    untagged = replace(data, dataset=Dataset("some", ("x",), samples))
    assert np.isnan(held_out_errors(untagged, cam, seed=0)).all()
