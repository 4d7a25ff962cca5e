"""The method `student` from tags to files: trained on the pseudo labels of `seeded`, then without proposals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recording import Record, boxes_by_id, record_training
from running import STUDENT, assert_same_bits, weights
from running import boxless as run_boxless

import boxless
from boxless.proposals.store import ProposalStore

pytestmark = [pytest.mark.usefixtures("short_training"), pytest.mark.slow]

# The settings of a student that the networks which are cross-fitted for it share.
SHARED = [option for option in STUDENT if option.startswith(("views.", "proposals.", "backbone.", "head.pca_dims"))]


@pytest.fixture(scope="module")
def student(demo: Path, short_training: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A run that the command line trained, and the record of it."""
    run = tmp_path_factory.mktemp("runs") / "student"
    words = ["--split", "train", "--method", "student", "--seed", 1, "--out", run, *STUDENT]
    with pytest.MonkeyPatch.context() as patch:
        record = record_training(patch)
        assert run_boxless(patch, "train", demo, *words) == 0
    return run, record


def test_it_is_trained_on_the_pseudo_labels_of_seeded(
    student: tuple[Path, Record], demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, record = student
    seeded = record_training(monkeypatch)
    boxless.train(demo, tmp_path / "seeded", method="seeded", split="train", options=SHARED, seed=1)
    for name in ("cam", "fold-1-1", "fold-1-2", "fold-2-1", "fold-2-2"):
        assert_same_bits(run / name, tmp_path / "seeded" / name)
        assert (run / name / "config.yaml").read_text() == (tmp_path / "seeded" / name / "config.yaml").read_text()
    expected = boxes_by_id(seeded.trained["seeded"].dataset)
    assert boxes_by_id(record.trained["student"].dataset) == expected and len(expected) > 1
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (run, tmp_path / "seeded")]
    assert manifests[0]["pseudo_labels"] == manifests[1]["pseudo_labels"]
    assert manifests[0]["seconds"].keys() == manifests[1]["seconds"].keys() - {"calibration"}
    # Its scores are unlike those of the networks that are cross-fitted.
    assert "calibration" in manifests[1] and "calibration" not in manifests[0]
    # Pseudo labels are snapped to proposals, which the student itself does not read.
    assert record.trained["student"].proposals is None and seeded.trained["seeded"].proposals is not None


def test_every_command_works_on_it_without_proposals(
    student: tuple[Path, Record], demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, _ = student
    monkeypatch.setattr("boxless.predictor.propose", None)
    monkeypatch.setattr("boxless.cached_dataset.ProposalStore", None)
    assert run_boxless(monkeypatch, "evaluate", run, demo, "--split", "val", "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["images"] == 6 and scores["supervision"] == "tags" and 0 <= scores["mAP_area"] <= 1
    words = ["--out", tmp_path / "found", "--threshold", "1e-4"]
    assert run_boxless(monkeypatch, "predict", run, demo / "JPEGImages", *words) == 0
    rows = json.loads((tmp_path / "found" / "predictions.json").read_text())["annotations"]
    assert len(rows) > 22 and all(min(row["bbox"]) >= 0 and min(row["bbox"][2:]) > 0 for row in rows)
    assert run_boxless(monkeypatch, "report", run, demo, "--split", "val", "--out", tmp_path / "report.html") == 0
    assert run_boxless(monkeypatch, "diagnose", run, demo, "--split", "val") == 0


def test_ground_truth_changes_the_head_alone_and_needs_no_proposals(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ProposalStore, "compute", lambda *_: pytest.fail("proposals were computed"))
    dataset, record = boxless.load_dataset(demo, "train"), record_training(monkeypatch)
    options = [*STUDENT, "supervision=boxes", "training.epochs=1"]
    boxless.train(dataset, tmp_path / "original", method="student", options=options, seed=1)
    assert set(record.trained) == {"original", "cam"}
    trained = boxes_by_id(record.trained["original"].dataset)
    assert record.mosaics("original")
    assert {name: trained[name] for name in record.images("original")} == boxes_by_id(dataset)
    assert json.loads((tmp_path / "original" / "manifest.json").read_text())["supervision"] == "boxes"
    samples = []
    for sample in dataset.samples:
        assert sample.annotations is not None
        smaller = replace(sample.annotations, boxes=sample.annotations.boxes * np.float32(0.7))
        samples.append(replace(sample, annotations=smaller))
    smaller_boxes = replace(dataset, samples=tuple(samples))
    boxless.train(smaller_boxes, tmp_path / "smaller", method="student", options=options, seed=1)
    one, other = weights(tmp_path / "original"), weights(tmp_path / "smaller")
    trained_parts = ("reduce", "class_tower", "box_tower", "ltrb", "quality", "classify", "scale")
    for name in one:
        assert torch.equal(one[name], other[name]) != name.startswith(
            tuple(f"model.{part}" for part in trained_parts)
        ), name
