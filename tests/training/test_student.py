"""The method `student` from tags to files: taught by the pseudo boxes of `seeded`, and without proposals afterwards."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import STUDENT, assert_same_bits, train_and_kill, weights
from running import boxless as run_boxless

import boxless
from boxless import training
from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.devices import full_width
from boxless.methods.mining import proposal_heatmap, vote
from boxless.metrics import iou
from boxless.proposals import ProposalStore
from boxless.structures import Dataset

pytestmark = pytest.mark.usefixtures("short_localizer")

# What gives second opinions takes no settings but these from a student.
SHARED = [option for option in STUDENT if option.startswith(("views.", "proposals.", "backbone.", "head.components"))]


def spied(patch: pytest.MonkeyPatch) -> dict[str, CachedDataset]:
    """By run, what its loop learned from."""
    taught: dict[str, CachedDataset] = {}
    fit = training.train_network

    def noted(accelerator: Any, run: Path, config: Any, network: Any, ready: CachedDataset, *rest: Any) -> None:
        taught[run.name] = ready
        fit(accelerator, run, config, network, ready, *rest)

    patch.setattr(training, "train_network", noted)
    return taught


@pytest.fixture(scope="module")
def student(
    demo: Path, short_localizer: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, CachedDataset]]:
    """A run that the command line trained, and what was seen of it."""
    run = tmp_path_factory.mktemp("runs") / "student"
    words = ["--split", "train", "--method", "student", "--seed", 1, "--out", run, *STUDENT]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        taught = spied(patch)
        assert run_boxless(patch, "train", demo, *words) == 0
    return run, taught


def boxes_of(dataset: Dataset) -> dict[str, tuple[list[list[float]], list[int], list[bool]]]:
    known = {sample.id: sample.annotations for sample in dataset.samples}
    return {
        name: (own.boxes.tolist(), own.labels.tolist(), own.ignore.tolist())
        for name, own in known.items()
        if own is not None
    }


def test_it_is_taught_by_the_very_boxes_that_teach_seeded(
    student: tuple[Path, dict[str, CachedDataset]], demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, taught = student
    seeded = spied(monkeypatch)
    boxless.train(demo, tmp_path / "seeded", method="seeded", split="train", options=SHARED, seed=1)
    for name in ("localizer", "fold-1-1", "fold-1-2", "fold-2-1", "fold-2-2"):
        assert_same_bits(run / name, tmp_path / "seeded" / name)
        assert (run / name / "config.yaml").read_text() == (tmp_path / "seeded" / name / "config.yaml").read_text()
    wanted = boxes_of(seeded["seeded"].dataset)
    assert boxes_of(taught["student"].dataset) == wanted and len(wanted) > 1
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (run, tmp_path / "seeded")]
    assert manifests[0]["pseudo_labels"] == manifests[1]["pseudo_labels"]
    assert manifests[0]["seconds"].keys() == manifests[1]["seconds"].keys()
    # Proposals are where pseudo boxes end, and nothing that the student itself reads.
    assert taught["student"].proposals is None and seeded["seeded"].proposals is not None


def test_it_predicts_without_proposals_and_speaks_like_every_other(
    student: tuple[Path, dict[str, CachedDataset]], demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = student
    monkeypatch.setattr("boxless.detector.propose", None)
    monkeypatch.setattr("boxless.cached_dataset.ProposalStore", None)
    assert run_boxless(monkeypatch, "evaluate", run, demo, "--split", "val", "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["images"] == 6 and scores["supervision"] == "tags" and 0 <= scores["mAP_area"] <= 1
    words = ["--out", tmp_path / "found", "--min-score", "1e-4"]
    assert run_boxless(monkeypatch, "predict", run, demo / "JPEGImages", *words) == 0
    rows = json.loads((tmp_path / "found" / "predictions.json").read_text())["annotations"]
    assert len(rows) > 22 and all(min(row["bbox"]) >= 0 and min(row["bbox"][2:]) > 0 for row in rows)
    assert run_boxless(monkeypatch, "report", run, demo, "--split", "val", "--out", tmp_path / "report.html") == 0
    assert run_boxless(monkeypatch, "diagnose", run, demo, "--split", "val") == 0


def test_boxes_and_heatmaps_of_a_loaded_student_are_those_of_its_cells(
    student: tuple[Path, dict[str, CachedDataset]], demo: Path
) -> None:
    detector = Detector.load(student[0], "cpu")
    pixels = boxless.images.read_image(boxless.load_dataset(demo, "val").samples[0].path)
    size = (pixels.shape[1], pixels.shape[0])
    found, heatmaps = detector.look(pixels)
    with full_width(detector.device):
        maps = [detector.features.extract(pixels, view) for view in detector.views]
        (evidence,) = detector._evidence(maps, None, size)
    assert evidence.boxes is not None and evidence.proposal_scores is not None
    labels = range(len(detector.classes))
    first = Detector.load(student[0] / "localizer", "cpu").boxes_for_labels(
        maps, None, detector.views[0].size(*size), labels
    )
    boxes, scores = detector.views[0].restore(evidence.boxes.numpy(), *size), evidence.proposal_scores.numpy()
    np.testing.assert_allclose(heatmaps.maps, proposal_heatmap(boxes, scores, size), atol=1e-6)
    voted = vote(torch.from_numpy(boxes), torch.from_numpy(scores), torch.tensor(labels)).numpy()
    consensus = np.diag(iou(voted, detector.views[0].restore(first, *size))) * (evidence.image_scores.numpy() >= 0.01)
    assert consensus.max() > 0.02
    best = scores.max(axis=0) * (1 + consensus) / 2
    label = best.argmax()
    np.testing.assert_allclose(found.boxes[0], voted[label], atol=1e-3)
    assert found.labels[0] == label and found.scores[0] == pytest.approx(best[label], rel=1e-4)
    assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= np.array(size) + 1e-3).all()
    # Weights that are loaded are those that were saved, to the bit.
    saved = weights(student[0])
    for name, value in detector.model.state_dict().items():
        assert torch.equal(value, saved[f"model.{name}"]), name


def test_killed_and_resumed_gives_the_same_bits(
    student: tuple[Path, dict[str, CachedDataset]], demo: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    train_and_kill(demo, run, "student", STUDENT, run / "checkpoint.pt")
    boxless.train(demo, run, method="student", split="train", options=STUDENT, seed=1)
    assert_same_bits(student[0], run)


def test_true_boxes_teach_it_and_no_proposal_is_made(
    student: tuple[Path, dict[str, CachedDataset]], demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProposalStore, "compute", lambda *_: pytest.fail("proposals were made"))
    dataset, taught = boxless.load_dataset(demo, "train"), spied(monkeypatch)
    options = [*STUDENT, "supervision=boxes", "training.epochs=1"]
    boxless.train(dataset, tmp_path / "true", method="student", options=options, seed=1)
    assert set(taught) == {"true", "localizer"}
    lessons = boxes_of(taught["true"].dataset)
    mosaics = {name for name in lessons if name.startswith("mosaic ")}
    assert mosaics and {name: lessons[name] for name in lessons.keys() - mosaics} == boxes_of(dataset)
    assert json.loads((tmp_path / "true" / "manifest.json").read_text())["supervision"] == "boxes"
    samples = []
    for sample in dataset.samples:
        assert sample.annotations is not None
        smaller = replace(sample.annotations, boxes=sample.annotations.boxes * np.float32(0.7))
        samples.append(replace(sample, annotations=smaller))
    boxless.train(
        replace(dataset, samples=tuple(samples)), tmp_path / "moved", method="student", options=options, seed=1
    )
    one, other = weights(tmp_path / "true"), weights(tmp_path / "moved")
    learned = ("model.reduce.", "model.class_tower.", "model.box_tower.", "model.reach.", "model.judge.")
    for name in one:
        moved = name.startswith((*learned, "model.classify.", "model.scale"))
        assert torch.equal(one[name], other[name]) != moved, name
