"""OpenVINO on an exported file, as docs/deploying.md shows it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from random_runs import Exported

from boxless.errors import BoxlessError

# An export takes half a minute.
pytestmark = pytest.mark.slow

pytest.importorskip("openvino")

# Of the outputs, which differ by about 1e-5 of their sizes: pixels, and scores.
PIXELS, SCORE = 0.1, 1e-3


@pytest.fixture
def runtime_class(monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "openvino_runtime", raising=False)
    from openvino_runtime import OpenVINORuntime

    found: type = OpenVINORuntime
    return found


def test_it_gives_the_detections_of_onnx_runtime(runtime_class: type, exported: Exported, images: list[Path]):
    detector = runtime_class(exported.file)
    # As one after the other, and in parallel.
    for found in ([detector.predict(path, 0) for path in images[:3]], detector.predict(images[:3], 0)):
        for one, two in zip(found, exported.runtime.predict(images[:3], 0), strict=True):
            assert sorted(one.labels.tolist()) == sorted(two.labels.tolist()) and len(one) > 0
            np.testing.assert_allclose(one.scores, two.scores, atol=SCORE)
            # Which of two boxes comes first whose scores differ in the last bits is not said.
            apart = np.abs(one.boxes[:, None] - two.boxes).max(axis=2)
            assert apart.min(axis=0).max() < PIXELS and apart.min(axis=1).max() < PIXELS


def test_what_it_cannot_read_is_one_line(runtime_class: type, student: Exported, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.runtime.read_file", lambda path: (b"spoiled", student.runtime.description))
    with pytest.raises(BoxlessError, match="cannot be run") as error:
        runtime_class(student.file)
    assert "\n" not in str(error.value)
