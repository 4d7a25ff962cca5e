"""What `boxless export` writes, and when it refuses to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from random_runs import CALIBRATION, CLASSES, Exported, random_run
from running import boxless as run_boxless

from boxless.errors import BoxlessError
from boxless.export.onnx import OPSET, export_onnx
from boxless.run_folder import MANIFEST
from boxless.runtime_file import KEY

# An export takes half a minute.
pytestmark = pytest.mark.slow


def metadata(file: Path) -> dict[str, Any]:
    (entry,) = onnx.load(file).metadata_props
    assert entry.key == KEY
    return dict(json.loads(entry.value))


def test_the_file_says_all_that_is_needed_to_use_it(exported: Exported):
    said, config = metadata(exported.file), exported.detector.config
    assert said["classes"] == list(said["thresholds"]) == CLASSES
    calibrated = config.head.scores_proposals
    assert said["calibration"] == (CALIBRATION if calibrated else None)
    certain = "score" if calibrated else "image_score"
    assert all(row == {certain: 0.5, "share_of_best": 0.5} for row in said["thresholds"].values())
    assert said["views"] == [{"scale": 160, "flipped": False}]
    assert said["selection"] == {"min_score": 1e-5, "nms": 0.3, "vote": True, "max_boxes": 100}
    assert (said["supervision"], said["seed"], said["untrusted"]) == ("tags", 7, {"owl": 0.1})
    assert said["backbone"]["licence"] == "none needed: random"
    assert said["data"] == {"name": "drawn", "images": 3, "digest": "da7a" * 8}
    assert said["versions"]["export"].keys() >= {"boxless", "torch", "onnx", "onnxscript", "onnxruntime"}
    assert (said["proposals"] is not None) == config.head.scores_proposals
    parity = said["parity"]
    assert parity.keys() == {"images", "boxes_px", "scores"}
    assert parity["images"] == 3 and 0 <= parity["boxes_px"] <= 0.5
    assert 0 < parity["scores"] <= 1e-3


def test_it_is_one_valid_file_of_any_batch_and_size_that_names_nothing_of_this_machine(exported: Exported):
    model = onnx.load(exported.file, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    sides = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", "height", "width", 3]
    assert not any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer)
    content = exported.file.read_bytes()
    for private in (b"site-packages", b"/src/boxless", str(exported.run.parent).encode(), b'File "'):
        assert private not in content


def test_regions_beyond_the_last_cells_of_a_map_are_pooled_as_in_the_run(images: list[Path], tmp_path: Path):
    """AlexNet has no cells for the last pixels of an image; a file that differs from its run is not written."""
    run = random_run(tmp_path / "run", "seeded", ["backbone.name=alexnet"], images[:3])
    export_onnx(run, tmp_path / "alexnet.onnx")
    assert (tmp_path / "alexnet.onnx").is_file()


@pytest.mark.parametrize("name", ["MAX_BOX_ERROR", "MAX_SCORE_ERROR"])
def test_a_file_that_differs_from_its_run_is_not_written(
    name: str, student: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(f"boxless.export.onnx.{name}", -1.0)
    model = onnx.load(student.file)
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: model)
    (tmp_path / "old.onnx").write_bytes(b"kept")
    for file in ("new.onnx", "old.onnx"):
        with pytest.raises(BoxlessError, match=r"not written, as it differs from the run: boxes by .* px") as error:
            export_onnx(student.run, tmp_path / file)
        assert "\n" not in str(error.value)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old.onnx", b"kept")]


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_weights_of_another_run_are_noticed(
    factor: float, student: Exported, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(student.file)
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = onnx.numpy_helper.to_array(largest) * factor
    largest.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), largest.name))
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: model)
    with pytest.raises(BoxlessError, match="differs from the run"):
        export_onnx(student.run, tmp_path / "a.onnx", images[3:])
    assert not list(tmp_path.iterdir())


REFUSED: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "no images": (lambda run, out: export_onnx(run, out / "a.onnx"), "the training images are gone"),
    "none given": (lambda run, out: export_onnx(run, out / "a.onnx", [out]), "there is no image to compare"),
    "suffix": (lambda run, out: export_onnx(run, out / "a.pt"), r"call the file NAME\.onnx"),
    "no run": (lambda run, out: export_onnx(out, out / "a.onnx"), "not a run folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_before_any_work(
    case: str, student: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: pytest.fail("work was done"))
    run = random_run(tmp_path / "run", "student", images=[tmp_path / "gone.jpg"])
    call, message = REFUSED[case]
    (tmp_path / "out").mkdir()
    with pytest.raises(BoxlessError, match=message) as error:
        call(run, tmp_path / "out")
    assert "\n" not in str(error.value) and not list((tmp_path / "out").iterdir())


def test_a_method_that_cannot_be_exported_names_those_that_can(images: list[Path], tmp_path: Path):
    run = random_run(tmp_path / "run", "oicr", images=images)
    with pytest.raises(
        BoxlessError, match=r"oicr, which cannot be exported; seeded and student can: .*--method student"
    ):
        export_onnx(run, tmp_path / "a.onnx")


def test_the_command_exports_with_images_that_are_named(
    student: Exported,
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    run = random_run(tmp_path / "run", "student")
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: onnx.load(student.file))
    out = tmp_path / "new" / "detector.onnx"
    words = ["--out", out, "--images", images[0].parent, "--images", images[0]]
    assert run_boxless(monkeypatch, "export", run, *words) == 0
    assert metadata(out)["parity"]["images"] == 23 and json.loads((run / MANIFEST).read_text())["finished"]
    message = " ".join(capsys.readouterr().err.split())
    assert "Exported: " in message and "On 23 images its boxes differ from the run's by at most" in message
