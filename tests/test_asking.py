"""The benchmark of what to ask a person: what the simulated one says, and what is printed of it."""

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boxless.datasets.label_lines import ImageLabels
from boxless.datasets.labels import with_labels
from boxless.structures import Annotations, Count, Dataset, Detections, Point, Sample

FOLDER = Path(__file__).parent.parent / "benchmarks"
CLASSES = ("cat", "dog")


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("asking")


def boxes(*rows: tuple[int, list[float]], ignore: tuple[int, ...] = ()) -> Annotations:
    return Annotations(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.array([label for label, _ in rows], np.int64),
        np.array([row in ignore for row in range(len(rows))], np.bool_),
    )


LEFT, RIGHT = [0.0, 0, 10, 10], [20.0, 0, 40, 10]
DATA = Dataset(
    "some",
    CLASSES,
    (
        Sample("a", Path("a.jpg"), frozenset({0}), annotations=boxes((0, LEFT), (0, RIGHT))),
        Sample("b", Path("b.jpg"), frozenset({0, 1}), annotations=boxes((0, LEFT), (1, RIGHT), (1, LEFT), ignore=(2,))),
        Sample("c", Path("c.jpg"), frozenset(), annotations=boxes()),
        Sample("d", Path("d.jpg"), frozenset({1})),
    ),
)


def detections(*rows: tuple[int, list[float], float]) -> Detections:
    found = boxes(*((label, box) for label, box, _ in rows))
    scores = np.array([score for _, _, score in rows], np.float32)
    return Detections(found.boxes, scores, found.labels, CLASSES, (40, 10), np.ones(2, np.float32))


def question(row: int, *rows: tuple[int, list[float], float]) -> Any:
    bare = DATA.tags_only().samples[row]
    return SimpleNamespace(sample=bare, proposed=detections(*rows))


def begin(asking: ModuleType, data: Dataset = DATA, seed: int = 0, queue: Any = None, found: Any = None) -> Any:
    return asking.Start(data, seed, lambda: queue, lambda: found)


def laid_over(answers: Any, folder: Path) -> dict[str, Sample]:
    """The images without ground truth, with their reviewed labels."""
    file = folder / "labels.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in answers.lines))
    for line in answers.lines:
        ImageLabels.model_validate(line)
    return {sample.id: sample for sample in with_labels(DATA.tags_only(), file).samples}


def test_every_object_is_counted_or_clicked(asking: ModuleType, tmp_path: Path):
    counted = asking.counted_objects(begin(asking), 0)
    said = laid_over(counted, tmp_path)
    assert said["a"].counts == {0: Count(2)}
    # Of the dogs one is difficult.
    assert said["b"].counts == {0: Count(1), 1: Count(1, or_more=True)} and said["d"].counts == {}
    assert counted.seconds == pytest.approx(3 * 0.9)
    clicked = asking.clicked_centres(begin(asking), 0)
    said = laid_over(clicked, tmp_path)
    assert said["a"].points == (Point(0, 5, 5), Point(0, 30, 5))
    assert said["b"].points == (Point(0, 5, 5), Point(1, 30, 5))
    assert clicked.seconds == pytest.approx(4 * 1.87)


def test_boxes_are_said_to_be_right_or_wrong(asking: ModuleType, tmp_path: Path):
    near = [21.0, 0, 41, 10]  # an IoU of 19 / 21 with the right one
    proposed = [question(1, (0, LEFT, 0.9), (1, near, 0.8), (0, near, 0.7)), question(3, (1, LEFT, 0.9))]
    answers = asking.judged_boxes(begin(asking, queue=[*proposed, question(0, (0, LEFT, 0.9))]), 2)
    (line,) = answers.lines  # of the other image there is no ground truth
    assert [(box["class"], box["state"]) for box in line["boxes"]] == [
        ("cat", "right"),
        ("dog", "right"),
        ("cat", "wrong"),
    ]
    given = laid_over(answers, tmp_path)["b"].given
    assert given is not None and given.complete == frozenset() and answers.seconds == pytest.approx(3 * 1.6)
    assert given.right.boxes.tolist() == [LEFT, near] and given.wrong.labels.tolist() == [0]


def test_images_are_boxed_at_random_by_uncertainty_or_as_queued(asking: ModuleType, tmp_path: Path):
    def images(answers: Any) -> list[str]:
        assert answers.number == sum(len(line["boxes"]) for line in answers.lines)
        return [line["image"] for line in answers.lines]

    found = [detections((0, LEFT, 0.6)), detections((0, LEFT, 0.9), (1, LEFT, 0.5)), detections(), detections()]
    predicted = SimpleNamespace(dataset=DATA.tags_only(), detections=found)
    # The image without boxes is the least certain one.
    assert images(asking.uncertain_images(begin(asking, found=predicted), 2)) == ["b.jpg"]
    assert images(asking.uncertain_images(begin(asking, found=predicted), 3)) == ["b.jpg", "a.jpg"]
    queued = asking.queued_images(begin(asking, queue=[question(1), question(0), question(2)]), 2)
    assert images(queued) == ["b.jpg", "a.jpg"] and queued.seconds == pytest.approx(4 * 34.5)
    given = laid_over(queued, tmp_path)["b"].given
    # Where one is difficult not all have a box.
    assert given is not None and given.complete == {0} and given.right.labels.tolist() == [0, 1]
    drawn = [tuple(images(asking.random_images(begin(asking, seed=seed), 1))) for seed in range(20)]
    assert set(drawn) == {("a.jpg",), ("b.jpg",), ("c.jpg",), ()}


