"""What `benchmarks/exported.py` prints: the mAP of a run beside that of its files."""

import importlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from random_runs import Exported, random_run

from boxless.datasets import load_dataset
from boxless.files import write_json
from boxless.run_folder import MANIFEST

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


@pytest.fixture
def run(demo: Path, images: list[Path], tmp_path: Path) -> Path:
    """The run of `student`, of the first classes of the demo set."""
    found = random_run(tmp_path / "run", "student", images=images[:3])
    manifest = json.loads((found / MANIFEST).read_text())
    names = load_dataset(demo, "val").classes[3:6]
    write_json(found / MANIFEST, manifest | {"classes": names, "pseudo_labels": None})
    return found


@pytest.mark.slow
def test_the_file_has_the_map_of_the_run_and_integers_are_beside_it(
    run: Path, student: Exported, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: onnx.load(student.file))
    # The networks are random: no class is likely.
    monkeypatch.setattr("boxless.structures.SHOWN_IMAGE_SCORE", 0.0)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    exported, out = importlib.import_module("exported"), tmp_path / "files"
    exported.main(run, demo, "val", "train", out)
    text = capsys.readouterr().out
    head, whole, file, integers, cached = table(text)
    assert "6 images" in text and "calibrated on 10 images of train" in text
    assert head[0] == "detector" and whole[0] == "the run, student"
    assert file[0].startswith("`detector.onnx`, ") and integers[0].startswith("`int8.onnx`, ")
    assert float(whole[2]) > 0
    # Its maps are rounded.
    assert cached[0] == "the run, on maps of the cache"
    assert float(cached[4]) == pytest.approx(float(whole[2]) - float(cached[2]), abs=2e-4)
    assert [float(cell) for cell in file[1:4]] == pytest.approx([float(cell) for cell in whole[1:4]], abs=2e-3)
    assert float(integers[4]) == pytest.approx(float(whole[2]) - float(integers[2]), abs=2e-4)
    assert json.loads(onnx.load(out / "int8.onnx").metadata_props[0].value)["int8"]["measured"] == 6
