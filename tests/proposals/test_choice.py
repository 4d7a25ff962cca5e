"""The choice of proposals for the boxes that a person has given."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import SMALL_BACKBONE

import boxless
from boxless.config import ProposalConfig
from boxless.errors import BoxlessError
from boxless.images import write_image
from boxless.pipeline import prepare
from boxless.proposals import choice, store
from boxless.proposals.choice import MIN_BOXES, SMALL, choose_proposals
from boxless.proposals.report import Overlaps
from boxless.run_folder import read_config
from boxless.structures import Annotations, Dataset, GivenBoxes, Sample

DEFAULT = ProposalConfig()
PART = (0, 0, 10, 10)
"""Of an image of 100 pixels: too small for the default, not for `SMALL`."""
WHOLE = (0, 0, 100, 100)


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An image with the proposals `PART` and `WHOLE`, and an empty cache."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "generate", lambda image, config: np.array([PART, WHOLE], np.float32))
    write_image(tmp_path / "a.jpg", np.full((100, 100, 3), 90, np.uint8))
    return tmp_path / "a.jpg"


def given(path: Path, *boxes: tuple[int, int, int, int], ignored: int = 0) -> Sample:
    """An image of which these boxes are given, the first of them to ignore."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    right = Annotations(array, np.zeros(len(boxes), np.int64), np.arange(len(boxes)) < ignored)
    none = Annotations(array[:0], right.labels[:0], right.ignore[:0])
    return Sample(path.stem, path, frozenset({0}), given=GivenBoxes(right, none))


def dataset(*samples: Sample) -> Dataset:
    return Dataset("some", ("thing",), samples)


def test_small_proposals_are_taken_where_they_cover_the_given_boxes_better(
    image: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "boxless"):
        assert choose_proposals(dataset(given(image, *[PART] * (MIN_BOXES - 1), WHOLE)), DEFAULT) == SMALL
    # By default 19 boxes are a hundredth of the only proposal, and one is all of it.
    assert (
        "Mean best overlap of 20 given boxes with proposals: 0.059 by default, 1.000 with proposals.size=200 "
        "proposals.min_side=8 proposals.min_area=0.002; these are used" in caplog.text
    )


@pytest.mark.parametrize(("gain", "expected"), [(0.009, DEFAULT), (0.011, SMALL), (-0.3, DEFAULT)])
def test_a_gain_of_less_than_a_hundredth_changes_nothing(
    gain: float, expected: ProposalConfig, image: Path, monkeypatch: pytest.MonkeyPatch
):
    def overlaps(samples: object, boxes_of: object, config: ProposalConfig) -> Overlaps:
        return Overlaps([], np.full(MIN_BOXES, 0.5 + gain * (config == SMALL)), {})

    monkeypatch.setattr(choice, "best_overlaps", overlaps)
    assert choose_proposals(dataset(given(image, PART)), DEFAULT) == expected


@pytest.mark.parametrize("ignored", [0, 1])
def test_few_boxes_choose_nothing(ignored: int, image: Path):
    few = given(image, *[PART] * (MIN_BOXES - 1 + ignored), ignored=ignored)
    broken = image.with_name("b.jpg")
    broken.write_bytes(image.read_bytes()[:300])
    # Those of an image that cannot be read do not count either.
    assert choose_proposals(dataset(few, given(broken, PART, PART)), DEFAULT) == DEFAULT
    assert choose_proposals(dataset(few, given(image, PART)), DEFAULT) == SMALL


