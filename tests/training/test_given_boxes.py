"""Training from tags and some boxes: what a person gave is ground truth, and no other box is read."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recording import Record, boxes_by_id, ids, record_training
from running import SEEDED, SMALL, assert_same_bits, weights
from running import boxless as command_line

import boxless
from boxless.config import resolve
from boxless.datasets.labels import with_labels
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.methods import preset
from boxless.structures import Annotations, Count, Dataset, GivenBoxes, Point, Sample
from boxless.training.fit import _supervision

pytestmark = pytest.mark.usefixtures("short_training")

OPTIONS = (*SEEDED, "training.epochs=2")
BOXED = 6
"""Images that are given all their boxes; of the next one only the first box is given."""


@pytest.fixture(scope="module")
def data(demo: Path) -> Dataset:
    return boxless.load_dataset(demo, "train")


def write_labels(file: Path, data: Dataset, shift: float = 0) -> Path:
    """Labels as a person gives them, from the ground truth; `shift` moves the first box, in pixels."""

    def boxes(sample: Sample) -> list[dict[str, object]]:
        assert sample.annotations is not None
        pairs = zip(sample.annotations.boxes.tolist(), sample.annotations.labels.tolist(), strict=True)
        return [{"class": data.classes[label], "xyxy": box, "state": "right"} for box, label in pairs]

    tagged = [sample for sample in data.samples if sample.tags and not sample.unsure]
    lines = []
    for row, sample in enumerate(tagged[: BOXED + 1]):
        own = boxes(sample)
        if row == 0:
            own[0]["xyxy"] = [own[0]["xyxy"][0] + shift, *own[0]["xyxy"][1:]]  # type: ignore[index]
        complete = sorted({str(box["class"]) for box in own}) if row < BOXED else []
        lines.append({"image": sample.path.name, "boxes": own if row < BOXED else own[:1], "complete": complete})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def train(data: Dataset, out: Path, labels: Path | None, *options: str) -> Detector:
    return boxless.train(data, out, labels=labels, method="seeded", options=[*OPTIONS, *options], seed=1)


@pytest.fixture(scope="module")
def mixed(
    data: Dataset, short_training: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path, Record]]:
    """A finished run on tags and some boxes, the labels, and the record of the run."""
    folder = tmp_path_factory.mktemp("mixed")
    labels = write_labels(folder / "labels.jsonl", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boxless.pseudo_labels.given.SEED_BOXES", 2)
        record = record_training(patch)
        train(data, folder / "run", labels)
        yield folder / "run", labels, record


@pytest.mark.slow
def test_given_boxes_are_ground_truth_in_every_network(mixed: tuple[Path, Path, Record], data: Dataset):
    _, labels, record = mixed
    said = {Path(line["image"]).stem: line for line in map(json.loads, labels.read_text().splitlines())}
    assert set(record.trained) == {"cam", "given", "fold-1-1", "fold-1-2", "fold-2-1", "fold-2-2", "run"}
    boxed = {sample.id for sample in data.samples if sample.path.stem in said}
    whole = {sample.id for sample in data.samples if (said.get(sample.path.stem) or {}).get("complete")}
    assert len(whole) == BOXED and len(boxed) == BOXED + 1
    classes = {name: {box["class"] for box in line["boxes"]} for name, line in said.items()}
    done = {
        sample.id
        for sample in data.samples
        if {data.classes[tag] for tag in sample.tags} <= classes.get(sample.path.stem, set()) and sample.tags
    }
    for network, trained in record.trained.items():
        if network == "cam":
            assert not trained.dataset.has_boxes and all(sample.given is None for sample in trained.dataset.samples)
            continue
        own = boxes_by_id(trained.dataset)
        # Images without a tag are trained on too.
        tagged = {sample.id for sample in trained.dataset.samples if sample.tags and sample.id[:6] != "mosaic"}
        assert tagged == done if network == "given" else done < tagged
        for sample in data.samples:
            if sample.id not in tagged & boxed:
                continue
            given = said[sample.path.stem]["boxes"]
            boxes, names, ignore = own[sample.id]
            np.testing.assert_allclose(boxes[: len(given)], [box["xyxy"] for box in given], rtol=1e-6)
            assert [data.classes[label] for label in names[: len(given)]] == [box["class"] for box in given]
            assert not any(ignore[: len(given)])
            # Of other tags there are pseudo labels, of these none.
            assert not {box["class"] for box in given} & {data.classes[label] for label in names[len(given) :]}
            assert (len(names) == len(given)) == (sample.id in whole or len(sample.tags) == 1)
    # Nothing is left to predict where all tags have a given box.
    predicted = {name for network in record.predicted for name in record.predicted[network]}
    assert whole <= done and predicted == ids(data) - done


@pytest.mark.slow
def test_the_run_says_what_was_used(mixed: tuple[Path, Path, Record], data: Dataset, caplog: pytest.LogCaptureFixture):
    run, labels, _ = mixed
    manifests = {name: json.loads((run / name / "manifest.json").read_text()) for name in ("", "cam", "given")}
    assert manifests[""]["supervision"] == f"tags on {len(data)} images, boxes on {BOXED + 1} of them"
    assert manifests["cam"]["supervision"] == "tags"
    assert manifests[""]["seconds"]["given boxes"] > 0
    scores = boxless.evaluate(Detector.load(run), data)
    assert scores["supervision"] == manifests[""]["supervision"]
    # The same call only loads; other boxes are another training.
    with caplog.at_level(logging.INFO, logger="boxless"):
        train(data, run, labels)
    assert f"{run}: already trained" in caplog.text
    with pytest.raises(BoxlessError, match="begun on other images or tags or given boxes"):
        train(data, run, write_labels(run.parent / "other.jsonl", data, shift=1))


def test_all_that_was_used_is_said():
    def boxes(number: int) -> Annotations:
        return Annotations(np.zeros((number, 4), np.float32), np.zeros(number, np.int64), np.zeros(number, np.bool_))

    plain = Sample("", Path(), frozenset({0}))
    samples = [
        *[plain] * 1000,
        replace(plain, given=GivenBoxes(boxes(2), boxes(1))),
        replace(plain, given=GivenBoxes(boxes(0), boxes(3)), counts={0: Count(2)}),
        replace(plain, points=(Point(0, 1, 2),), counts={0: Count(1)}),
    ]
    config = resolve(preset("seeded"))
    said = _supervision(Dataset("some", ("cat",), tuple(samples)), config)
    assert said == (
        "tags on 1,003 images, boxes on 1 of them, rejected boxes on 2 of them, counts on 2 of them, "
        "points on 1 of them"
    )
    assert _supervision(Dataset("some", ("cat",), tuple(samples[:1000])), config) == "tags"


class Unreadable:
    """Annotations that raise an error when they are read."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"training reads {name} of annotations that were not given")


