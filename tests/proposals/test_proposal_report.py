import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxless.config import ProposalConfig
from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.images import read_image, write_image
from boxless.proposals import propose, store
from boxless.proposals.report import report_proposals
from boxless.structures import Annotations, Dataset, Sample

CONFIG = ProposalConfig(min_side=1, min_area=0)


def annotated(path: Path, *objects: tuple[tuple[int, int, int, int], bool]) -> Sample:
    """An image with objects: box, and whether it is ignored."""
    boxes, ignore = zip(*objects, strict=True) if objects else ((), ())
    return Sample(
        path.stem,
        path,
        frozenset({0}),
        annotations=Annotations(
            np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64), np.array(ignore, np.bool_)
        ),
    )


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A generator that gives every image the same two boxes; an empty cache."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    boxes = np.array([[0, 0, 10, 10], [0, 0, 100, 100]], np.float32)
    monkeypatch.setattr(store, "generate", lambda image, config: boxes[int(image[0, 0, 0] < 128) :])


def grey_image(tmp_path: Path, name: str, grey: int) -> Path:
    write_image(tmp_path / name, np.full((100, 100, 3), grey, np.uint8))
    return tmp_path / name


@pytest.mark.usefixtures("known")
def test_recall_and_overlap_by_hand(tmp_path: Path):
    # A light image has two proposals, a dark one only the whole.
    light, dark = grey_image(tmp_path, "light.jpg", 250), grey_image(tmp_path, "dark.jpg", 3)
    samples = (
        annotated(
            light,
            ((0, 0, 10, 10), False),  # IoU 1
            ((0, 0, 6, 10), False),  # IoU 0.6
            ((0, 0, 80, 100), False),  # IoU 0.8 with the whole image
            ((90, 90, 91, 91), True),  # ignored
        ),
        annotated(dark, ((0, 0, 10, 10), False)),  # IoU 0.01
    )
    report = report_proposals(Dataset("two", ("thing",), samples), CONFIG)
    assert report.pop("seconds") > 0
    assert report == pytest.approx(
        {
            "images": 2,
            "proposals per image": 1.5,
            "recall@0.5": 3 / 4,
            "recall@0.7": 2 / 4,
            "mean best overlap": (1 + 0.6 + 0.8 + 0.01) / 4,
        }
    )


@pytest.mark.usefixtures("known")
def test_without_boxes_only_number_and_time_are_given(tmp_path: Path):
    light = grey_image(tmp_path, "light.jpg", 250)
    for sample in (replace(annotated(light), annotations=None), annotated(light), annotated(light, ((0,) * 4, True))):
        report = report_proposals(Dataset("bare", ("thing",), (sample,)), CONFIG)
        assert report.keys() == {"images", "proposals per image", "seconds"}
        assert report["proposals per image"] == 2


@pytest.mark.usefixtures("known")
def test_broken_images_and_their_copies_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    light = grey_image(tmp_path, "light.jpg", 250)
    broken, copy = tmp_path / "broken.jpg", tmp_path / "copy.jpg"
    broken.write_bytes(light.read_bytes()[:300])
    shutil.copy(broken, copy)
    gone = tmp_path / "gone.jpg"
    box = ((0, 0, 10, 10), False)
    samples = tuple(annotated(path, box) for path in (broken, light, copy, gone))
    report = report_proposals(Dataset("some", ("thing",), samples), CONFIG)
    assert report["images"] == 1
    assert report["recall@0.7"] == 1
    assert "3 images skipped" in caplog.text
    assert "gone.jpg" in caplog.text


def test_a_dataset_of_broken_images_is_an_error(tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(BoxlessError, match="sorry: no image can be read"):
        report_proposals(Dataset("sorry", ("thing",), (annotated(tmp_path / "broken.jpg"),)), CONFIG)


def test_demo_objects_are_found(demo: Path):
    dataset = load_dataset(demo, "val")
    config = ProposalConfig(size=200)
    report = report_proposals(dataset, config)
    assert report["images"] == 6
    counts = [len(propose(read_image(sample.path), config)) for sample in dataset.samples]
    assert report["proposals per image"] == pytest.approx(np.mean(counts))
    assert report["recall@0.5"] >= report["recall@0.7"] > 0
    assert report["recall@0.5"] > 0.5
