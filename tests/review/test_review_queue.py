"""Which images are asked about, and the files that say so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reviewing import CLASSES
from running import boxless
from serving import BOXES, SCORES, encoded, known_detector

from boxless import load_dataset
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.review.queue import (
    ask,
    box_in_box,
    choose,
    contradicted_tags,
    differing_views,
    diverse_order,
    examine,
    proposals,
    read_queue,
)
from boxless.structures import Annotations, Detections, Sample
from boxless.views import View


def detections(*rows: tuple[int, float, list[float]], image_scores: tuple[float, ...] = (0.9, 0.6, 0.2)) -> Detections:
    labels, scores, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        CLASSES,
        (100, 80),
        np.array(image_scores, np.float32),
    )


def sample(name: str, *tags: int, unsure: tuple[int, ...] = ()) -> Sample:
    return Sample(name, Path(name), frozenset(tags), frozenset(unsure))


# The signals.

WHOLE = [0, 0, 40, 30]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        # A third of the area of 1200, all of it inside; a little more is no part.
        ([0, 0, 20, 20], True),
        ([0, 0, 20, 20.1], False),
        # Of 10 x 10 pixels 8 x 10 lie inside, and then fewer.
        ([32, 0, 42, 10], True),
        ([32.1, 0, 42.1, 10], False),
        (WHOLE, False),
    ],
)
def test_a_box_lies_in_another_by_the_shares_of_the_paper(part: list[float], found: bool) -> None:
    expected = {"a box of dog lies in another": 1.0} if found else {}
    assert box_in_box(detections((1, 0.9, WHOLE), (1, 0.5, part)), {1}) == expected
    assert box_in_box(detections((1, 0.5, part), (1, 0.4, WHOLE)), {0, 1}) == expected
    # Of different classes, of one that is not tagged, and with a score of less than a tenth of the best.
    assert box_in_box(detections((1, 0.9, WHOLE), (2, 0.5, part)), {1, 2}) == {}
    assert box_in_box(detections((1, 0.9, WHOLE), (1, 0.5, part)), {0, 2}) == {}
    assert box_in_box(detections((1, 0.9, WHOLE), (1, 0.0899, part)), {1}) == {}
    assert box_in_box(detections((1, 0.9, WHOLE), (1, 0.0901, part)), {1}) == expected
    assert box_in_box(detections(), {1}) == {}


def test_views_differ_by_their_lowest_iou() -> None:
    first = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    # IoU 1 and 1/3 in the second view, 1/2 and 1 in the third.
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10]], np.float32)
    third = np.array([[0, 0, 10, 5], [0, 0, 10, 10]], np.float32)
    assert differing_views([first, second, third], [0, 2], CLASSES) == pytest.approx(
        {"boxes of owl differ between views": 2 / 3}
    )
    assert differing_views([first[:0], second[:0]], [], CLASSES) == {}


@pytest.mark.parametrize(
    ("scores", "tags", "unsure", "expected"),
    [
        ((0.9, 0.2, 0.1), (0,), (), ("dog is likely, yet not tagged", 0.2)),
        ((0.3, 0.2, 0.1), (0,), (), ("cat is unlikely", 0.7)),
        ((0.9, 0.4, 0.1), (0,), (1,), ("dog is unknown", 0.8)),
        ((0.9, 0.95, 0.1), (0,), (1,), ("cat is unlikely", 0.1)),
    ],
)
def test_scores_contradict_tags(
    scores: tuple[float, ...], tags: tuple[int, ...], unsure: tuple[int, ...], expected: tuple[str, float]
) -> None:
    found = contradicted_tags(np.array(scores, np.float32), sample("a", *tags, unsure=unsure), CLASSES)
    assert found == pytest.approx(dict([expected]))


def test_confident_boxes_are_proposed_and_for_every_other_tag_its_best() -> None:
    # Of cat the second scores less than half of the best; of dog the image score is too low; of owl nothing is found.
    found = detections(
        (0, 0.8, [0, 0, 20, 20]),
        (1, 0.5, [10, 10, 30, 30]),
        (0, 0.3, [50, 50, 70, 70]),
        image_scores=(0.9, 0.4, 0.2),
    )
    best = np.array([[10, 10, 31, 31], [-1, 5, 120, 60]], np.float32)
    proposed = proposals(found, [1, 2], best)
    assert proposed.labels.tolist() == [0, 1, 2] and proposed.scores.tolist() == pytest.approx([0.8, 0.5, 0])
    np.testing.assert_array_equal(proposed.boxes, [[0, 0, 20, 20], [10, 10, 31, 31], [0, 5, 100, 60]])
    assert len(proposals(found, [], best[:0])) == 1
    # A box of less than a pixel cannot be looked at.
    assert len(proposals(found, [1], np.array([[3, 3, 3.5, 9]], np.float32))) == 1


def test_no_more_boxes_are_proposed_than_a_person_can_look_at() -> None:
    rows = [(0, 0.9 - 0.01 * row, [row, 0, row + 20, 20]) for row in range(30)]
    proposed = proposals(detections(*rows), [1], np.array([[5, 5, 9, 9]], np.float32))
    assert proposed.labels.tolist() == [0] * 20 + [1]
    np.testing.assert_array_equal(proposed.boxes[:20, 0], np.arange(20))


# The order.


def test_the_next_image_is_the_one_with_the_highest_score_times_distance() -> None:
    # Directions about their mean, which is 0: right twice, up, left, down, left. The first row is taken; the same
    # direction has distance 0, the opposite 1, those between 1/2.
    descriptors = np.array([[1, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [-1, 0]], np.float32)
    scores = np.array([2.0, 1.9, 1.0, 0.6, 0.9, 0.2])
    # After row 0: 0, .5, .6, .45, .2. After row 3: 0, .5, -, .45, 0. After row 2: only row 4 is left, .45, as the
    # others lie on one that was taken; of equal ones the first comes first.
    assert diverse_order(scores, descriptors) == [0, 3, 2, 4, 1, 5]
    assert diverse_order(scores, descriptors, 2) == [0, 3]
    # Without differences the scores decide.
    assert diverse_order(np.array([0.1, 0.3, 0.2]), np.eye(3, dtype=np.float32), 9) == [1, 2, 0]


# The whole.


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images as `known_detector` takes them, of which two show the same."""
    (tmp_path / "data").mkdir()
    for name, noise in (("a", True), ("b", True), ("c", False), ("d", False)):
        (tmp_path / "data" / f"{name}.png").write_bytes(encoded(noise=noise))
    (tmp_path / "data" / "tags.csv").write_text(
        "image,tags\na.png,cat;dog\nb.png,owl\nc.png,cat;dog\nd.png,cat;dog;owl\n"
    )
    return tmp_path / "data" / "tags.csv"