def test_a_fifth_of_the_tags_is_lost(asking: ModuleType, tmp_path: Path):
    many = DATA.samples[1:2] * 5
    data = Dataset("some", CLASSES, tuple(Sample(str(n), Path(f"{n}.jpg"), one.tags) for n, one in enumerate(many)))
    start = begin(asking, data, seed=7)
    unknown, forgotten = asking.unknown_tags(start, 0), asking.forgotten_tags(start, 0)
    # Two of ten, the same ones.
    assert unknown.number == forgotten.number == 2 and unknown.seconds == 0
    for before, after in zip(unknown.lines, forgotten.lines, strict=True):
        assert before["image"] == after["image"] and before["tags"].keys() == after["tags"].keys()
    assert {answer for line in unknown.lines for answer in line["tags"].values()} == {None}
    assert {answer for line in forgotten.lines for answer in line["tags"].values()} == {False}


def test_rows_charts_and_the_boxes_that_are_saved(
    asking: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scores = {"tags": 0.2, "random": 0.4, "ask": 0.5, "counts": 0.32, "boxes": 0.8}
    trained = []

    def train(data: Dataset, run: Path, *, labels: Path, seed: int, **settings: object) -> str:
        assert labels.exists() and settings == {"method": "seeded", "options": ["a=1"]}
        trained.append(run.name)
        return run.name

    def scored(run: Path, detector: str, report: Dataset) -> dict[str, float]:
        way, amount = run.name.split("-")[2:4]
        return {"mAP_area": scores[way] + (0.2 if amount == "2" and way == "random" else 0), "recall_further": 0.25}

    def boxed(number: int) -> Any:
        return lambda start, amount: asking.Answers([{"image": "a.jpg"}], "box", number * amount)

    monkeypatch.setattr(asking, "load", lambda *arguments: (DATA, DATA))
    monkeypatch.setattr(
        asking, "measured", lambda *arguments: {kind: {"mAP_area": scores[kind]} for kind in ("tags", "boxes")}
    )
    monkeypatch.setattr(
        asking, "boxless", SimpleNamespace(train=train, Detector=SimpleNamespace(load=lambda run: run.name))
    )
    monkeypatch.setattr(asking, "scored", scored)
    monkeypatch.setitem(asking.WAYS, "random", asking.Way(boxed(10), some=True))
    monkeypatch.setitem(asking.WAYS, "ask", asking.Way(boxed(12), some=True))
    chart = tmp_path / "chart.png"
    asking.main(["a=1"], sets="demo", ways="ask,random,counts", amounts="1,2", seeds="0,1", out=tmp_path, chart=chart)
    text = capsys.readouterr().out
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| demo")
    ]
    one = "0.250 (0.250-0.250)"
    assert lines[:6] == [
        ["demo", "tags", "0", "0.200 (0.200-0.200)", "0.25", one],
        ["demo", "ask, 1 images: 12 x box", "414", "0.500 (0.500-0.500)", "0.62", one],
        ["demo", "ask, 2 images: 24 x box", "828", "0.500 (0.500-0.500)", "0.62", one],
        ["demo", "random, 1 images: 10 x box", "345", "0.400 (0.400-0.400)", "0.50", one],
        ["demo", "random, 2 images: 20 x box", "690", "0.600 (0.600-0.600)", "0.75", one],
        ["demo", "counts: 3 x count", "3", "0.320 (0.320-0.320)", "0.40", one],
    ]
    # 0.5 is half way between 10 boxes and 20.
    assert lines[6:] == [["demo", "ask, 1", "12", "0.500", "15"], ["demo", "ask, 2", "24", "0.500", "15"]]
    assert trained[:5] == [
        f"demo-seeded-{way}-all-a=1-0" for way in ("ask-1", "ask-2", "random-1", "random-2", "counts-0")
    ]
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_boxes_at_the_same_score(asking: ModuleType):
    curve = [
        asking.Result([asking.Answers([], "box", 10 * n)], [{"mAP_area": score}])
        for n, score in enumerate((0.2, 0.6, 0.5))
    ]
    found = [asking.boxes_for(score, curve) for score in (0.1, 0.2, 0.3, 0.6, 0.61)]
    assert found == ["0", "0", "2", "10", "more than 20"]
