"""The method `seeded` from tags to weights: seeds, cross-fitting, consensus, small objects and mosaics."""

import json
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recording import Record, boxes_by_id, ids, record_training
from running import SEEDED, as_stored, assert_same_bits, train_and_kill

import boxless
from boxless.cached_dataset import cache_dataset
from boxless.config import resolve
from boxless.detector import CachedImage, Detector
from boxless.devices import full_width
from boxless.errors import BoxlessError
from boxless.images import content_keys, read_image
from boxless.methods import preset
from boxless.np_box_ops import areas
from boxless.proposals.store import ProposalStore
from boxless.pseudo_labels import SEEDS, cross_fitting, local_cam_errors, recipe
from boxless.pseudo_labels.consensus import consensus
from boxless.pseudo_labels.snapping import snap
from boxless.structures import Annotations, Dataset, FloatArray, IntArray, Sample
from boxless.training import fit, training_views
from boxless.views import View

pytestmark = [pytest.mark.usefixtures("short_training"), pytest.mark.slow]

FOLDS = ("fold-1-1", "fold-1-2", "fold-2-1", "fold-2-2")
"""The cross-fitted networks of two rounds."""


def train(data: Path | Dataset, out: Path, *options: str, seed: int = 1) -> Detector:
    split = "train" if isinstance(data, Path) else None
    return boxless.train(data, out, method="seeded", split=split, options=[*SEEDED, *options], seed=seed)


