import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.evaluation import DatasetPredictions
from boxless.images import write_image
from boxless.report import gallery as module
from boxless.report.gallery import BYTES, SIDE, gallery, small_maps, thresholds, thumbnail
from boxless.structures import Annotations, Dataset, Detections, Heatmaps, Sample

CLASSES = ("cat", "dog")
CAT, DOG = 0, 1
HERE, THERE, AWAY = (0, 0, 20, 20), (30, 30, 50, 50), (40, 0, 60, 10)
Found = tuple[int, tuple[int, int, int, int], float]


def detections(image_scores: tuple[float, float], *found: Found) -> Detections:
    return Detections(
        np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in found], np.float32),
        np.array([label for label, _, _ in found], np.int64),
        CLASSES,
        (60, 50),
        np.array(image_scores, np.float32),
    )


def ground_truth(*objects: tuple[int, tuple[int, int, int, int]]) -> Annotations:
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    return Annotations(boxes, np.array([label for label, _ in objects], np.int64), np.zeros(len(objects), np.bool_))


@pytest.fixture
def predictions(tmp_path: Path) -> DatasetPredictions:
    """Four images: a certain hit, a certain miss, an uncertain hit, and one whose objects are unknown."""
    rows = [
        (ground_truth((CAT, HERE)), detections((0.9, 0.1), (CAT, HERE, 0.9), (DOG, AWAY, 0.02))),
        (ground_truth((CAT, THERE), (DOG, HERE)), detections((0.8, 0.6), (CAT, AWAY, 0.95), (DOG, HERE, 0.6))),
        (ground_truth((CAT, HERE)), detections((0.52, 0.2), (CAT, HERE, 0.3))),
        (None, detections((0.99, 0.45), (CAT, HERE, 0.97))),
    ]
    samples = []
    for i, (annotations, _) in enumerate(rows):
        write_image(tmp_path / f"{i}.jpg", np.zeros((50, 60, 3), np.uint8))
        tags = frozenset({CAT}) if annotations is None else frozenset(annotations.labels.tolist())
        samples.append(Sample(str(i), tmp_path / f"{i}.jpg", tags, annotations=annotations))
    dataset = Dataset("four", CLASSES, tuple(samples))
    return DatasetPredictions(dataset, "tags", [found for _, found in rows], np.zeros((4, 2, 2), np.float32), {}, 1.0)


def maps(count: int) -> list[dict[int, np.ndarray]]:
    return [{CAT: np.array([[0, 255], [7, 9], [1, 2]], np.uint8)}] * count


def test_images_come_in_three_orders(predictions: DatasetPredictions, tmp_path: Path) -> None:
    contents = gallery(predictions, maps(4), tmp_path)
    # By the highest score of all classes, or that of the class.
    assert contents["orders"]["confident"] == {"": [3, 0, 1, 2], "0": [3, 0, 1, 2], "1": [1, 3, 2, 0]}
    # Distances to a half, the least: 0.4, 0.1, 0.02, 0.05.
    assert contents["orders"]["uncertain"][""] == [2, 3, 1, 0]
    # Of cats the three best are evaluated, 0.95 (wrong), 0.9 and 0.3; of dogs the best, which is correct.
    assert contents["orders"]["worst"] == {"": [1], "0": [1], "1": []}
    assert contents["total"] == 4


def test_worst_is_by_the_highest_scored_wrong_box(predictions: DatasetPredictions, tmp_path: Path) -> None:
    turned = replace(
        predictions,
        dataset=replace(predictions.dataset, samples=predictions.dataset.samples[::-1]),
        detections=predictions.detections[::-1],
    )
    # The image whose objects are unknown comes first now.
    assert gallery(turned, maps(4), tmp_path)["orders"]["worst"] == {"": [2], "0": [2], "1": []}
    wrong = [detections((0.9, 0), (CAT, AWAY, 0.8)), detections((0.9, 0), (CAT, AWAY, 0.9), (CAT, AWAY, 0.7))]
    both = DatasetPredictions(
        replace(predictions.dataset, samples=predictions.dataset.samples[:2]),
        "tags",
        wrong,
        np.zeros((2, 2, 2), np.float32),
        {},
        1.0,
    )
    samples = [replace(sample, annotations=ground_truth(*[(CAT, THERE)] * 2)) for sample in both.dataset.samples]
    both = replace(both, dataset=replace(both.dataset, samples=tuple(samples)))
    assert gallery(both, maps(2), tmp_path)["orders"]["worst"]["0"] == [1, 0]


def test_an_image_holds_all_that_is_drawn_over_it(predictions: DatasetPredictions, tmp_path: Path) -> None:
    image = gallery(predictions, maps(4), tmp_path)["images"][1]
    assert image["boxes"] == [[*AWAY, 0.95, CAT, "background"], [*HERE, 0.6, DOG, "correct"]]
    assert image["confident"] == [0, 1]
    assert image["ground_truth"] == [[*THERE, CAT, False], [*HERE, DOG, False]]
    assert (image["name"], image["size"], image["tags"]) == ("1.jpg", [60, 50], [CAT, DOG])
    assert (image["scores"], image["grid"]) == ([0.8, 0.6], [2, 3])
    assert list(base64.b64decode(image["maps"]["0"])) == [0, 255, 7, 9, 1, 2]


