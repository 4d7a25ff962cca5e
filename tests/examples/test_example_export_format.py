import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.results import predict
from boxless.structures import Detections

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "export_format.py"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    runpy.run_path(str(EXAMPLE))
    yield
    del FORMATS["labelme"]


def test_detections_become_labelme_files(tmp_path: Path):
    boxes = np.array([[10.5, 20, 60, 70.254], [0, 0, 5, 5]], np.float32)
    scores, labels = np.array([0.875, 0.25], np.float32), np.array([1, 0], np.int64)
    full = Detections(boxes, scores, labels, ("dent", "scratch"), (100, 80), np.array([0.9, 0.8], np.float32))
    empty = Detections(boxes[:0], scores[:0], labels[:0], ("dent", "scratch"), (30, 40), np.zeros(2, np.float32))
    images = [(tmp_path / "photos/a.jpg", full), (tmp_path / "photos/b.jpg", empty), (tmp_path / "more/a.jpg", empty)]
    folder = FORMATS.find("labelme").write(tmp_path / "out", iter(images), ("dent", "scratch"), "run")
    assert folder == tmp_path / "out" / "labelme"
    files = {file.name: json.loads(file.read_text()) for file in folder.iterdir()}
    assert files.keys() == {"a.json", "b.json", "more-a.json"}
    one = files["a.json"]
    assert [(shape["label"], shape["points"], shape["description"]) for shape in one["shapes"]] == [
        ("scratch", [[10.5, 20], [60, 70.25]], "score 0.875"),
        ("dent", [[0, 0], [5, 5]], "score 0.25"),
    ]
    assert {shape["shape_type"] for shape in one["shapes"]} == {"rectangle"}
    assert (one["imageWidth"], one["imageHeight"], one["imageData"]) == (100, 80, None)
    assert one["imagePath"] == "../../photos/a.jpg"
    assert files["b.json"]["shapes"] == [] and files["more-a.json"]["imagePath"] == "../../more/a.jpg"


def test_a_folder_of_this_name_that_is_no_result_is_not_overwritten(tmp_path: Path):
    (tmp_path / "labelme").mkdir()
    detector: Any = None
    with pytest.raises(BoxlessError, match="labelme: exists, and is no result of Boxless"):
        predict(detector, tmp_path, tmp_path, "labelme")
