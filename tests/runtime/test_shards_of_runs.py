"""A run folder, and the file exported from it, as the detector of shards."""

import shutil
from pathlib import Path

import pytest
import torch
from random_runs import Exported

from boxless.errors import BoxlessError
from boxless.run_path import HubModel, is_exported
from boxless.shards import local, read_parts, write_manifest
from boxless.shards.job import begin_job, describe
from boxless.shards.work import load_detector, predict_shard


def test_a_run_folder_gives_its_own_boxes(exported: Exported, images: list[Path], tmp_path: Path):
    manifest, out = str(tmp_path / "images.parquet"), str(tmp_path / "out")
    write_manifest(str(images[0].parent), manifest)
    job = begin_job(str(exported.run), manifest, out, 100, 0.0)
    assert job.classes == exported.detector.classes
    assert predict_shard(job, 0, load_detector(job), 1).images == 22
    found = {Path(image.uri): image.detections for image in read_parts(out)}
    for path in images[:2]:
        own, expected = found[path.absolute()], exported.detector.predict(path, 0)
        assert own is not None and len(own) == len(expected) > 0
        for name in ("boxes", "scores", "labels", "image_scores"):
            assert getattr(own, name).tobytes() == getattr(expected, name).tobytes()
    with pytest.raises(BoxlessError, match="parts of another detector"):
        begin_job(str(exported.file), manifest, out, 100, 0.0)


def test_a_copy_of_a_run_is_the_same_detector_and_other_weights_are_another(student: Exported, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(student.run, copy)
    assert describe(str(copy)) == describe(str(student.run))
    (copy / "metrics-demo-val.json").write_text("{}")
    assert describe(str(copy)) == describe(str(student.run))
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    assert describe(str(copy))[0] != describe(str(student.run))[0]
    with pytest.raises(BoxlessError, match="not a run folder"):
        describe(str(tmp_path))


def test_a_run_on_the_hub_is_the_one_that_is_downloaded(
    student: Exported, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.hub.fetch", {HubModel("me/cats", None): student.run}.get)
    manifest = str(tmp_path / "images.parquet")
    write_manifest(str(images[0].parent), manifest)
    job = begin_job("hf://me/cats", manifest, str(tmp_path / "out"), 100, None)
    assert (job.run, job.detector) == (str(student.run), describe(str(student.run))[0])


def test_a_run_folder_that_is_called_as_a_file_is_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.devices.default_device", lambda: torch.device("cuda"))
    folder, file = tmp_path / "run.onnx", tmp_path / "cats.ONNX"
    folder.mkdir()
    assert [is_exported(path) for path in (folder, str(folder), file, str(file))] == [False, False, True, True]
    # Files run on the CPU.
    assert local._uses_gpu(str(folder)) and not local._uses_gpu(str(file))
