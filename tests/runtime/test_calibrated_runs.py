"""Runs with calibrated scores: the boxes and ranks of the run without, and a benchmark that measures both."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from random_runs import CALIBRATION, random_run

from boxless.calibration import Calibration, best_scores
from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.files import write_json
from boxless.run_folder import MANIFEST

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def runs(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One run with calibrated scores and the same without, of the first classes of the demo set."""
    folder = tmp_path_factory.mktemp("calibrated")
    found = folder / "with", folder / "without"
    names = load_dataset(demo, "val").classes[:3]
    for run in found:
        random_run(run, "seeded")
        manifest = json.loads((run / MANIFEST).read_text())
        manifest |= {"classes": names, "pseudo_labels": None}
        manifest["calibration"] = dict(zip(names, CALIBRATION.values(), strict=True))
        if run == found[1]:
            del manifest["calibration"]
        write_json(run / MANIFEST, manifest)
    return found


def test_boxes_and_their_order_within_a_class_are_those_without_calibration(
    runs: tuple[Path, Path], demo: Path
) -> None:
    calibrated, plain = (Detector.load(run, "cpu") for run in runs)
    for sample in load_dataset(demo, "val").samples[:3]:
        found, before = calibrated.predict(sample.path, 0), plain.predict(sample.path, 0)
        assert len(found) == len(before) > 0 and before.raw_scores is None
        assert (np.diff(found.scores) <= 0).all()
        for label in range(3):
            one, other = found[found.labels == label], before[before.labels == label]
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.raw_scores, other.scores)
            slope, intercept = list(CALIBRATION.values())[label].values()
            by_hand = Calibration(np.array([slope]), np.array([intercept]))(other.scores, np.zeros(len(other), int))
            np.testing.assert_array_equal(one.scores, by_hand)
        np.testing.assert_array_equal(best_scores([found], raw=True), best_scores([before]))


def test_the_benchmark_has_the_same_map_before_and_after(
    runs: tuple[Path, Path], demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    importlib.import_module("calibration").main(runs[0], demo)
    lines = capsys.readouterr().out.splitlines()
    before, after = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:6])
    assert (before[0], after[0]) == ("before", "after")
    assert before[4] == after[4] and 0 <= float(after[4]) <= 1
    assert before[1] != after[1] and all(0 <= float(cell) <= 1 for cell in (*before[1:], *after[1:]))
    rows = [[float(cell) for cell in line.split("|")[1:-1]] for line in lines[9:]]
    # A pair is a class with a box in an image, of 6 images.
    assert 0 < sum(number for *_, number in rows) <= 18
