"""Training with true boxes: asked for, marked everywhere, refused where tags are the point."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import boxless
from boxless.cli import main
from boxless.errors import BoxlessError
from boxless.evaluation import diagnose
from boxless.features import Item, Targets, collate
from boxless.methods import PRESETS
from boxless.structures import Annotations, Dataset

pytestmark = pytest.mark.usefixtures("short_localizer")

BOXES = ["supervision=boxes", "views.scales=[160]", "training.epochs=1", "training.batch_size=4"]
BOXES += ["proposals.generator=grid", "proposals.min_area=0.05", "head.hidden=[32]", "head.components=[12, 6]"]


def with_annotations(dataset: Dataset, change: Callable[[Annotations], Annotations | None]) -> Dataset:
    samples = [(sample, sample.annotations) for sample in dataset.samples]
    return replace(
        dataset, samples=tuple(replace(one, annotations=None if own is None else change(own)) for one, own in samples)
    )


def moved(annotations: Annotations) -> Annotations:
    return replace(annotations, boxes=annotations.boxes * 0.7)


def difficult(annotations: Annotations) -> Annotations:
    """All but the last object are difficult; no image is left without one that teaches."""
    return replace(annotations, difficult=np.arange(len(annotations.labels)) < len(annotations.labels) - 1)


@pytest.fixture(scope="module")
def dataset(demo: Path) -> Dataset:
    return boxless.load_dataset(demo, "train")


@pytest.fixture(scope="module")
def upper_bound(dataset: Dataset, short_localizer: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "upper_bound"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        boxless.train(dataset, run, method="seeded", options=BOXES, seed=1)
    return run


@pytest.mark.parametrize("change", [moved, difficult])
def test_other_boxes_give_other_heads_and_the_same_localizer(
    dataset: Dataset, upper_bound: Path, tmp_path: Path, change: Callable[[Annotations], Annotations]
) -> None:
    boxless.train(with_annotations(dataset, change), tmp_path / "run", method="seeded", options=BOXES, seed=1)
    one, other = (load_file(run / "weights.safetensors") for run in (upper_bound, tmp_path / "run"))
    heads = [name for name in one if name.startswith(("model.trunk.", "model.classify.", "model.regress."))]
    assert len(heads) == 6
    for name in heads:
        assert not torch.equal(one[name], other[name]), name
    for part in ("", "localizer"):
        one, other = (load_file(run / part / "weights.safetensors") for run in (upper_bound, tmp_path / "run"))
        for name in one:
            assert (part == "" and name in heads) or torch.equal(one[name], other[name]), name


def test_the_run_says_what_it_learned_from(upper_bound: Path) -> None:
    assert json.loads((upper_bound / "manifest.json").read_text())["supervision"] == "boxes"
    assert json.loads((upper_bound / "localizer" / "manifest.json").read_text())["supervision"] == "tags"
    assert "supervision: boxes" in (upper_bound / "config.yaml").read_text()
    # True boxes need no second opinion.
    assert {file.name for file in upper_bound.iterdir() if file.is_dir()} == {"localizer", "mosaics"}


def test_a_warning_comes_first_and_evaluation_says_it_again(
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
    said = capsys.readouterr()
    assert "Trained with true boxes (supervision=boxes)" in " ".join(said.err.split())
    assert "trained with true boxes" in " ".join(said.out.split())
    assert json.loads((upper_bound / "metrics-VOC-demo-val.json").read_text())["supervision"] == "boxes"
    assert diagnose(boxless.Detector.load(upper_bound), demo, "val")["supervision"] == "boxes"


def test_boxes_belong_to_what_a_run_was_begun_on(dataset: Dataset, upper_bound: Path) -> None:
    with pytest.raises(BoxlessError, match="begun on other images or boxes"):
        boxless.train(with_annotations(dataset, moved), upper_bound, method="seeded", options=BOXES, seed=1)
    tags = [option for option in BOXES if "supervision" not in option]
    with pytest.raises(BoxlessError, match=r"begun with other settings: supervision \(boxes there, tags now\)"):
        boxless.train(dataset, upper_bound, method="seeded", options=tags, seed=1)


@pytest.mark.parametrize("method", sorted(set(PRESETS) - {"seeded", "student"}))
def test_methods_that_learn_from_tags_by_definition_refuse(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("boxless.training.train.prepare", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(BoxlessError, match=f"{method} learns from tags by definition.*--method seeded or student"):
        boxless.train(dataset, tmp_path / "run", method=method, options=["supervision=boxes"])
    assert not (tmp_path / "run").exists()


def test_images_without_boxes_are_refused_and_named(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxless.training.train.prepare", lambda *_: pytest.fail("work was begun"))
    one = replace(dataset, samples=(replace(dataset.samples[0], annotations=None), *dataset.samples[1:]))
    with pytest.raises(BoxlessError, match=f"1 of 16 have none, such as .*{dataset.samples[0].path.name}"):
        boxless.train(one, tmp_path / "run", method="seeded", options=BOXES)
    with pytest.raises(BoxlessError, match="16 of 16 have none"):
        boxless.train(dataset.tags_only(), tmp_path / "run", method="seeded", options=BOXES)


def test_true_boxes_stay_with_their_view_and_move_with_the_batch() -> None:
    one = Targets(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([1]), torch.tensor([False]))
    other = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    items = [Item(torch.ones(1, 2, 2), (32, 32), targets=targets) for targets in (one, other)]
    batch = collate(items).to(torch.device("meta"))
    assert batch.targets is not None
    assert [len(view.boxes) for view in batch.targets] == [1, 0]
    assert all(part.device.type == "meta" for view in batch.targets for part in view)
    assert collate([Item(torch.ones(1, 2, 2), (32, 32))]).targets is None
