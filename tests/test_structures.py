import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.errors import BoxlessError, ImageError
from boxless.images import write_image
from boxless.structures import Annotations, Count, Detection, Detections, Sample
from boxless.visualize import draw_boxes

CLASSES = ("cat", "dog", "owl")


def detections(scores: list[float], labels: list[int], image_scores: tuple[float, ...] = (0.9, 0.8, 0.1)) -> Detections:
    return Detections(
        np.arange(4 * len(scores), dtype=np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        CLASSES,
        (96, 64),
        np.array(image_scores, np.float32),
    )


THREE = detections([0.75, 0.5, 0.25], [0, 1, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((3, 5))}, "Detections: boxes has shape (3, 5), not (N, 4)"),
        ({"boxes": np.zeros(4)}, "Detections: boxes has shape (4,), not (N, 4)"),
        ({"scores": np.zeros(2)}, "Detections: scores has shape (2,); boxes of shape (3, 4) need (3,)"),
        ({"labels": np.zeros((3, 1))}, "Detections: labels has shape (3, 1); boxes of shape (3, 4) need (3,)"),
        ({"labels": [0, 1, 0]}, "Detections: labels is of type list, not a NumPy array"),
        ({"image_scores": np.zeros(2)}, "Detections: image_scores has shape (2,); 3 classes need (3,)"),
    ],
)
def test_detections_that_do_not_fit_together_are_refused(change: dict[str, object], message: str):
    with pytest.raises(BoxlessError, match=f"^{re.escape(message)}$"):
        replace(THREE, **change)


def test_annotations_that_do_not_fit_together_are_refused():
    fine = np.zeros((2, 4), np.float32), np.zeros(2, np.int64), np.zeros(2, np.bool_)
    Annotations(*fine)
    with pytest.raises(BoxlessError, match=re.escape("Annotations: ignore has shape (1,); boxes of shape (2, 4) need")):
        Annotations(*fine[:2], np.zeros(1, np.bool_))
    with pytest.raises(BoxlessError, match=re.escape("Annotations: labels has shape (0,)")):
        Annotations(fine[0], np.zeros(0, np.int64), fine[2])
    with pytest.raises(BoxlessError, match=re.escape("Annotations: boxes has shape (0,), not (N, 4)")):
        Annotations(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        (np.array([1, 1]), [1, 1]),
        (np.array([True, False, True]), [0, 2]),
        (THREE.labels == 1, [1]),
        (slice(0), []),
        ([], []),
    ],
)
def test_every_index_gives_detections(index: object, rows: list[int]):
    chosen = THREE[index]  # type: ignore[index]
    np.testing.assert_array_equal(chosen.boxes, THREE.boxes[rows].reshape(-1, 4))
    assert (chosen.scores.tolist(), chosen.labels.tolist()) == (
        [THREE.scores[row] for row in rows],
        [THREE.labels[row] for row in rows],
    )
    assert (chosen.boxes.dtype, chosen.scores.dtype, chosen.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (chosen.classes, chosen.size) == (CLASSES, (96, 64)) and chosen.image_scores is THREE.image_scores


@pytest.mark.parametrize("index", [3, -4, np.array([True, False])])
def test_an_index_out_of_range_is_an_error(index: object):
    with pytest.raises(IndexError):
        THREE[index]  # type: ignore[index]


def test_iteration_gives_plain_values():
    assert list(THREE) == [
        Detection((0, 1, 2, 3), 0.75, 0, "cat"),
        Detection((4, 5, 6, 7), 0.5, 1, "dog"),
        Detection((8, 9, 10, 11), 0.25, 0, "cat"),
    ]
    (x1, _, _, y2), score, label, name = next(iter(THREE))
    assert [type(value) for value in (x1, y2, score, label, name)] == [float, float, float, int, str]
    assert len(THREE) == 3 and list(THREE[:0]) == [] and not THREE[:0]


def test_repr_counts_the_classes():
    assert repr(THREE) == "Detections(3: 2 cat, 1 dog; 96x64)"
    assert repr(THREE[:0]) == "Detections(0; 96x64)"


def test_above_is_from_a_score_on():
    assert THREE.above(0.5).scores.tolist() == [0.75, 0.5]
    assert len(THREE.above(0)) == 3 and len(THREE.above(0.76)) == 0
    with pytest.raises(BoxlessError, match="threshold nan: give a score"):
        THREE.above(float("nan"))


def test_boxes_are_chosen_by_any_sequence_of_rows():
    for rows in ((0, 2), [0, 2], range(0, 3, 2), np.array([True, False, True])):
        assert THREE[rows].scores.tolist() == [0.75, 0.25]


def test_confident_boxes_score_half_as_much_as_the_best_of_a_likely_class():
    everything = detections([0.4, 0.3, 0.2, 0.19, 0.1, 0.05, 0.04], [0, 2, 0, 0, 1, 1, 1], (0.9, 0.5, 0.49))
    shown = everything.confident()
    # Class 0 from 0.2 on, class 1 from 0.05 on; class 2 is less likely than not.
    assert shown.scores.tolist() == np.array([0.4, 0.2, 0.1, 0.05], np.float32).tolist()
    assert shown.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(shown.boxes, everything.boxes[[0, 2, 4, 5]])
    assert shown.image_scores is everything.image_scores


def test_an_image_without_a_likely_class_has_no_confident_box():
    assert len(detections([0.9, 0.8], [0, 1], (0.1, 0.2, 0.3)).confident()) == 0
    assert len(detections([], [], (0.9, 0.9, 0.9)).confident()) == 0


def test_plot_draws_over_a_file_an_array_and_a_pillow_image(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    before = image.copy()
    write_image(tmp_path / "a.png", image)
    wanted = draw_boxes(image, THREE)
    assert (wanted != image).any()
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), image, Image.fromarray(image)):
        plotted = THREE.plot(given)
        assert plotted.dtype == np.uint8
        np.testing.assert_array_equal(plotted, wanted)
    np.testing.assert_array_equal(image, before)