def test_an_image_is_examined_in_all_its_views(data: Path) -> None:
    examined = {one.path.stem: own for one, own in examine(known_detector(), load_dataset(data))}
    # At 0.7 of the scale the map has 5 x 3 cells instead of 6 x 4: the cat's box has two columns of 19.2 pixels and one
    # row of 21.3, in whole pixels 38 x 21 of 48 x 32; the owl's is 19 x 21 around 16 x 16.
    cat = {"boxes of cat differ between views": 1 - 38 * 21 / (48 * 32)}
    owl = {"boxes of owl differ between views": 1 - 16 * 16 / (19 * 21)}
    assert examined["a"].signals == pytest.approx({**cat, "dog is unlikely": 0.4})
    assert examined["b"].signals == pytest.approx({**owl, "cat is likely, yet not tagged": 0.9})
    assert examined["d"].signals == pytest.approx({**cat, "owl is unlikely": 0.8})
    assert examined["c"].proposed.names == ["cat", "dog"] and examined["d"].proposed.names == ["cat", "dog", "owl"]
    np.testing.assert_array_equal(examined["d"].proposed.boxes, [BOXES[name] for name in ("cat", "dog", "owl")])
    np.testing.assert_array_equal(examined["c"].descriptor, examined["d"].descriptor)


def test_a_detector_of_several_views_is_compared_in_these(data: Path) -> None:
    # The model finds a cat at the left of whatever it is given, so that the mirror image has it at the right.
    detector = known_detector().with_views([View(96), View(96, flipped=True)])
    signals = next(own.signals for one, own in examine(detector, load_dataset(data)) if one.path.stem == "a")
    assert signals["boxes of cat differ between views"] == 1


def test_an_image_without_tags_is_examined_too(data: Path) -> None:
    (own,) = (sample for sample in load_dataset(data).samples if sample.path.stem == "a")
    ((_, examined),) = examine(known_detector(), replace(load_dataset(data), samples=(replace(own, tags=frozenset()),)))
    assert examined.signals == pytest.approx({"cat is likely, yet not tagged": 0.9})
    assert examined.proposed.names == ["cat", "dog"]


def test_the_queue_is_in_order_and_the_same_at_every_call(data: Path) -> None:
    dataset = load_dataset(data)
    chosen = choose(known_detector(), dataset)
    # d has the highest score and c shows the same; b is next, and a shows the same.
    assert [(one.sample.path.stem, one.score) for one in chosen[:2]] == [
        ("d", pytest.approx(0.8 + 1 - 38 * 21 / (48 * 32))),
        ("b", pytest.approx(0.9 + 1 - 16 * 16 / (19 * 21))),
    ]
    assert [one.sample.path.stem for one in chosen[2:]] == ["a", "c"]
    assert chosen[0].reasons == ["boxes of cat differ between views", "owl is unlikely"]
    again = choose(known_detector(), dataset, 3)
    assert [one.sample.id for one in again] == [one.sample.id for one in chosen[:3]]


