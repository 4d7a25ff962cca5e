"""The method `seeded` from tags to weights: pseudo boxes, second opinions of heads that have not seen the picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import SEEDED, assert_same_bits, train_and_kill, weights

import boxless
from boxless import pseudo_boxes, training
from boxless.errors import BoxlessError
from boxless.inference import Detector
from boxless.methods.agreement import agreed
from boxless.methods.mining import snap
from boxless.pictures import content_keys
from boxless.prepare import Prepared
from boxless.proposals import ProposalStore
from boxless.structures import Annotations, Dataset, FloatArray, Sample

pytestmark = pytest.mark.usefixtures("short_localizer")


def train(data: Path | Dataset, out: Path, *options: str, seed: int = 1) -> Detector:
    split = "train" if isinstance(data, Path) else None
    return boxless.train(data, out, method="seeded", split=split, options=[*SEEDED, *options], seed=seed)


@dataclass
class Course:
    """What was seen of a training: by run, which pictures taught it, and of which it was asked for boxes."""

    taught: dict[str, Dataset] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)


def spied(patch: pytest.MonkeyPatch) -> Course:
    course, fit, located = Course(), training._fit, pseudo_boxes._located

    def noted_fit(accelerator: Any, run: Path, config: Any, network: Any, ready: Prepared, *rest: Any) -> None:
        course.taught[run.name] = ready.dataset
        fit(accelerator, run, config, network, ready, *rest)

    def noted_located(detector: Detector, ready: Prepared, rows: Sequence[int], text: str) -> list[Annotations]:
        course.asked.setdefault(detector.name, []).extend(ready.dataset.samples[row].id for row in rows)
        return located(detector, ready, rows, text)

    patch.setattr(training, "_fit", noted_fit)
    patch.setattr(pseudo_boxes, "_located", noted_located)
    return course


@pytest.fixture(scope="module")
def whole(demo: Path, short_localizer: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Course]:
    """A finished run and what was seen of it."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        course = spied(patch)
        train(demo, run)
    return run, course


def ids(dataset: Dataset) -> set[str]:
    return {sample.id for sample in dataset.samples}


def test_a_run_holds_the_runs_it_is_made_of(whole: tuple[Path, Course], demo: Path) -> None:
    run, _ = whole
    assert {file.name for file in run.iterdir() if file.is_dir()} == {"localizer", "fold-1", "fold-2"}
    manifests = {name: json.loads((run / name / "manifest.json").read_text()) for name in ("", "localizer", "fold-1")}
    assert all(manifest["finished"] and manifest["supervision"] == "tags" for manifest in manifests.values())
    assert [manifest["method"] for manifest in manifests.values()] == ["seeded", "cam", "seeded"]
    assert [manifest["data"]["pictures"] for manifest in manifests.values()] == [16, 16, 8]
    assert manifests[""]["seconds"].keys() == {
        *("proposals", "features", "localizer", "pseudo boxes", "second opinions", "training")
    }
    # What the run has prepared serves those within it.
    assert manifests["localizer"]["seconds"].keys() == manifests["fold-1"]["seconds"].keys() == {"training"}
    # All of them judge pictures by the one localizer.
    for name in ("", "fold-1", "fold-2"):
        for key, value in weights(run / "localizer").items():
            if key.startswith("model.head."):
                assert torch.equal(weights(run / name)[key.replace("model.", "model.localizer.")], value)
    picture = boxless.load_dataset(demo, "val").samples[0].path
    assert len(Detector.load(run).predict(picture)) > 0


def test_a_head_is_asked_only_about_pictures_it_was_not_taught_by(whole: tuple[Path, Course], demo: Path) -> None:
    _, course = whole
    everything = ids(boxless.load_dataset(demo, "train"))
    assert set(course.asked) == {"localizer", "fold-1", "fold-2"}
    assert set(course.asked["localizer"]) == everything
    for fold in ("fold-1", "fold-2"):
        assert len(course.asked[fold]) == len(set(course.asked[fold])) == 8
        assert ids(course.taught[fold]) == everything - set(course.asked[fold])
    assert set(course.asked["fold-1"]) | set(course.asked["fold-2"]) == everything


