"""The classes of a detector and of the data it is evaluated on."""

import logging
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy_detectors import detector

from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.evaluation import matched
from boxless.methods import CAMConfig, ViewOutput

SPELT = (
    "classes that the detector and the data spell differently, in case, punctuation or Unicode form only, and which do "
    "not match therefore; give them one name"
)


def table(root: Path, *tags: str) -> Path:
    """A table of one image for each tag."""
    for number in range(len(tags)):
        Image.new("RGB", (8, 6)).save(root / f"{number}.png")
    rows = "".join(f"{number}.png,{tag}\n" for number, tag in enumerate(tags))
    (root / "set.csv").write_text(f"image,tags\n{rows}", encoding="utf-8")
    return root / "set.csv"


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what the evaluation says."""
    return [(one.levelname, one.message) for one in caplog.records if one.name == "boxless.evaluation"]


def toy(*classes: str) -> Detector:
    toy = detector(lambda *_: ViewOutput(torch.zeros(3)), CAMConfig())
    toy.classes = classes
    return toy


def test_classes_that_only_the_detector_or_the_data_has_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "boxless")
    accent = unicodedata.normalize("NFD", "k\u00e4se")
    data = table(tmp_path, "Cat", "zebra", "owl", accent)
    dataset = matched(toy("cat", "dog", "owl", "k\u00e4se"), data, None)
    assert [sample.tags for sample in dataset.samples] == [set(), set(), {2}, set()]
    assert logged(caplog) == [
        ("WARNING", f"set: {SPELT}: 2 (cat and Cat, k\u00e4se and {accent})"),
        ("WARNING", "set: classes of the detector that the data lacks: 1 (dog)"),
        ("WARNING", "set: classes of the data that the detector lacks, left out: 1 (zebra)"),
    ]


def test_classes_beyond_those_of_the_detector_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "boxless")
    matched(toy("cat"), table(tmp_path, "cat", "dog", "owl"), None)
    assert logged(caplog) == [("INFO", "set: classes of the data that the detector lacks, left out: 2 (dog, owl)")]


def test_classes_that_were_chosen_are_no_remark(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "boxless")
    data = table(tmp_path, "cat", "dog", "owl")
    matched(toy("cat", "dog", "owl"), load_dataset(data, classes=["dog"]), None)
    matched(toy("dog", "owl", "cat"), data, None)
    assert logged(caplog) == []
    # These were not chosen among those of the detector.
    matched(toy("cat", "Dog"), load_dataset(data, classes=["cat", "dog"]), None)
    assert logged(caplog) == [("WARNING", f"set: {SPELT}: 1 (Dog and dog)")]
    with pytest.raises(BoxlessError, match="has no class 'bee'"):
        matched(toy("bee"), data, None)


def test_a_split_of_a_dataset_is_an_error(demo: Path) -> None:
    dataset = load_dataset(demo, "val")
    with pytest.raises(BoxlessError, match="split=train names a part of a path; here a dataset was given"):
        matched(toy(*dataset.classes), dataset, "train")