def test_plot_refuses_an_image_that_does_not_fit(tmp_path: Path):
    with pytest.raises(BoxlessError, match=r"the image is 64x96, but the boxes are of one of 96x64"):
        THREE.plot(np.zeros((96, 64, 3), np.uint8))
    with pytest.raises(ImageError, match=r"must be \(h, w, 3\) uint8 RGB.*not \(64, 96\) float64"):
        THREE.plot(np.zeros((64, 96)))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"no\.jpg"):
        THREE.plot(tmp_path / "no.jpg")


def test_supervision_draws_and_filters_the_same_boxes():
    sv = pytest.importorskip("supervision")
    boxes = np.array([[10, 20, 40, 60], [50, 5, 90, 30]], np.float32)
    ours = replace(THREE[:2], boxes=boxes)
    theirs = ours.to_supervision()
    assert isinstance(theirs, sv.Detections) and len(theirs) == 2
    np.testing.assert_array_equal(theirs.xyxy, boxes)
    np.testing.assert_array_equal(theirs.confidence, ours.scores)
    np.testing.assert_array_equal(theirs.class_id, ours.labels)
    assert theirs["class_name"].tolist() == ["cat", "dog"]
    assert theirs[theirs["class_name"] == "dog"].xyxy.tolist() == [[50, 5, 90, 30]]
    image = np.zeros((64, 96, 3), np.uint8)
    drawn = sv.BoxAnnotator(thickness=1).annotate(image.copy(), theirs)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 5, 90, 60)
    labelled = sv.LabelAnnotator(text_scale=0.3).annotate(drawn.copy(), theirs)
    assert (labelled != drawn).any()
    assert len(sv.Detections.merge([theirs, THREE[:0].to_supervision()])) == 2


def test_supervision_is_optional(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(BoxlessError, match="supervision is not installed: pip install supervision"):
        THREE.to_supervision()


def test_annotations_are_merged_and_selected():
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    one, other = (
        Annotations.of(boxes[:1], np.array([2])),
        Annotations(boxes[1:], np.array([0, 1]), np.array([True, False])),
    )
    every = Annotations.merge([one, Annotations.empty(), other])
    assert every.labels.tolist() == [2, 0, 1] and every.ignore.tolist() == [False, True, False]
    np.testing.assert_array_equal(every.boxes, boxes)
    for rows in (np.array([2, 0]), ~every.ignore):
        assert every[rows].labels.tolist() == every.labels[rows].tolist()
        np.testing.assert_array_equal(every[rows].boxes, boxes[rows])
    assert every[every.ignore].ignore.tolist() == [True]
    assert Annotations.merge([]).boxes.shape == (0, 4)


def test_annotations_of_other_types_are_converted() -> None:
    own = Annotations(np.array([[80, 90, 200, 220]]), np.array([1], np.int32), np.array([0]))
    assert [part.dtype for part in (own.boxes, own.labels, own.ignore)] == [np.float32, np.int64, np.bool_]
    assert (own.boxes.tolist(), own.labels.tolist(), own.ignore.tolist()) == ([[80, 90, 200, 220]], [1], [False])
    boxes = np.zeros((1, 4), np.float32)
    assert Annotations(boxes, np.array([0]), np.array([False])).boxes is boxes


def test_detections_of_other_types_are_converted_and_labels_must_be_of_a_class() -> None:
    values = np.array([[1, 2, 30, 40]]), np.array([0.5]), np.array([1.0])
    found = Detections(*values, ("cat", "dog"), (96, 64), np.ones(2))  # type: ignore[arg-type]
    assert [part.dtype for part in (found.boxes, found.scores, found.labels)] == [np.float32, np.float32, np.int64]
    assert (found.names, len(found.confident())) == (["dog"], 1)
    assert found.image_scores.dtype == np.float32
    with pytest.raises(BoxlessError, match="image_scores is of type list, not a NumPy array"):
        Detections(*values, ("cat", "dog"), (96, 64), [0.5, 0.5])  # type: ignore[arg-type]
    with pytest.raises(BoxlessError, match="labels are not whole numbers"):
        Detections(*values[:2], np.array([0.7]), ("cat", "dog"), (96, 64), np.ones(2, np.float32))  # type: ignore[arg-type]
    for label in (2, -1):
        with pytest.raises(BoxlessError, match=f"label {label} is no index of 2 classes"):
            Detections(*values[:2], np.array([label]), ("cat", "dog"), (96, 64), np.ones(2, np.float32))  # type: ignore[arg-type]


def test_numpy_integers_of_a_sample_become_plain_ones():
    sample = Sample(
        "a", Path("a.jpg"), frozenset(np.array([2, 0])), frozenset(np.array([1])), counts={np.int64(2): Count(3)}
    )
    assert sample == Sample("a", Path("a.jpg"), frozenset({0, 2}), frozenset({1}), counts={2: Count(3)})
    assert all(type(label) is int for label in (*sample.tags, *sample.unsure, *sample.counts))


def test_comparing_detections_tells_whether_they_are_the_same_object():
    first, second = detections([0.5], [0]), detections([0.5], [0])
    assert first == first and first != second