def test_pseudo_boxes_are_what_localizer_and_held_out_head_agree_on(whole: tuple[Path, Course], demo: Path) -> None:
    run, course = whole
    dataset = boxless.load_dataset(demo, "train").tags_only()
    keys = content_keys([sample.path for sample in dataset.samples], {})
    judges = {name: Detector.load(run / name, "cpu") for name in ("localizer", "fold-1", "fold-2")}
    proposals = ProposalStore(judges["fold-1"].config.proposals)

    def opinion(name: str, sample: Sample) -> Annotations:
        judge, labels = judges[name], sorted(sample.tags)
        picture = boxless.pictures.read_picture(sample.path)
        maps = [judge.features.extract(picture, view) for view in judge.views]
        boxes = None if judge.proposals is None else proposals.load(keys[sample.path])
        found = judge.locate(maps, boxes, (picture.shape[1], picture.shape[0]), labels)
        return Annotations(found, np.array(labels, np.int64), np.zeros(len(labels), np.bool_))

    def snapped(sample: Sample, boxes: Annotations) -> Annotations:
        return replace(boxes, boxes=snap(boxes.boxes, proposals.load(keys[sample.path])))

    first = [snapped(sample, opinion("localizer", sample)) for sample in dataset.samples]
    held_out = ["fold-1" if sample.id in course.asked["fold-1"] else "fold-2" for sample in dataset.samples]
    second = [opinion(name, sample) for name, sample in zip(held_out, dataset.samples, strict=True)]
    least = judges["fold-1"].config.pseudo_boxes.agreement
    pairs = zip(dataset.samples, agreed(first, second, least), strict=True)
    wanted = {sample.id: snapped(sample, boxes) for sample, boxes in pairs}
    # What is left to teach: pictures with a box that is agreed on.
    useful = {name for name, boxes in wanted.items() if not boxes.difficult.all()}
    assert ids(course.taught[run.name]) == useful
    assert 0 < len(useful) < 16
    for sample in course.taught[run.name].samples:
        assert sample.annotations is not None
        np.testing.assert_allclose(sample.annotations.boxes, wanted[sample.id].boxes, atol=1e-2)
        np.testing.assert_array_equal(sample.annotations.labels, wanted[sample.id].labels)
        np.testing.assert_array_equal(sample.annotations.difficult, wanted[sample.id].difficult)
    told = json.loads((run / "manifest.json").read_text())["pseudo_boxes"]
    for label, name in enumerate(dataset.classes):
        flags = np.concatenate([boxes.difficult[boxes.labels == label] for boxes in wanted.values()])
        assert told.pop(name) == {"kept": int((~flags).sum()), "all": len(flags)}
    assert told == {}
    # The other heads are taught by the localizer's boxes alone.
    alone = {sample.id: boxes for sample, boxes in zip(dataset.samples, first, strict=True)}
    for sample in course.taught["fold-2"].samples:
        assert sample.annotations is not None and not sample.annotations.difficult.any()
        np.testing.assert_allclose(sample.annotations.boxes, alone[sample.id].boxes, atol=1e-2)


def test_the_same_seed_gives_the_same_bits(whole: tuple[Path, Course], demo: Path, tmp_path: Path) -> None:
    train(demo, tmp_path / "again")
    for name in ("", "localizer", "fold-1", "fold-2"):
        assert_same_bits(whole[0] / name, tmp_path / "again" / name)
    before, other = weights(whole[0]), train(demo, tmp_path / "other", "training.epochs=1", seed=2)
    assert not torch.equal(before["model.classify.weight"], other.model.state_dict()["classify.weight"])


