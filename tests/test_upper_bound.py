"""Training on ground-truth boxes: opt-in, marked in every output, refused by methods that are defined on tags."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SMALL_BACKBONE, weights

import boxless
from boxless.cli import main
from boxless.errors import BoxlessError
from boxless.evaluation import diagnose
from boxless.methods import PRESETS
from boxless.structures import Annotations, Dataset

pytestmark = [pytest.mark.usefixtures("short_training"), pytest.mark.slow]

BOXES = ["supervision=boxes", "views.scales=[160]", "training.epochs=1", "training.batch_size=4"]
BOXES += ["proposals.generator=grid", "proposals.min_area=0.05", "head.hidden=[32]", "head.pca_dims=[12, 6]"]
BOXES += SMALL_BACKBONE


def with_annotations(dataset: Dataset, change: Callable[[Annotations], Annotations | None]) -> Dataset:
    samples = [(sample, sample.annotations) for sample in dataset.samples]
    return replace(
        dataset, samples=tuple(replace(one, annotations=None if own is None else change(own)) for one, own in samples)
    )


def moved(annotations: Annotations) -> Annotations:
    return replace(annotations, boxes=annotations.boxes * 0.7)


def mostly_ignored(annotations: Annotations) -> Annotations:
    """All but the last object are to be ignored; every image keeps one."""
    return replace(annotations, ignore=np.arange(len(annotations.labels)) < len(annotations.labels) - 1)


@pytest.fixture(scope="module")
def dataset(demo: Path) -> Dataset:
    return boxless.load_dataset(demo, "train")


@pytest.fixture(scope="module")
def upper_bound(dataset: Dataset, short_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "upper_bound"
    boxless.train(dataset, run, method="seeded", options=BOXES, seed=1)
    return run


@pytest.mark.parametrize("change", [moved, mostly_ignored])
def test_other_boxes_give_another_head_and_the_same_cam(
    dataset: Dataset, upper_bound: Path, tmp_path: Path, change: Callable[[Annotations], Annotations]
) -> None:
    boxless.train(with_annotations(dataset, change), tmp_path / "run", method="seeded", options=BOXES, seed=1)
    one, other = (weights(run) for run in (upper_bound, tmp_path / "run"))
    head = [name for name in one if name.startswith(("model.trunk.", "model.classify.", "model.regress."))]
    assert len(head) == 6 and any(name.startswith("model.cam.") for name in one)
    for name in one:
        assert torch.equal(one[name], other[name]) == (name not in head), name


def test_the_run_folder_states_the_supervision(upper_bound: Path) -> None:
    assert json.loads((upper_bound / "manifest.json").read_text())["supervision"] == "boxes"
    assert json.loads((upper_bound / "cam" / "manifest.json").read_text())["supervision"] == "tags"
    assert "supervision: boxes" in (upper_bound / "config.yaml").read_text()
    # No cross-fitting.
    assert {file.name for file in upper_bound.iterdir() if file.is_dir()} == {"cam", "mosaics"}


def test_training_warns_and_every_output_is_marked(
    demo: Path, upper_bound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        str(demo),
        "--split",
        "train",
        "--method",
        "seeded",
        "--seed",
        "1",
        "--out",
        str(upper_bound),
        *BOXES,
    ]
    for arguments in (words, ["evaluate", str(upper_bound), str(demo), "--split", "val"]):
        monkeypatch.setattr(sys, "argv", ["boxless", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    printed = capsys.readouterr()
    warning = "Warning: Training on ground-truth boxes (supervision=boxes): a fully supervised upper bound"
    assert warning in " ".join(printed.err.split())
    assert "(fully supervised upper bound)" in " ".join(printed.out.split())
    assert json.loads((upper_bound / "metrics-VOC-demo-val.json").read_text())["supervision"] == "boxes"
    assert diagnose(boxless.Detector.load(upper_bound), demo, "val")["supervision"] == "boxes"


def test_a_run_is_not_continued_on_other_boxes(dataset: Dataset, upper_bound: Path) -> None:
    with pytest.raises(BoxlessError, match="begun on other images or boxes"):
        boxless.train(with_annotations(dataset, moved), upper_bound, method="seeded", options=BOXES, seed=1)
    tags = [option for option in BOXES if "supervision" not in option]
    with pytest.raises(BoxlessError, match=r"begun with other settings: supervision \(boxes there, tags now\)"):
        boxless.train(dataset, upper_bound, method="seeded", options=tags, seed=1)


@pytest.mark.parametrize("method", sorted(set(PRESETS) - {"seeded", "student"}))
def test_methods_that_are_defined_on_tags_refuse(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("boxless.pipeline.cache_together", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(BoxlessError, match=f"{method} is trained on tags by definition.*--method seeded or student"):
        boxless.train(dataset, tmp_path / "run", method=method, options=["supervision=boxes"])
    assert not (tmp_path / "run").exists()


def test_images_without_boxes_are_refused_and_named(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxless.pipeline.cache_together", lambda *_: pytest.fail("work was begun"))
    one = replace(dataset, samples=(replace(dataset.samples[0], annotations=None), *dataset.samples[1:]))
    with pytest.raises(BoxlessError, match=f"1 of 16 have none, such as .*{dataset.samples[0].path.name}"):
        boxless.train(one, tmp_path / "run", method="seeded", options=BOXES)
    with pytest.raises(BoxlessError, match="16 of 16 have none"):
        boxless.train(dataset.tags_only(), tmp_path / "run", method="seeded", options=BOXES)
