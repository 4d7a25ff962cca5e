"""The example of a metric, called directly and from the command line."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running_examples import EXAMPLES, run_example
from serving import encoded, known_detector

from boxless import Annotations, Detections, Detector, Sample
from boxless.metrics import METRICS, evaluate_detections
from boxless.metrics.summary import CONVENTIONS

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    """After a test the metric is forgotten."""
    yield
    METRICS.pop("MABO", None)
    CONVENTIONS.pop("MABO", None)


def sample(*objects: tuple[int, tuple[int, int, int, int], bool]) -> Sample:
    annotations = Annotations(
        np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        np.array([label for label, _, _ in objects], np.int64),
        np.array([difficult for _, _, difficult in objects], np.bool_),
    )
    return Sample("a", Path("a.jpg"), frozenset(), annotations=annotations)


def detections(*found: tuple[int, tuple[int, int, int, int]]) -> Detections:
    return Detections(
        np.array([box for _, box in found], np.float32).reshape(-1, 4),
        np.full(len(found), 0.5, np.float32),
        np.array([label for label, _ in found], np.int64),
        CLASSES,
        (200, 200),
        np.zeros(3, np.float32),
    )


def test_it_is_the_mean_of_the_best_overlaps():
    runpy.run_path(str(EXAMPLES / "metric.py"))
    samples = [
        sample((0, (0, 0, 10, 10), False), (0, (50, 50, 60, 60), False), (1, (0, 0, 10, 10), False)),
        sample((0, (0, 0, 10, 10), False), (0, (90, 90, 99, 99), True)),
        Sample("b", Path("b.jpg"), frozenset({0})),
    ]
    found = [
        detections((0, (0, 0, 10, 5)), (0, (0, 0, 10, 8)), (1, (50, 50, 60, 60))),
        detections((0, (0, 0, 10, 10))),
        detections((0, (3, 3, 4, 4))),
    ]
    result = evaluate_detections(found, None, samples, CLASSES)
    # Cats: 0.8, none, 1; the only box of a dog lies elsewhere.
    assert [result["classes"][name]["MABO"] for name in CLASSES] == [pytest.approx(1.8 / 3), 0, None]
    assert result["MABO"] == pytest.approx(0.3)


def test_the_command_line_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded())
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        # The detector's box is (0, 0, 48, 32): IoU 2/3.
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 48, 48]}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    monkeypatch.setattr(Detector, "load", lambda *_: known_detector())
    words = ["evaluate", tmp_path, tmp_path / "val.json", "--json", tmp_path / "scores.json"]
    assert run_example("metric.py", words, monkeypatch) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["MABO"] == scores["classes"]["cat"]["MABO"] == pytest.approx(2 / 3)
    output = " ".join(capsys.readouterr().out.split())
    assert "MABO" in output and "Uijlings et al. 2013" in output
