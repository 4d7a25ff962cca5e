"""The method `seeded` from tags to weights: pseudo boxes, second opinions of heads that have not seen the image."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from running import SEEDED, assert_same_bits, train_and_kill, weights

import boxless
from boxless import pseudo_labels, training
from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.devices import full_width
from boxless.errors import BoxlessError
from boxless.features import View
from boxless.images import content_keys
from boxless.methods.mining import snap
from boxless.proposals import ProposalStore
from boxless.pseudo_labels.consensus import consensus
from boxless.structures import Annotations, BoolArray, Dataset, FloatArray, Sample

pytestmark = pytest.mark.usefixtures("short_localizer")

FOLDS = ("fold-1-1", "fold-1-2", "fold-2-1", "fold-2-2")
"""The heads of two rounds."""


def train(data: Path | Dataset, out: Path, *options: str, seed: int = 1) -> Detector:
    split = "train" if isinstance(data, Path) else None
    return boxless.train(data, out, method="seeded", split=split, options=[*SEEDED, *options], seed=seed)


@dataclass
class Course:
    """What was seen of a training, by run: which images taught it, of which it was asked for boxes, of which its
    mosaics may have pieces, and these mosaics."""

    taught: dict[str, Dataset] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    closer: dict[str, list[str]] = field(default_factory=dict)
    pieces: dict[str, set[str]] = field(default_factory=dict)
    mosaics: dict[str, set[str]] = field(default_factory=dict)


def spied(patch: pytest.MonkeyPatch) -> Course:
    course, fit, boxes_for_tags, compose = (
        Course(),
        training.train_network,
        pseudo_labels.boxes_for_tags,
        training.mosaics,
    )
    rescaled_pass = pseudo_labels.rescaled_pass

    def noted_fit(accelerator: Any, run: Path, config: Any, network: Any, ready: CachedDataset, *rest: Any) -> None:
        course.taught[run.name] = ready.dataset
        fit(accelerator, run, config, network, ready, *rest)

    def noted_located(detector: Detector, ready: CachedDataset, rows: Sequence[int], text: str) -> list[Annotations]:
        course.asked.setdefault(detector.name, []).extend(ready.dataset.samples[row].id for row in rows)
        return boxes_for_tags(detector, ready, rows, text)

    def noted_closer(
        detector: Detector, ready: CachedDataset, rows: Sequence[int], opinions: Sequence[Annotations]
    ) -> list[pseudo_labels.RescaledBoxes]:
        course.closer[detector.name] = [ready.dataset.samples[row].id for row in rows]
        return rescaled_pass(detector, ready, rows, opinions)

    def noted_mosaics(samples: Sequence[Sample], most: int, seed: int, scale: int, folder: Path) -> tuple[Sample, ...]:
        found = compose(samples, most, seed, scale, folder)
        course.pieces[folder.parent.name] = {sample.id for sample in samples}
        course.mosaics[folder.parent.name] = {sample.id for sample in found}
        return found

    patch.setattr(training, "train_network", noted_fit)
    patch.setattr(training, "mosaics", noted_mosaics)
    patch.setattr(pseudo_labels, "boxes_for_tags", noted_located)
    patch.setattr(pseudo_labels, "rescaled_pass", noted_closer)
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
    assert {file.name for file in run.iterdir() if file.is_dir()} - {"mosaics"} == {"localizer", *FOLDS}
    manifests = {name: json.loads((run / name / "manifest.json").read_text()) for name in ("", "localizer", "fold-1-1")}
    assert all(manifest["finished"] and manifest["supervision"] == "tags" for manifest in manifests.values())
    assert [manifest["method"] for manifest in manifests.values()] == ["seeded", "cam", "seeded"]
    assert [manifest["data"]["images"] for manifest in manifests.values()] == [16, 16, 8]
    assert manifests[""]["seconds"].keys() == {
        *("proposals", "features", "localizer", "pseudo boxes", "second opinions", "mosaics", "training")
    }
    # What the run has prepared serves those within it.
    assert manifests["localizer"]["seconds"].keys() == {"training"}
    assert manifests["fold-1-1"]["seconds"].keys() == {"mosaics", "training"}
    # All of them judge images by the one localizer.
    for name in ("", *FOLDS):
        for key, value in weights(run / "localizer").items():
            if key.startswith("model."):
                assert torch.equal(weights(run / name)[key.replace("model.", "model.localizer.")], value)
    image = boxless.load_dataset(demo, "val").samples[0].path
    assert len(Detector.load(run).predict(image)) > 0


def test_a_head_is_asked_only_about_images_it_was_not_taught_by(whole: tuple[Path, Course], demo: Path) -> None:
    _, course = whole
    everything = ids(boxless.load_dataset(demo, "train"))
    assert set(course.asked) == {"localizer", *FOLDS}
    assert set(course.asked["localizer"]) == everything
    for fold in FOLDS:
        assert len(course.asked[fold]) == len(set(course.asked[fold])) == 8
        others = everything - set(course.asked[fold])
        if fold.startswith("fold-1"):
            assert ids(course.taught[fold]) == others
        else:
            # Of what was agreed on; mosaics are put together from these alone.
            assert course.pieces[fold] == ids(course.taught[fold]) - course.mosaics[fold] < others
    # From closer by only heads of the last round look, at the same images.
    assert course.closer == {fold: course.asked[fold] for fold in FOLDS if fold.startswith("fold-2")}
    for turn in ("fold-1", "fold-2"):
        assert set(course.asked[f"{turn}-1"]) | set(course.asked[f"{turn}-2"]) == everything


def test_all_heads_of_a_run_describe_cells_alike_and_see_the_same(whole: tuple[Path, Course]) -> None:
    run, _ = whole
    shared = ("model.last.", "model.earlier.", "model.localizer.")
    wanted = {name: value for name, value in weights(run).items() if name.startswith(shared)}
    assert len(wanted) >= 6
    for fold in FOLDS:
        own = weights(run / fold)
        # Fitted to a fold's own images they would be others.
        assert all(torch.equal(own[name], value) for name, value in wanted.items()), fold


def test_pseudo_boxes_are_what_localizer_and_held_out_head_agree_on(whole: tuple[Path, Course], demo: Path) -> None:
    run, course = whole
    dataset = boxless.load_dataset(demo, "train").tags_only()
    keys = content_keys([sample.path for sample in dataset.samples], {})
    judges = {name: Detector.load(run / name, "cpu") for name in ("localizer", *FOLDS)}
    proposals = ProposalStore(judges[FOLDS[0]].config.proposals)

    def opinion(name: str, sample: Sample, closer: float = 1) -> Annotations:
        judge, labels = judges[name], sorted(sample.tags)
        judge = judge.with_views([View(round(view.scale * closer)) for view in judge.views])
        image = boxless.images.read_image(sample.path)
        maps = [judge.features.extract(image, view) for view in judge.views]
        boxes = None if judge.proposals is None else proposals.load(keys[sample.path])
        with full_width(judge.device):
            found = judge.boxes_for_labels(maps, boxes, (image.shape[1], image.shape[0]), labels)
        return Annotations(found, np.array(labels, np.int64), np.zeros(len(labels), np.bool_))

    def snapped(sample: Sample, boxes: Annotations) -> Annotations:
        return replace(boxes, boxes=snap(boxes.boxes, proposals.load(keys[sample.path])))

    first = [snapped(sample, opinion("localizer", sample)) for sample in dataset.samples]
    least = judges[FOLDS[0]].config.pseudo_labels.agreement

    def agreed_in(turn: int, samples: Sequence[Sample], *, last: bool = False) -> dict[str, Annotations]:
        one, other = f"fold-{turn}-1", f"fold-{turn}-2"
        judge = {sample.id: one if sample.id in course.asked[one] else other for sample in samples}
        second = [opinion(judge[sample.id], sample) for sample in samples]
        own = [first[dataset.samples.index(sample)] for sample in samples]
        closer: dict[str, tuple[BoolArray, FloatArray]] = {}
        for row, sample in enumerate(samples if last else ()):
            far, near = second[row].boxes, opinion(judge[sample.id], sample, closer=1.5).boxes
            with Image.open(sample.path) as image:
                small = ((far[:, 2:] - far[:, :2]).prod(axis=1) < 0.2 * image.width * image.height)[:, None]
            own[row] = replace(own[row], boxes=np.where(small, far, own[row].boxes))
            second[row] = replace(second[row], boxes=np.where(small, near, far))
            closer[sample.id] = small, near
        assert not last or {True, False} == {flag for small, _ in closer.values() for flag in small.ravel().tolist()}
        found = dict(zip([sample.id for sample in samples], consensus(own, second, least), strict=True))
        for name, (small, near) in closer.items():
            found[name] = replace(found[name], boxes=np.where(small, near, found[name].boxes))
        return {sample.id: snapped(sample, found[sample.id]) for sample in samples}

    wanted = agreed_in(2, dataset.samples, last=True)
    # What is left to teach: images with a box that is agreed on.
    useful = {name for name, boxes in wanted.items() if not boxes.ignore.all()}
    assert ids(course.taught[run.name]) - course.mosaics[run.name] == useful == course.pieces[run.name]
    assert 0 < len(useful) < 16

    def taught_by(name: str, boxes: Mapping[str, Annotations]) -> None:
        for sample in course.taught[name].samples:
            if sample.id in course.mosaics[name]:
                continue
            assert sample.annotations is not None
            np.testing.assert_allclose(sample.annotations.boxes, boxes[sample.id].boxes, atol=1e-2)
            np.testing.assert_array_equal(sample.annotations.labels, boxes[sample.id].labels)
            np.testing.assert_array_equal(sample.annotations.ignore, boxes[sample.id].ignore)

    taught_by(run.name, wanted)
    told = json.loads((run / "manifest.json").read_text())["pseudo_labels"]
    for label, name in enumerate(dataset.classes):
        flags = np.concatenate([boxes.ignore[boxes.labels == label] for boxes in wanted.values()])
        assert told.pop(name) == {"kept": int((~flags).sum()), "all": len(flags)}
    assert told == {}
    # The heads of the first round are taught by the localizer's boxes alone, those of the second by what was agreed on.
    taught_by("fold-1-2", {sample.id: boxes for sample, boxes in zip(dataset.samples, first, strict=True)})
    others = [sample for sample in dataset.samples if sample.id not in course.asked["fold-2-2"]]
    taught_by("fold-2-2", agreed_in(1, others))


def test_mosaics_are_pieces_of_what_was_agreed_on_and_no_box_is_read(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, dataset = spied(monkeypatch), boxless.load_dataset(demo, "train")
    alone = [replace(sample, tags=frozenset(sorted(sample.tags)[:1])) for sample in dataset.samples]
    options = ("training.epochs=1", "pseudo_labels.agreement=0.05")
    train(replace(dataset, samples=tuple(alone)), tmp_path / "run", *options)
    for name in ("run", "fold-2-1", "fold-2-2"):
        assert course.mosaics[name] and ids(course.taught[name]) == course.pieces[name] | course.mosaics[name]
        images = sorted((tmp_path / ("" if name == "run" else "run") / name / "mosaics").iterdir())
        assert {f"mosaic {image.stem}" for image in images} == course.mosaics[name]
        assert not course.pieces[name] & set(course.asked.get(name, []))
    # Nothing was agreed on yet.
    assert not course.mosaics["fold-1-1"] and not course.mosaics["fold-1-2"]
    nonsense = Annotations(np.array([[1, 1, 2, 2]], np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_))
    other = replace(dataset, samples=tuple(replace(sample, annotations=nonsense) for sample in alone))
    train(other, tmp_path / "other", *options)
    for name in ("", "fold-2-1"):
        assert_same_bits(tmp_path / "run" / name, tmp_path / "other" / name)


def test_the_same_seed_gives_the_same_bits(whole: tuple[Path, Course], demo: Path, tmp_path: Path) -> None:
    train(demo, tmp_path / "again")
    for name in ("", "localizer", *FOLDS):
        assert_same_bits(whole[0] / name, tmp_path / "again" / name)
    before, other = weights(whole[0]), train(demo, tmp_path / "other", "training.epochs=1", seed=2)
    assert not torch.equal(before["model.classify.weight"], other.model.state_dict()["classify.weight"])


def test_killed_within_a_fold_and_resumed_gives_the_same_bits(
    whole: tuple[Path, Course], demo: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    train_and_kill(demo, run, "seeded", SEEDED, run / "fold-2-2" / "checkpoint.pt")
    done = [run / name / "weights.safetensors" for name in ("localizer", *FOLDS[:3])]
    stamps = [file.stat().st_mtime_ns for file in done]
    train(demo, run)
    assert [file.stat().st_mtime_ns for file in done] == stamps
    for name in ("", *FOLDS):
        assert_same_bits(whole[0] / name, run / name)
    # Where the time went counts what was done before.
    spent = {name: json.loads((run / name / "manifest.json").read_text())["seconds"] for name in ("", *FOLDS)}
    wanted = sum(sum(spent[name].values()) for name in FOLDS)
    assert spent[""]["second opinions"] == pytest.approx(wanted, abs=0.2) and wanted > 0


def test_killed_with_mosaics_in_place_and_resumed_gives_the_same_bits(demo: Path, tmp_path: Path) -> None:
    dataset, table = boxless.load_dataset(demo, "train"), tmp_path / "tags.csv"
    rows = [f"{sample.path},{dataset.classes[min(sample.tags)]},train" for sample in dataset.samples]
    table.write_text("\n".join(["image,tags,split", *rows]))
    options = ("pseudo_labels.agreement=0.05",)
    train(table, tmp_path / "whole", *options)
    killed = tmp_path / "killed"
    train_and_kill(table, killed, "seeded", (*SEEDED, *options), killed / "checkpoint.pt")
    images = {file.name: file.read_bytes() for file in (killed / "mosaics").iterdir()}
    train(table, killed, *options)
    assert images == {file.name: file.read_bytes() for file in (killed / "mosaics").iterdir()} != {}
    assert_same_bits(tmp_path / "whole", killed)


def test_more_folds_teach_with_more_images(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = spied(monkeypatch)
    train(demo, tmp_path / "run", "pseudo_labels.folds=3", "pseudo_labels.rounds=1", "training.epochs=1")
    assert sorted(len(course.asked[f"fold-1-{number}"]) for number in (1, 2, 3)) == [5, 5, 6]
    for number in (1, 2, 3):
        assert not set(course.asked[f"fold-1-{number}"]) & ids(course.taught[f"fold-1-{number}"])


def test_copies_of_a_image_are_judged_by_a_head_that_saw_none_of_them(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, dataset = spied(monkeypatch), boxless.load_dataset(demo, "train")
    samples = list(dataset.samples)
    for number in range(8):
        path = tmp_path / f"copy {number}.jpg"
        path.write_bytes(samples[number].path.read_bytes())
        samples.append(replace(samples[number], id=f"copy of {samples[number].id}", path=path))
    train(replace(dataset, samples=tuple(samples)), tmp_path / "run", "training.epochs=1")
    for fold in FOLDS:
        judged, taught = set(course.asked[fold]), ids(course.taught[fold])
        assert judged and taught and not judged & taught
        for sample in samples[:8]:
            assert (sample.id in judged) == (f"copy of {sample.id}" in judged)


def test_one_image_is_too_few_for_two_opinions(demo: Path, tmp_path: Path) -> None:
    dataset = boxless.load_dataset(demo, "train")
    with pytest.raises(BoxlessError, match=r"1 image\(s\) are too few for 2 folds; take cam"):
        train(replace(dataset, samples=dataset.samples[:1]), tmp_path / "run")


def test_true_boxes_teach_without_a_second_opinion(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = spied(monkeypatch)
    train(demo, tmp_path / "run", "supervision=boxes", "training.epochs=1")
    assert course.asked == {} and set(course.taught) == {"run", "localizer"}
    assert not course.taught["localizer"].has_boxes
    true = {sample.id: sample.annotations for sample in boxless.load_dataset(demo, "train").samples}
    taught = {sample.id: sample.annotations for sample in course.taught["run"].samples}
    assert course.mosaics["run"] and taught.keys() == true.keys() | course.mosaics["run"]
    assert course.pieces["run"] == true.keys()
    for name, wanted in true.items():
        own = taught[name]
        assert own is not None and wanted is not None
        np.testing.assert_array_equal(own.boxes, wanted.boxes)


def test_small_boxes_are_those_seen_from_closer_by_where_both_looks_agree():
    def opinion(*boxes: list[float]) -> Annotations:
        number = len(boxes)
        return Annotations(np.array(boxes, np.float32).reshape(-1, 4), np.arange(number), np.zeros(number, np.bool_))

    # Class 0 is small and lies elsewhere in the heatmap, class 1 is large. Shifted by one of ten the IoU is 9/11.
    heat = opinion([50, 50, 60, 60], [0, 0, 80, 80])
    head = opinion([0, 0, 10, 10], [0, 0, 80, 88])
    images = [opinion(), *(heat for _ in range(5))]
    near = [opinion([shift, 0, 10 + shift, 10], [7, 7, 9, 9]) for shift in (1, 0, 0, 6)]
    small = np.array([True, False])
    closer = [pseudo_labels.RescaledBoxes(row, small, boxes) for row, boxes in enumerate(near, 1)]
    found = pseudo_labels._merged(images, [opinion(), *(head for _ in range(5))], 0.7, closer)
    assert found[0].boxes.shape == (0, 4)
    for row in range(1, 6):
        assert not found[row].ignore[1]
        np.testing.assert_allclose(found[row].boxes[1], [0, 0, 80, 84])
    # The closer box itself, not the mean, teaches; where it lies elsewhere nothing does, nor where nobody looked.
    np.testing.assert_array_equal(found[1].boxes[0], [1, 0, 11, 10])
    assert [bool(found[row].ignore[0]) for row in range(1, 6)] == [False, False, False, True, True]
    np.testing.assert_array_equal(found[5].boxes[0], [0, 0, 10, 10])


def boxes_of(*difficult: bool) -> Annotations:
    number = len(difficult)
    boxes: FloatArray = np.zeros((number, 4), np.float32)
    return Annotations(boxes, np.zeros(number, np.int64), np.array(difficult, np.bool_))


def test_images_whose_boxes_teach_nothing_are_left_out() -> None:
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
    ready = CachedDataset(dataset, tuple("abcdef"), sizes, None, None, {}, {})  # type: ignore[arg-type]
    kept = pseudo_labels.teaching(ready)
    assert [sample.id for sample in kept.dataset.samples] == ["sure", "one of two", "nothing there"]
    assert kept.keys == ("a", "c", "d") and kept.sizes == ((10, 20), (12, 20), (13, 20))
    assert replace(kept.dataset, samples=samples) == dataset


def test_it_learns_in_half_precision_too(demo: Path, tmp_path: Path, short_localizer: None) -> None:
    detector = train(demo, tmp_path / "run", "training.precision=bf16", "training.lr=0.01")
    for name in ("localizer", *FOLDS, ""):
        losses = [json.loads(row) for row in (tmp_path / "run" / name / "history.jsonl").read_text().splitlines()]
        assert all(np.isfinite(list(row.values())).all() for row in losses)
        if name != "localizer":
            # Who knows nothing holds all classes and the background equally likely.
            assert losses[-1]["classes"] < 0.95 * np.log(len(detector.classes) + 1)
    found = detector.predict(boxless.load_dataset(demo, "val").samples[0].path)
    assert len(found) and found.scores.dtype == np.float32