@pytest.mark.slow
def test_boxes_that_were_not_given_are_not_read(mixed: tuple[Path, Path, Record], data: Dataset, tmp_path: Path):
    run, labels, _ = mixed
    samples = [replace(sample, annotations=Unreadable()) for sample in data.samples]  # type: ignore[arg-type]
    train(replace(data, samples=tuple(samples)), tmp_path / "unreadable", labels)
    assert_same_bits(run, tmp_path / "unreadable")


@pytest.mark.slow
def test_boxes_that_were_given_are_trained_on(mixed: tuple[Path, Path, Record], data: Dataset, tmp_path: Path):
    run, _, _ = mixed
    train(data, tmp_path / "moved", write_labels(tmp_path / "labels.jsonl", data, shift=8))
    one, other = weights(run), weights(tmp_path / "moved")
    assert not torch.equal(one["model.regress.weight"], other["model.regress.weight"])


@pytest.mark.slow
def test_counts_and_points_are_trained_on(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counted, pointed = (
        [one for one in data.samples if len(one.tags) == 1][:4],
        [one for one in data.samples if one.tags][-4:],
    )
    assert not {one.id for one in counted} & {one.id for one in pointed}
    lines = [{"image": one.path.name, "counts": {data.classes[min(one.tags)]: 3}} for one in counted]
    for one in pointed:
        centres = [[(x1 + x2) / 2, (y1 + y2) / 2] for x1, y1, x2, y2 in ground_truth(one).boxes.tolist()]
        names = [data.classes[label] for label in ground_truth(one).labels]
        points = [{"class": name, "xy": xy} for name, xy in zip(names, centres, strict=True)]
        lines.append({"image": one.path.name, "points": points})
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = record_training(monkeypatch)
    detector = train(data, tmp_path / "run", labels, "pseudo_labels.rounds=1")
    assert detector.supervision == f"tags on {len(data)} images, counts on 4 of them, points on 4 of them"
    trained = {sample.id: sample for sample in record.trained["run"].dataset.samples}
    numbers = [len(ground_truth(trained[one.id]).labels) for one in counted if one.id in trained]
    assert max(numbers) == 3 and min(numbers) >= 1
    kept = 0
    for sample in (trained[one.id] for one in pointed if one.id in trained):
        own = ground_truth(sample)
        for box, label, ignore in zip(own.boxes, own.labels, own.ignore, strict=True):
            points = [point for point in sample.points if point.label == label]
            inside = [box[0] <= point.x < box[2] and box[1] <= point.y < box[3] for point in points]
            assert ignore or any(inside)
            kept += not ignore
    assert kept >= 4
    # The CAM is trained on tags alone.
    assert not any(sample.counts or sample.points for sample in record.trained["cam"].dataset.samples)


def ground_truth(sample: Sample) -> Annotations:
    assert sample.annotations is not None
    return sample.annotations


def test_labels_that_say_what_the_tags_say_change_nothing(data: Dataset, tmp_path: Path):
    labels = tmp_path / "labels.jsonl"
    lines = [
        {"image": sample.path.name, "tags": {data.classes[tag]: True for tag in sorted(sample.tags)}}
        for sample in data.samples
        if sample.tags
    ]
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = data.tags_only()
    assert with_labels(plain, labels).samples == plain.samples
    assert _supervision(with_labels(plain, labels), resolve(preset("seeded"))) == "tags"


def test_a_method_without_boxes_takes_the_tags_alone_and_says_so(
    demo: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    labels = write_labels(tmp_path / "labels.jsonl", data)
    boxless.train(data, tmp_path / "plain", method="cam", options=SMALL, seed=1)
    words = ["--method", "cam", "--seed", 1, "--split", "train", "--labels", labels, "--out", tmp_path / "labels"]
    assert command_line(monkeypatch, "train", demo, *words, *SMALL) == 0
    assert f"Given boxes of {BOXED + 1} images are not used: cam is trained on tags alone" in caplog.text
    assert_same_bits(tmp_path / "plain", tmp_path / "labels")
    assert json.loads((tmp_path / "labels" / "manifest.json").read_text())["supervision"] == "tags"


def test_labels_beside_all_boxes_are_refused(data: Dataset, tmp_path: Path):
    with pytest.raises(BoxlessError, match="--labels and supervision=boxes, which trains on all boxes of the data"):
        train(data, tmp_path / "run", write_labels(tmp_path / "labels.jsonl", data), "supervision=boxes")
    assert not (tmp_path / "run").exists()
