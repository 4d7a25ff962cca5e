from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boxless.metrics import diagnose_detections
from boxless.structures import Annotations, Detections, Sample
from boxless.visualize import plot_diagnosis

GREEN, ORANGE, SKY_BLUE, GREY = (0, 158, 115), (230, 159, 0), (86, 180, 233), (150, 150, 150)
OBJECT, PART, AWAY = (0, 0, 100, 100), (10, 10, 20, 20), (300, 300, 350, 350)


def diagnosis(classes: tuple[str, ...], *boxes: tuple[int, int, int, int]) -> dict[str, Any]:
    """Of these boxes of the first class, one an image, where each image shows one object of it."""
    samples, detections = [], []
    for i, box in enumerate(boxes):
        ground_truth = Annotations(np.array([OBJECT], np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_))
        samples.append(Sample(str(i), Path(f"{i}.jpg"), frozenset({0}), annotations=ground_truth))
        found = np.array([box], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
        detections.append(Detections(*found, classes, (640, 480), np.zeros(len(classes), np.float32)))
    return {"data": "tea $et_1", "supervision": "tags", **diagnose_detections(detections, samples, classes)}


def longest_run(chart: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    """Pixels of the widest line of a colour in the left-hand side, where the stacked bars are."""
    return int((chart[:, : chart.shape[1] * 2 // 3] == colour).all(axis=2).sum(axis=1).max())


def test_bars_are_as_long_as_the_shares() -> None:
    chart = plot_diagnosis(diagnosis(("cat",), OBJECT, *[PART] * 4, *[AWAY] * 3))
    assert chart.dtype == np.uint8 and chart.shape[2] == 3
    whole = sum(longest_run(chart, colour) for colour in (GREEN, ORANGE, GREY))
    # Lines that cross a figure lose its pixels, the widest has none.
    assert longest_run(chart, GREEN) / whole == pytest.approx(1 / 8, abs=0.01)
    assert longest_run(chart, ORANGE) / whole == pytest.approx(4 / 8, abs=0.01)
    assert longest_run(chart, GREY) / whole == pytest.approx(3 / 8, abs=0.01)
    # There is no group but in the legend.
    assert longest_run(chart, SKY_BLUE) < whole / 8


def test_bars_on_the_right_are_as_long_as_the_recalls() -> None:
    chart = plot_diagnosis(diagnosis(("cat",), OBJECT, PART, PART, PART))
    right = chart[:, chart.shape[1] * 2 // 3 :]
    green, pale = ((right == colour).all(axis=2).sum(axis=1) for colour in (GREEN, (235, 235, 235)))
    lines = green > 0
    assert lines.any() and (pale[~lines] > 0).any()
    np.testing.assert_allclose(green[lines] / (green + pale)[lines], 1 / 4, atol=0.02)


def test_more_classes_make_a_higher_chart() -> None:
    names = tuple(f"class {i}" for i in range(40))
    one, twenty, forty = (plot_diagnosis(diagnosis(names[:count], OBJECT)) for count in (1, 20, 40))
    assert one.shape[1] == twenty.shape[1] == forty.shape[1]
    assert one.shape[0] < twenty.shape[0] < forty.shape[0]


def test_long_names_do_not_move_the_bars() -> None:
    short = plot_diagnosis(diagnosis(("cat", "dog"), OBJECT))
    long = plot_diagnosis(diagnosis(("cat" * 100, "a $\\frac{cost}$ of \\owls^2"), OBJECT))
    assert long.shape == short.shape
    assert longest_run(long, GREEN) == longest_run(short, GREEN)
    # The margin stays white.
    assert (long[200:, :5] == 255).all()


def test_a_diagnosis_without_detections_is_drawn_empty() -> None:
    empty = Annotations(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    sample = Sample("a", Path("a.jpg"), frozenset(), annotations=empty)
    found = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    nothing = Detections(*found, ("cat", "dog"), (640, 480), np.zeros(2, np.float32))
    result = diagnose_detections([nothing], [sample], ("cat", "dog"))
    chart = plot_diagnosis({"data": "nothing", "supervision": "tags", **result})
    # Only the legend has colours.
    for colour in (GREEN, ORANGE, GREY):
        assert 0 < longest_run(chart, colour) < 60


def test_a_fully_supervised_upper_bound_is_marked() -> None:
    result = diagnosis(("cat",), OBJECT)
    plain, marked = (plot_diagnosis({**result, "supervision": given}) for given in ("tags", "boxes"))
    differ = np.flatnonzero((plain != marked).any(axis=2).any(axis=1))
    # One line of words, and nothing else.
    assert 0 < len(differ) < plain.shape[0] / 10