def test_what_was_set_and_what_a_run_was_begun_with_stay(image: Path, monkeypatch: pytest.MonkeyPatch):
    def unwanted(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(choice, "best_overlaps", unwanted)
    boxed = dataset(given(image, *[PART] * MIN_BOXES))
    chosen = ProposalConfig(size=400)
    assert choose_proposals(boxed, chosen) is chosen
    assert choose_proposals(boxed, DEFAULT, DEFAULT) == DEFAULT
    assert choose_proposals(boxed, DEFAULT, SMALL) == SMALL
    tags = dataset(replace(boxed.samples[0], given=None))
    assert choose_proposals(tags, DEFAULT, SMALL) == choose_proposals(dataset(given(image)), DEFAULT) == DEFAULT
    with pytest.raises(AssertionError, match="measured"):
        choose_proposals(boxed, DEFAULT, chosen.model_copy(update={"size": 300}))


def test_of_many_images_a_random_part_is_measured(image: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "MAX_IMAGES", 30)
    asked: list[set[str]] = []

    def overlaps(samples: list[Sample], boxes_of: object, config: ProposalConfig) -> Overlaps:
        asked.append({sample.id for sample in samples})
        return Overlaps([], np.ones(len(samples)), {})

    monkeypatch.setattr(choice, "best_overlaps", overlaps)
    choose_proposals(dataset(*(replace(given(image, PART), id=str(number)) for number in range(60))), DEFAULT)
    assert len(asked[0]) == 30 and asked[0] == asked[1]
    # Of classes that alternate, both.
    assert {int(number) % 2 for number in asked[0]} == {0, 1}


@pytest.fixture
def squares(tmp_path: Path) -> tuple[Path, Path]:
    """A table of images with squares of 14 pixels, which the default drops, and labels with a box of each."""
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
    table, labels = tmp_path / "tags.csv", tmp_path / "labels.jsonl"
    table.write_text("\n".join(rows))
    labels.write_text("\n".join(lines))
    return table, labels


OPTIONS = (
    *(*SMALL_BACKBONE, "views.scales=[96]", "training.epochs=1", "head.pca_dims=[12,6]"),
    *("pseudo_labels.rounds=1", "pseudo_labels.mosaics=0"),
)


@pytest.mark.slow
@pytest.mark.usefixtures("short_training", "cache")
@pytest.mark.parametrize("method", ["seeded", "student"])
def test_a_run_is_trained_on_them_and_keeps_them(method: str, squares: tuple[Path, Path], tmp_path: Path):
    (table, labels), run = squares, tmp_path / "run"
    options = [*OPTIONS, "head.hidden=[16]"] if method == "seeded" else [*OPTIONS, "head.channels=8"]
    with pytest.raises(RuntimeError, match="killed"):
        boxless.train(table, run, labels=labels, method=method, options=options, on_epoch_end=killed)
    boxless.train(table, run, labels=labels, method=method, options=options)
    assert read_config(run).proposals == SMALL
    if method == "seeded":
        assert boxless.Detector.load(run).proposals == SMALL
    # More boxes do not change what the run was begun with; that they are others is said.
    with labels.open("a") as file:
        file.write('\n{"image": "0.png", "boxes": [{"class": "red", "xyxy": [1, 1, 99, 99], "state": "right"}]}')
    with pytest.raises(BoxlessError, match="begun on other images or tags or given boxes"):
        boxless.train(table, run, labels=labels, method=method, options=options)
    with pytest.raises(BoxlessError, match=r"proposals\.size \(200 there, 400 now\)"):
        boxless.train(table, run, labels=labels, method=method, options=[*options, "proposals.size=400"])


def killed(_: object) -> None:
    raise RuntimeError("killed")


@pytest.mark.usefixtures("cache")
def test_shares_are_prepared_alike(squares: tuple[Path, Path]):
    table, labels = squares
    shares = [prepare(table, labels=labels, options=OPTIONS, share=(number, 10)) for number in (1, 10)]
    assert [own.proposals.config for own in shares if own.proposals is not None] == [SMALL, SMALL]
    # From tags alone nothing is chosen.
    alone = prepare(table, options=OPTIONS, share=(1, 10))
    assert alone.proposals is not None and alone.proposals.config == DEFAULT
    for wrong in ((0, 3), (4, 3)):
        with pytest.raises(BoxlessError, match=r"takes i and n with i from 1 to n"):
            prepare(table, options=OPTIONS, share=wrong)