def test_only_tags_are_used(data: Path) -> None:
    """Whatever boxes the data has, the queue is the same."""
    dataset, queues = load_dataset(data), []
    for seed in range(2):
        boxes = np.random.default_rng(seed).uniform(0, 40, (4, 4)).astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        own = [Annotations(box[None], np.array([0]), np.array([False])) for box in boxes]
        pairs = zip(dataset.samples, own, strict=True)
        chosen = choose(known_detector(), replace(dataset, samples=tuple(replace(a, annotations=b) for a, b in pairs)))
        queues.append([(one.sample.id, one.score, one.reasons, one.proposed.boxes.tolist()) for one in chosen])
    assert queues[0] == queues[1] and len(queues[0]) == 4


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the run folder, the detector is `known_detector`."""
    monkeypatch.setattr(Detector, "load", lambda run: known_detector())


def test_ask_writes_the_queue_for_every_tool(
    known: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ask"
    assert boxless(monkeypatch, "ask", "RUN", data, "-n", 2, "--out", out) == 0
    assert "Chose 2 images" in " ".join(capsys.readouterr().err.split())
    first, second = (json.loads(line) for line in (out / "queue.jsonl").read_text().splitlines())
    assert first == {
        "image": "d.png",
        "score": 1.280469,
        "reasons": ["boxes of cat differ between views", "owl is unlikely"],
        "boxes": [{"class": name, "xyxy": BOXES[name], "score": score} for name, score in SCORES.items()],
    }
    assert second["image"] == "b.png" and [one.image for one in read_queue(out / "queue.jsonl")] == ["d.png", "b.png"]
    coco = json.loads((out / "predictions.json").read_text())
    assert [Path(image["file_name"]).name for image in coco["images"]] == ["d.png", "b.png"]
    assert [row["bbox"] for row in coco["annotations"][:3]] == [[0, 0, 48, 32], [0, 32, 96, 32], [80, 0, 16, 16]]
    tasks = json.loads((out / "tasks.json").read_text())
    assert [len(task["predictions"][0]["result"]) for task in tasks] == [3, 3]
    assert (out / "labeling-config.xml").exists()


def test_a_queue_is_replaced_and_other_files_are_not(known: None, data: Path, tmp_path: Path) -> None:
    assert [ask("RUN", data, tmp_path / "ask", number) for number in (1, 2)] == [1, 2]
    (tmp_path / "tasks.json").write_text("mine")
    with pytest.raises(BoxlessError, match=r"tasks\.json: exists, and is no result"):
        ask("RUN", data, tmp_path)
    assert (tmp_path / "tasks.json").read_text() == "mine" and not (tmp_path / "queue.jsonl").exists()


def test_images_that_are_done_are_not_asked_about_again(known: None, data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"image": "b.png", "done": true}\n{"image": "d.png", "tags": {"cat": null}}\n')
    assert ask("RUN", data, tmp_path / "ask", labels=labels) == 3
    assert {one.image for one in read_queue(tmp_path / "ask" / "queue.jsonl")} == {"a.png", "c.png", "d.png"}
    labels.write_text("".join(f'{{"image": "{name}.png", "done": true}}\n' for name in "abcd"))
    with pytest.raises(BoxlessError, match="nothing is left to ask about"):
        ask("RUN", data, tmp_path / "ask", labels=labels)


def test_a_random_sample_has_no_scores_and_is_the_same_at_every_call(known: None, data: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        assert ask("RUN", data, tmp_path / out, 3, random=True) == 3
    sample = read_queue(tmp_path / "one" / "queue.jsonl")
    assert sample == read_queue(tmp_path / "two" / "queue.jsonl")
    assert len({one.image for one in sample}) == 3
    assert all(one.score is None and one.reasons == ["random sample"] for one in sample)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read .*boxless ask writes a queue"),
        (lambda path: path.write_text(""), "names no image"),
        (lambda path: path.write_text('{"image": "a.png"}\n'), "line 1: score: Field required"),
        (lambda path: path.write_text("x"), "line 1: Invalid JSON"),
    ],
)
def test_a_file_that_is_no_queue_is_named(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    write(tmp_path / "queue.jsonl")
    with pytest.raises(BoxlessError, match=f"queue.jsonl.*{message}"):
        read_queue(tmp_path / "queue.jsonl")


@pytest.mark.parametrize("name", ["{folder}/b.png", "B.PNG", "data\\b.png"])
def test_images_that_are_done_may_be_spelled_otherwise(known: None, data: Path, tmp_path: Path, name: str) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"image": name.format(folder=data.parent), "done": True}) + "\n")
    assert ask("RUN", data, tmp_path / "ask", labels=labels) == 3
    assert {one.image for one in read_queue(tmp_path / "ask" / "queue.jsonl")} == {"a.png", "c.png", "d.png"}


def test_a_byte_order_mark_may_begin_a_queue(tmp_path: Path) -> None:
    (tmp_path / "queue.jsonl").write_text(
        '\ufeff{"image": "a.png", "score": 0.5, "reasons": [], "boxes": []}\n', encoding="utf-8"
    )
    assert [one.image for one in read_queue(tmp_path / "queue.jsonl")] == ["a.png"]