def test_killed_within_a_fold_and_resumed_gives_the_same_bits(
    whole: tuple[Path, Course], demo: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    train_and_kill(demo, run, "seeded", SEEDED, run / "fold-2" / "checkpoint.pt")
    done = [run / name / "weights.safetensors" for name in ("localizer", "fold-1")]
    stamps = [file.stat().st_mtime_ns for file in done]
    train(demo, run)
    assert [file.stat().st_mtime_ns for file in done] == stamps
    for name in ("", "fold-1", "fold-2"):
        assert_same_bits(whole[0] / name, run / name)
    # Where the time went counts what was done before.
    spent = {
        name: json.loads((run / name / "manifest.json").read_text())["seconds"] for name in ("", "fold-1", "fold-2")
    }
    wanted = spent["fold-1"]["training"] + spent["fold-2"]["training"]
    assert spent[""]["second opinions"] == pytest.approx(wanted, abs=0.1) and wanted > 0


def test_more_folds_teach_with_more_pictures(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = spied(monkeypatch)
    train(demo, tmp_path / "run", "pseudo_boxes.folds=3", "training.epochs=1")
    assert sorted(len(course.asked[f"fold-{number}"]) for number in (1, 2, 3)) == [5, 5, 6]
    for number in (1, 2, 3):
        assert not set(course.asked[f"fold-{number}"]) & ids(course.taught[f"fold-{number}"])


def test_copies_of_a_picture_are_judged_by_a_head_that_saw_none_of_them(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, dataset = spied(monkeypatch), boxless.load_dataset(demo, "train")
    samples = list(dataset.samples)
    for number in range(8):
        path = tmp_path / f"copy {number}.jpg"
        path.write_bytes(samples[number].path.read_bytes())
        samples.append(replace(samples[number], id=f"copy of {samples[number].id}", path=path))
    train(replace(dataset, samples=tuple(samples)), tmp_path / "run", "training.epochs=1")
    for fold in ("fold-1", "fold-2"):
        judged, taught = set(course.asked[fold]), ids(course.taught[fold])
        assert judged and taught and not judged & taught
        for sample in samples[:8]:
            assert (sample.id in judged) == (f"copy of {sample.id}" in judged)


def test_one_picture_is_too_few_for_two_opinions(demo: Path, tmp_path: Path) -> None:
    dataset = boxless.load_dataset(demo, "train")
    with pytest.raises(BoxlessError, match=r"1 picture\(s\) are too few for 2 folds; take cam"):
        train(replace(dataset, samples=dataset.samples[:1]), tmp_path / "run")


def test_true_boxes_teach_without_a_second_opinion(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = spied(monkeypatch)
    train(demo, tmp_path / "run", "supervision=boxes", "training.epochs=1")
    assert course.asked == {} and set(course.taught) == {"run", "localizer"}
    assert not course.taught["localizer"].has_boxes
    true = {sample.id: sample.annotations for sample in boxless.load_dataset(demo, "train").samples}
    assert {sample.id: sample.annotations for sample in course.taught["run"].samples}.keys() == true.keys()
    for sample in course.taught["run"].samples:
        own, wanted = sample.annotations, true[sample.id]
        assert own is not None and wanted is not None
        np.testing.assert_array_equal(own.boxes, wanted.boxes)


def boxes_of(*difficult: bool) -> Annotations:
    number = len(difficult)
    boxes: FloatArray = np.zeros((number, 4), np.float32)
    return Annotations(boxes, np.zeros(number, np.int64), np.array(difficult, np.bool_))


def test_pictures_whose_boxes_teach_nothing_are_left_out() -> None:
    def make(name: str, **known: Any) -> Sample:
        return Sample(name, Path(name), **({"tags": frozenset()} | known))

    samples = (
        make("sure", tags=frozenset({0}), annotations=boxes_of(False)),
        make("difficult only", tags=frozenset({0}), annotations=boxes_of(True, True)),
        make("one of two", tags=frozenset({0}), annotations=boxes_of(True, False)),
        make("nothing there", annotations=boxes_of()),
        make("nobody knows", unsure=frozenset({0}), annotations=boxes_of()),
        make("never looked", annotations=None),
    )
    dataset = Dataset("some", ("a", "b"), samples)
    sizes = tuple((10 + row, 20) for row in range(6))
    ready = Prepared(dataset, tuple("abcdef"), sizes, None, None, {}, {})  # type: ignore[arg-type]
    kept = pseudo_boxes.teaching(ready)
    assert [sample.id for sample in kept.dataset.samples] == ["sure", "one of two", "nothing there"]
    assert kept.keys == ("a", "c", "d") and kept.sizes == ((10, 20), (12, 20), (13, 20))
    assert replace(kept.dataset, samples=samples) == dataset