@pytest.fixture(scope="module")
def whole(demo: Path, short_training: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A finished run, trained on the boxes of all seeds, and the record of it."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        # Whatever local CAMs learn of so few images.
        patch.setattr(local_cam_errors, "MAX_ERROR_RATIO", math.inf)
        record = record_training(patch)
        train(demo, run)
    return run, record


def test_a_run_contains_the_runs_of_its_networks(whole: tuple[Path, Record], demo: Path):
    run, _ = whole
    assert {file.name for file in run.iterdir() if file.is_dir()} - {"mosaics"} == {"cam", *FOLDS}
    manifests = [json.loads((run / name / "manifest.json").read_text()) for name in ("", "cam", "fold-1-1")]
    final, cam, fold = manifests
    assert all(manifest["finished"] and manifest["supervision"] == "tags" for manifest in manifests)
    assert [manifest["method"] for manifest in manifests] == ["seeded", "cam", "seeded"]
    assert [manifest["data"]["images"] for manifest in manifests] == [16, 16, 8]
    assert final["seeds"] == ["cam", "mixed_cam", "local_cam"]
    stages = {"proposals", "features", "cam", "pseudo labels", "cross-fitting", "calibration", "mosaics", "training"}
    assert final["seconds"].keys() == stages
    # Scores of the final network alone are calibrated, to how the cross-fitted ones score unseen images.
    assert list(final["calibration"]) == final["classes"] and not {"calibration"} & (cam.keys() | fold.keys())
    assert all(one["slope"] > 0 for one in final["calibration"].values())
    # The networks read what the run has cached.
    assert cam["seconds"].keys() == {"training"}
    assert fold["seconds"].keys() == {"mosaics", "training"}
    image = boxless.load_dataset(demo, "val").samples[0].path
    assert len(Detector.load(run).predict(image, 0)) > 0


def test_networks_predict_only_images_that_they_were_not_trained_on(whole: tuple[Path, Record], demo: Path):
    _, record = whole
    everything = ids(boxless.load_dataset(demo, "train"))
    assert set(record.predicted) == set(FOLDS)
    for fold in FOLDS:
        held_out = set(record.predicted[fold])
        assert len(held_out) == len(record.predicted[fold]) == 8
        if fold.startswith("fold-1"):
            # The first round is trained on all images, without mosaics.
            assert record.images(fold) == everything - held_out and not record.mosaics(fold)
        else:
            # The second round is trained on the images of a label, and mosaics are composed of these alone.
            assert record.sources[fold] == record.images(fold) <= everything - held_out
    for round_ in ("fold-1", "fold-2"):
        assert set(record.predicted[f"{round_}-1"]) | set(record.predicted[f"{round_}-2"]) == everything


@pytest.fixture(scope="module")
def with_consensus(demo: Path, short_training: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The same where agreement on every fifth box is enough, as there is after so little training."""
    run = tmp_path_factory.mktemp("runs") / "with"
    with pytest.MonkeyPatch.context() as patch:
        record = record_training(patch)
        patch.setattr(boxless.pseudo_labels.consensus, "MIN_AGREEING", 0.2)
        train(demo, run, "pseudo_labels.consensus_iou=0.001")
    return run, record


@pytest.mark.parametrize(("finished", "share"), [("with_consensus", 0.2), ("whole", 0.55)])
def test_labels_of_every_network_are_those_of_the_recipe(
    finished: str, share: float, demo: Path, request: pytest.FixtureRequest
):
    """The labels computed anew from the saved networks, by the steps that the documentation gives."""
    run, record = request.getfixturevalue(finished)
    agrees = finished == "with_consensus"
    dataset = boxless.load_dataset(demo, "train").tags_only()
    keys = content_keys([sample.path for sample in dataset.samples], {})
    detectors = {name: Detector.load(run / name, "cpu") for name in ("cam", *FOLDS)}
    settings = detectors[FOLDS[0]].config
    proposals = ProposalStore(settings.proposals)
    min_iou = settings.pseudo_labels.consensus_iou

    def predicted(name: str, sample: Sample, rescale: float = 1) -> Annotations:
        detector, labels, image = detectors[name], np.array(sorted(sample.tags), np.int64), read_image(sample.path)
        detector = detector.with_views([View(round(view.scale * rescale)) for view in detector.views])
        maps = [detector.features.extract(image, view) for view in detector.views]
        # Those of the rescaled pass are not stored.
        maps = [as_stored(one) for one in maps] if rescale == 1 else maps
        boxes = None if detector.proposals is None else proposals.load(keys[sample.path])
        with full_width(detector.device):
            found = detector.boxes_for_labels(CachedImage(maps, boxes, (image.shape[1], image.shape[0])), labels)
        return Annotations(found, labels, np.zeros(len(labels), np.bool_))

    def snapped(sample: Sample, own: Annotations) -> Annotations:
        return replace(own, boxes=snap(own.boxes, proposals.load(keys[sample.path])))

    def held_out(round_: int, sample: Sample, rescale: float = 1) -> Annotations:
        one, other = f"fold-{round_}-1", f"fold-{round_}-2"
        return predicted(one if sample.id in record.predicted[one] else other, sample, rescale)

    def assert_trained_on(network: str, sets: list[dict[str, Annotations]]) -> None:
        found: dict[str, list[Annotations]] = {}
        for sample in record.trained[network].dataset.samples:
            if sample.id not in record.mosaics(network):
                assert sample.annotations is not None
                found.setdefault(sample.id, []).append(sample.annotations)
        # Mosaics come with leaving out what has no label to train on.
        left_out = bool(record.mosaics(network)) or network in record.sources
        for name in sets[0]:
            expected = [own[name] for own in sets if not (left_out and own[name].ignore.all())]
            for one, other in zip(found.get(name, []), expected, strict=True):
                np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
                np.testing.assert_array_equal(one.labels, other.labels)
                np.testing.assert_array_equal(one.ignore, other.ignore)

    def merged(
        samples: Sequence[Sample], first: list[Annotations], second: list[Annotations]
    ) -> dict[str, Annotations]:
        sizes = [read_image(sample.path).shape[1::-1] for sample in samples]
        return {one.id: own for one, own in zip(samples, consensus(first, second, sizes, min_iou), strict=True)}

    def trained(labels: dict[str, Annotations], *predictions: dict[str, Annotations]) -> list[dict[str, Annotations]]:
        """Consensus if predictions mostly agree, else all of them."""
        if agrees:
            sets = [labels]
        else:
            flags = {name: np.zeros_like(own.ignore) for name, own in labels.items()}
            sets = [{name: replace(own[name], ignore=flags[name]) for name in labels} for own in predictions]
        return [{name: snapped(by_id[name], own) for name, own in one.items()} for one in sets]

    by_id = {sample.id: sample for sample in dataset.samples}
    data = cache_dataset(dataset, detectors["cam"].features, detectors["cam"].views, settings.proposals)
    assert settings.pseudo_labels.seeds == ("cam", "mixed_cam", "local_cam")
    seeds = [
        {
            sample.id: snapped(sample, own)
            for sample, own in zip(dataset.samples, SEEDS[name](data, detectors["cam"]), strict=True)
        }
        for name in settings.pseudo_labels.seeds
    ]
    for sample in dataset.samples:
        np.testing.assert_allclose(
            seeds[0][sample.id].boxes, snapped(sample, predicted("cam", sample)).boxes, atol=1e-3
        )
    assert_trained_on("fold-1-2", [{name: seeds[0][name] for name in record.images("fold-1-2")}])
    first_round = merged(dataset.samples, list(seeds[0].values()), [held_out(1, sample) for sample in dataset.samples])
    kept = {
        label: [not own.ignore[own.labels == label].any() for own in first_round.values() if label in own.labels]
        for label in range(len(dataset.classes))
    }
    assert (np.mean([np.mean(own) for own in kept.values() if own]) >= share) == agrees
    # Consensus within the training folds of the second round.
    rest = [sample for sample in dataset.samples if sample.id not in record.predicted["fold-2-2"]]
    first = {sample.id: held_out(1, sample) for sample in rest}
    second = merged(rest, [seeds[0][sample.id] for sample in rest], list(first.values()))
    assert_trained_on("fold-2-2", trained(second, *seeds))
    # Small boxes of the last round are compared with those of the rescaled pass instead of the seeds.
    firsts, seconds, small = [], {}, {}
    for sample in dataset.samples:
        own, larger = held_out(2, sample), held_out(2, sample, 1.5)
        height, width = read_image(sample.path).shape[:2]
        is_small = areas(own.boxes)[:, None] < 0.2 * width * height
        firsts.append(replace(own, boxes=np.where(is_small, own.boxes, seeds[0][sample.id].boxes)))
        seconds[sample.id] = replace(own, boxes=np.where(is_small, larger.boxes, own.boxes))
        small[sample.id] = is_small, larger.boxes
    assert {True, False} == {flag for is_small, _ in small.values() for flag in is_small.ravel().tolist()}
    final = merged(dataset.samples, firsts, list(seconds.values()))
    for name, (is_small, boxes) in small.items():
        final[name] = replace(final[name], boxes=np.where(is_small, boxes, final[name].boxes))
    assert_trained_on(run.name, trained(final, *seeds, seconds, seconds))
    counts = json.loads((run / "manifest.json").read_text())["pseudo_labels"]
    for label, name in enumerate(dataset.classes):
        flags = np.concatenate([own.ignore[own.labels == label] for own in final.values()])
        own = counts.pop(name)
        assert (own["kept"], own["all"]) == (int((~flags).sum()), len(flags))
        assert (own["agreement"] is None) == (len(flags) == 0)
    assert counts == {}


@pytest.mark.parametrize(("classify", "names"), [(True, ["mixed_cam", "local_cam", "edges"]), (False, ["edges"])])
def test_seeds_of_local_cams_take_part_only_where_these_classify(
    classify: bool, names: list[str], monkeypatch: pytest.MonkeyPatch
):
    calls: list[Path] = []
    monkeypatch.setattr(
        recipe, "local_cams_classify_well", lambda data, cam, seed, file: calls.append(file) or classify
    )

    def run(*seeds: str) -> Any:
        config = resolve(preset("seeded"), seed=5, pseudo_labels={"seeds": seeds})
        detector = SimpleNamespace(config=config)
        return SimpleNamespace(detector=detector, folder=Path("run"), timed=lambda stage: nullcontext())

    assert recipe._further_seeds(run("cam", "mixed_cam", "local_cam", "edges"), Any, Any) == names
    # Other seeds are the user's choice.
    assert recipe._further_seeds(run("local_cam", "edges"), Any, Any) == ["edges"]
    assert calls == [Path("run/held_out_errors.json")]


def single_tags(dataset: Dataset) -> Dataset:
    """The same images with the first of their tags alone."""
    samples = [replace(sample, tags=frozenset(sorted(sample.tags)[:1])) for sample in dataset.samples]
    return replace(dataset, samples=tuple(samples))


def test_a_class_without_a_kept_label_is_trained_on_all_its_boxes(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    classes = boxless.load_dataset(demo, "train").classes

    def agreeing(boxes: FloatArray, others: FloatArray, labels: IntArray) -> FloatArray:
        return np.where(labels == 0, 0.0, 1.0)

    monkeypatch.setattr(boxless.pseudo_labels.consensus, "chance_corrected_ious", agreeing)
    record = record_training(monkeypatch)
    with caplog.at_level(logging.INFO, "boxless"):
        train(demo, tmp_path / "run", "training.epochs=1", "pseudo_labels.mosaics=0")
    message = f"No pseudo label of {classes[0]} was kept: training on its boxes of seed cam and its out-of-fold boxes"
    assert message in caplog.text
    for network in ("fold-2-1", "fold-2-2", "run"):
        samples = record.trained[network].dataset.samples
        used = {label for one in samples for label in one.annotations.labels[~one.annotations.ignore].tolist()}
        # Within a fold a class may have no image.
        assert used == {label for one in samples for label in one.tags}
    assert used == set(range(len(classes)))


def test_mosaics_are_composed_of_consensus_labels_of_the_training_folds(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    record = record_training(monkeypatch)
    dataset = single_tags(boxless.load_dataset(demo, "train"))
    train(dataset, tmp_path / "run", "training.epochs=1")
    for name in ("run", "fold-2-1", "fold-2-2"):
        assert record.mosaics(name) and record.images(name) == record.sources[name]
        images = sorted((tmp_path / ("" if name == "run" else "run") / name / "mosaics").iterdir())
        assert {f"mosaic {image.stem}" for image in images} == record.mosaics(name)
        assert not record.sources[name] & set(record.predicted.get(name, []))


def test_a_run_that_is_killed_within_a_fold_resumes_to_the_same_bits(
    whole: tuple[Path, Record], demo: Path, tmp_path: Path
):
    run = tmp_path / "killed"
    train_and_kill(demo, run, "seeded", SEEDED, run / "fold-2-2" / "checkpoint.pt")
    done = [run / name / "weights.safetensors" for name in ("cam", *FOLDS[:3])]
    stamps = [file.stat().st_mtime_ns for file in done]
    first = run / FOLDS[0] / "manifest.json"
    manifest = json.loads(first.read_text())
    first.write_text(json.dumps(manifest | {"seconds": {"training": 100.0}}))
    history = run / FOLDS[3] / "history.jsonl"
    (row,) = map(json.loads, history.read_text().splitlines())
    history.write_text(json.dumps(row | {"seconds": 200.0}) + "\n")
    train(demo, run)
    assert [file.stat().st_mtime_ns for file in done] == stamps
    for name in ("", "cam", *FOLDS):
        assert_same_bits(whole[0] / name, run / name)
    # Times of what was done before the kill count too.
    assert json.loads((run / "manifest.json").read_text())["seconds"]["cross-fitting"] >= 300


def test_a_run_that_is_killed_after_its_mosaics_resumes_to_the_same_bits(demo: Path, tmp_path: Path):
    dataset, table = boxless.load_dataset(demo, "train"), tmp_path / "tags.csv"
    rows = [f"{sample.path},{dataset.classes[min(sample.tags)]},train" for sample in dataset.samples]
    table.write_text("\n".join(["image,tags,split", *rows]))
    train(table, tmp_path / "whole")
    killed = tmp_path / "killed"
    train_and_kill(table, killed, "seeded", SEEDED, killed / "checkpoint.pt")
    images = {file.name: file.read_bytes() for file in (killed / "mosaics").iterdir()}
    train(table, killed)
    assert images == {file.name: file.read_bytes() for file in (killed / "mosaics").iterdir()} != {}
    assert_same_bits(tmp_path / "whole", killed)


def test_the_number_of_folds_and_rounds_are_settings(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record, now = record_training(monkeypatch), [0.0]

    def takes(seconds: float, module: ModuleType, name: str) -> None:
        """Let a function take so long, by a clock that else stands still."""
        work = getattr(module, name)

        def slow(*given: Any, **named: Any) -> Any:
            now[0] += seconds
            return work(*given, **named)

        monkeypatch.setattr(module, name, slow)

    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    takes(1, cross_fitting, "boxes_for_tags")
    takes(10, recipe, "_fit_pca")
    takes(100, training_views, "compute_fixed_maps")
    train(demo, tmp_path / "run", "pseudo_labels.folds=3", "pseudo_labels.rounds=1", "training.epochs=1")
    seconds = json.loads((tmp_path / "run" / "manifest.json").read_text())["seconds"]
    assert (seconds["pseudo labels"], seconds["cam"]) == (3, 10)
    # Maps to train on belong to each network that reads them.
    assert (seconds["cross-fitting"], seconds["training"]) == (300, 100)
    assert set(record.predicted) == {"fold-1-1", "fold-1-2", "fold-1-3"}
    assert sorted(map(len, record.predicted.values())) == [5, 5, 6]
    for fold, predicted in record.predicted.items():
        assert not set(predicted) & record.images(fold)


def test_copies_of_an_image_are_predicted_by_a_network_that_was_trained_on_none_of_them(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    record, dataset = record_training(monkeypatch), boxless.load_dataset(demo, "train")
    samples = list(dataset.samples)
    for number in range(8):
        path = tmp_path / f"copy {number}.jpg"
        path.write_bytes(samples[number].path.read_bytes())
        samples.append(replace(samples[number], id=f"copy of {samples[number].id}", path=path))
    train(replace(dataset, samples=tuple(samples)), tmp_path / "run", "training.epochs=1")
    for fold in FOLDS:
        predicted, trained = set(record.predicted[fold]), record.images(fold)
        assert predicted and trained and not predicted & trained
        for sample in samples[:8]:
            assert (sample.id in predicted) == (f"copy of {sample.id}" in predicted)


def test_one_image_is_too_few_for_two_folds(demo: Path, tmp_path: Path):
    dataset = boxless.load_dataset(demo, "train")
    with pytest.raises(BoxlessError, match="1 image is too few for 2 folds; take cam"):
        train(replace(dataset, samples=dataset.samples[:1]), tmp_path / "run")


def test_ground_truth_is_trained_on_without_cross_fitting(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record, dataset = record_training(monkeypatch), boxless.load_dataset(demo, "train")
    train(dataset, tmp_path / "run", "supervision=boxes", "training.epochs=1")
    assert record.predicted == {} and set(record.trained) == {"run", "cam"}
    assert not record.trained["cam"].dataset.has_boxes
    assert record.mosaics("run") and record.sources["run"] == ids(dataset)
    trained = boxes_by_id(record.trained["run"].dataset)
    assert {name: trained[name] for name in record.images("run")} == boxes_by_id(dataset)


def test_training_in_half_precision_lowers_the_loss(demo: Path, tmp_path: Path):
    # On ground truth, as networks that are cross-fitted are trained in the same way.
    detector = train(demo, tmp_path / "run", "supervision=boxes", "training.precision=bf16", "training.lr=0.01")
    for name in ("cam", ""):
        losses = [json.loads(row) for row in (tmp_path / "run" / name / "history.jsonl").read_text().splitlines()]
        assert all(np.isfinite(list(row.values())).all() for row in losses)
        if name != "cam":
            # Before training all classes and the background are equally likely.
            assert losses[-1]["classes"] < 0.95 * np.log(len(detector.classes) + 1)
    found = detector.predict(boxless.load_dataset(demo, "val").samples[0].path, 0)
    assert len(found) and found.scores.dtype == np.float32
