"""Proposals for the boxes that a person has given."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from running import SMALL_BACKBONE

import boxless
from boxless.config import ProposalConfig
from boxless.datasets import load_dataset
from boxless.images import write_image
from boxless.pipeline import prepare
from boxless.proposals import store
from boxless.proposals.fitted import MIN_BOXES, SMALL, fitted_to_given, mean_best_overlap
from boxless.run_folder import read_config
from boxless.structures import Annotations, Dataset, GivenBoxes, Sample

DEFAULT = ProposalConfig()
PART = (0, 0, 10, 10)
"""Of an image of 100 pixels: too small for the default, not for `SMALL`."""
WHOLE = (0, 0, 100, 100)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A generator that gives every image `PART` and `WHOLE`; an empty cache."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "generate", lambda image, config: np.array([PART, WHOLE], np.float32))


def given(path: Path, *boxes: tuple[int, int, int, int]) -> Sample:
    """An image of which these boxes are given."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    right = Annotations(array, np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.bool_))
    none = Annotations(array[:0], right.labels[:0], right.ignore[:0])
    return Sample(path.stem, path, frozenset({0}), given=GivenBoxes(right, none))


def grey(path: Path) -> Path:
    write_image(path, np.full((100, 100, 3), 90, np.uint8))
    return path


def dataset(*samples: Sample) -> Dataset:
    return Dataset("some", ("thing",), samples)


@pytest.mark.usefixtures("known")
def test_small_proposals_are_taken_where_they_cover_the_given_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    image = grey(tmp_path / "a.jpg")
    with caplog.at_level(logging.INFO, "boxless"):
        found = fitted_to_given(dataset(given(image, *[PART] * (MIN_BOXES - 1), WHOLE)), DEFAULT)
    assert found == SMALL
    # 19 boxes are a hundredth of the whole image, and one is the image.
    assert "mean best overlap 0.06 by default, 1.00 of small ones (proposals.min_area=0.002" in caplog.text
    assert "small ones are used, on 1 image" in caplog.text


@pytest.mark.usefixtures("known")
def test_else_the_default_stays(tmp_path: Path):
    image = grey(tmp_path / "a.jpg")
    assert fitted_to_given(dataset(given(image, *[WHOLE] * MIN_BOXES)), DEFAULT) == DEFAULT
    # Too few boxes, or settings that were chosen: no image is read.
    nowhere = tmp_path / "nowhere.jpg"
    assert fitted_to_given(dataset(given(nowhere, *[PART] * (MIN_BOXES - 1))), DEFAULT) == DEFAULT
    chosen = ProposalConfig(size=400)
    assert fitted_to_given(dataset(given(nowhere, *[PART] * MIN_BOXES)), chosen) is chosen


@pytest.mark.usefixtures("known")
def test_images_that_cannot_be_read_do_not_count(tmp_path: Path):
    image, broken = grey(tmp_path / "a.jpg"), tmp_path / "b.jpg"
    broken.write_bytes(image.read_bytes()[:300])
    # 1, 0.5 and 1 by hand.
    assert mean_best_overlap([given(image, PART, (0, 0, 10, 5)), given(broken, WHOLE), given(image, WHOLE)], SMALL) == (
        pytest.approx(2.5 / 3)
    )
    assert mean_best_overlap([given(broken, WHOLE)], SMALL) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("short_training", "cache")
def test_a_run_is_trained_on_them_and_keeps_them(tmp_path: Path):
    """Of squares of 14 pixels, which the default drops."""
    random, names, lines = np.random.default_rng(0), ("red", "blue"), []
    rows = ["image,tags,split"]
    for number in range(MIN_BOXES):
        pixels = random.integers(90, 110, (200, 200, 3)).astype(np.uint8)
        x, y = random.integers(10, 170, 2).tolist()
        pixels[y : y + 14, x : x + 14] = ((200, 30, 30), (30, 30, 200))[number % 2]
        write_image(tmp_path / f"{number}.png", pixels)
        box = {"class": names[number % 2], "xyxy": [x, y, x + 14, y + 14], "state": "right"}
        lines.append(json.dumps({"image": f"{number}.png", "boxes": [box], "complete": [names[number % 2]]}))
        rows.append(f"{number}.png,{names[number % 2]},train")
    table, labels, run = tmp_path / "tags.csv", tmp_path / "labels.jsonl", tmp_path / "run"
    table.write_text("\n".join(rows))
    labels.write_text("\n".join(lines))
    options = [*SMALL_BACKBONE, "views.scales=[96]", "training.epochs=1", "head.pca_dims=[12,6]", "head.hidden=[16]"]
    options += ["pseudo_labels.rounds=1", "pseudo_labels.mosaics=0"]
    trained = boxless.train(table, run, labels=labels, options=options)
    assert trained.proposals == read_config(run).proposals == boxless.Detector.load(run).proposals == SMALL
    prepared = prepare(table, labels=labels, options=options)
    assert prepared.proposals is not None and prepared.proposals.config == SMALL
    # From tags alone nothing is fitted.
    alone = prepare(load_dataset(table), options=options)
    assert alone.proposals is not None and alone.proposals.config == DEFAULT