def test_the_boxes_shown_first_are_those_of_predict(predictions: DatasetPredictions, tmp_path: Path) -> None:
    """By scores before calibration, in whatever order the boxes come."""
    found = replace(
        detections((0.1, 0.9), (DOG, AWAY, 0.6), (CAT, HERE, 0.4), (CAT, AWAY, 0.7), (CAT, THERE, 0.6)),
        raw_scores=np.array([0.9, 0.1, 0.4, 0.2], np.float32),
    )
    one = replace(predictions, detections=[found, *predictions.detections[1:]])
    image = gallery(one, maps(4), tmp_path)["images"][0]
    assert image["confident"] == [0, 2, 3]
    np.testing.assert_array_equal(found[np.array(image["confident"])].boxes, found.confident().boxes)


def test_of_many_images_the_first_of_every_order_are_shown(
    predictions: DatasetPredictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMAGES", 3)
    contents = gallery(predictions, maps(4), tmp_path)
    assert [image["name"] for image in contents["images"]] == ["1.jpg", "2.jpg", "3.jpg"]
    assert contents["orders"]["confident"][""] == [2, 0, 1]
    assert contents["orders"]["worst"] == {"": [0], "0": [0], "1": []}
    assert contents["total"] == 4


def test_thresholds_count_boxes_and_hits(predictions: DatasetPredictions) -> None:
    contents = thresholds(predictions)
    assert contents["stops"] == [0.02, 0.3, 0.6, 0.9, 0.95, 0.97]
    cats, dogs = contents["counts"]
    # Boxes of all images; evaluated boxes and hits of the three whose objects are known.
    assert cats == [[4, 3, 2], [4, 3, 2], [3, 2, 1], [3, 2, 1], [2, 1, 0], [1, 0, 0]]
    assert dogs == [[2, 2, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    # Five boxes are confident: every image's cat, and a dog.
    assert contents["start"] == 1
    assert contents["confident"] == [[4, 3, 2], [1, 1, 1]]


def test_thresholds_of_many_boxes_are_spaced_by_the_number_that_reaches_them() -> None:
    scores = np.linspace(1e-4, 1, 4000, dtype=np.float32)
    found = detections((0.9, 0.9), *((CAT, HERE, float(score)) for score in scores))
    empty = Dataset("many", CLASSES, (Sample("a", Path("a.jpg"), frozenset({CAT})),))
    contents = thresholds(DatasetPredictions(empty, "tags", [found], np.zeros((1, 2, 2), np.float32), {}, 1.0))
    left = [row[0] for row in contents["counts"][CAT]]
    assert 50 < len(left) <= module.STOPS
    assert (left[0], left[-1]) == (4000, 1)
    # Equal factors: half of the stops leave fewer than about the root.
    assert left[len(left) // 2] < 400
    # Confident are those with half the best score or more.
    assert left[contents["start"]] == pytest.approx(2000, rel=0.1)


def test_without_detections_there_is_one_threshold() -> None:
    dataset = Dataset("none", CLASSES, (Sample("a", Path("a.jpg"), frozenset()),))
    nothing = DatasetPredictions(dataset, "tags", [detections((0.1, 0.1))], np.zeros((1, 2, 2), np.float32), {}, 1.0)
    assert thresholds(nothing) == {
        "stops": [0.0],
        "start": 0,
        "counts": [[[0, 0, 0]]] * 2,
        "confident": [[0, 0, 0]] * 2,
    }


def test_a_thumbnail_is_a_small_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3)).astype(np.uint8)
    for pixels, size in ((noise, (SIDE, 288)), (np.zeros((40, 30, 3), np.uint8), (30, 40))):
        kind, content = thumbnail(pixels).split(",")
        assert kind == "data:image/jpeg;base64"
        file = base64.b64decode(content)
        assert len(file) < 1.25 * BYTES
        assert Image.open(io.BytesIO(file)).size == size


def test_heatmaps_of_tags_boxes_and_the_most_likely_classes_are_kept() -> None:
    names = tuple("abcdefgh")
    values = np.zeros((8, 60, 80), np.float32)
    values[2, :30, :40], values[2, 30:, :], values[5] = 4, -3, -1
    found = Detections(
        np.array([HERE], np.float32),
        np.array([0.5], np.float32),
        np.array([4], np.int64),
        names,
        (80, 60),
        np.array([0, 0, 0, 0.1, 0.6, 0, 0.7, 0.8], np.float32),
    )
    kept = small_maps(Sample("a", Path("a.jpg"), frozenset({2, 5})), found, Heatmaps(values, names, (80, 60)))
    assert list(kept) == [2, 5, 4, 7, 6]
    assert {grid.shape for grid in kept.values()} == {(24, 32)}
    np.testing.assert_array_equal(kept[2], np.kron([[255, 0], [0, 0]], np.ones((12, 16))))
    assert not kept[5].any()
    every = Sample("b", Path("b.jpg"), frozenset(range(8)))
    assert len(small_maps(every, found, Heatmaps(values, names, (80, 60)))) == module.MAPS
