import csv
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from running import boxless

from boxless import Detector, diagnose, evaluate, load_dataset
from boxless.card import model_card
from boxless.cli import main
from boxless.commands.options import class_names
from boxless.images import image_size, read_image
from boxless.metrics import summary
from boxless.tables import print_scores
from boxless.wording import counted

QUICK = [
    "views.scales=[160]",
    "training.epochs=2",
    "proposals.generator=grid",
    "proposals.min_area=0.05",
]
KEYS = {"mAP_11point", "mAP_area", "mAP_50_95", "CorLoc", "classification_mAP", "pointing_mAP"}


@pytest.fixture(scope="module")
def run(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the command line trained."""
    out = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        words = ["--split", "train", "--out", out, "--seed", 3, "--method", "contextlocnet"]
        assert boxless(patch, "train", demo, *words, *QUICK) == 0
    return out


def test_a_run_folder_holds_its_files(run: Path) -> None:
    names = {file.name for file in run.iterdir()}
    assert names >= {"weights.safetensors", "backbone.safetensors", "config.yaml", "history.jsonl", "manifest.json"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["command"].startswith("boxless train ") and "--seed 3" in manifest["command"]


def test_a_configuration_brings_its_method(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--split", "train", "--out", tmp_path / "run", "--config", run / "config.yaml"]
    assert boxless(monkeypatch, "train", demo, *words) == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["method"] == "contextlocnet"


def test_evaluate_writes_the_scores_it_prints(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    assert boxless(monkeypatch, "evaluate", run, demo, "--split", "val", "--json", file) == 0
    scores = json.loads(file.read_text())
    assert scores.keys() >= KEYS | {"classes", "images", "seconds", "conventions"}
    assert scores["images"] == 6
    assert all(row.keys() >= KEYS for row in scores["classes"].values())
    means = [row["CorLoc"] for row in scores["classes"].values() if row["CorLoc"] is not None]
    assert scores["CorLoc"] == pytest.approx(np.mean(means))
    printed = capsys.readouterr()
    assert "mAP_11point" in printed.out + printed.err


def test_scores_of_the_training_images_are_marked_as_such(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    for split, marked in (("val", False), ("train", True)):
        assert boxless(monkeypatch, "evaluate", copy, demo, "--split", split) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert ("whose scores are higher than those of new images" in said) == marked
    number = json.loads((copy / "metrics-VOC-demo-train.json").read_text())["images"]
    assert f"Warning: VOC-demo train: trained on {number} of the {number} images, whose" in said
    # As it is by any other name, and in part.
    train, val = (load_dataset(demo, split) for split in ("train", "val"))
    part = replace(val, name="other", samples=val.samples + train.samples[:2])
    assert evaluate(Detector.load(copy), part)["training_images"] == 2
    # A card shows both and publishes those of the other images alone.
    card = model_card(copy)
    assert card.count("whose scores are higher") == 1
    assert "On VOC-demo train" in card and "On VOC-demo val" in card
    assert "name: VOC-demo val" in card and "name: VOC-demo train" not in card


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boxless(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"boxless {metadata.version('boxless')}\n"


def test_diagnose_writes_a_chart_and_what_it_shows(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "diagnosis.json"
    assert boxless(monkeypatch, "diagnose", run, demo, "--split", "val", "--json", file) == 0
    diagnosis = json.loads(file.read_text())
    chart = next(run.glob("diagnosis-*-val.png"))
    assert json.loads(chart.with_suffix(".json").read_text()) == diagnosis
    keys = {"part_rate", "group_rate", "background_rate", "recall_small", "recall_first", "recall_further"}
    assert diagnosis.keys() >= keys | {"data", "images", "seconds", "skipped", "conventions"}
    assert all(row.keys() >= keys for row in diagnosis["classes"].values())
    assert {**diagnose(Detector.load(run), demo, "val"), "seconds": diagnosis["seconds"]} == diagnosis
    assert diagnosis["images"] == 6
    assert sum(row["found"] for row in diagnosis["classes"].values()) == diagnosis["found"]
    assert sum(diagnosis["outcomes"].values()) == diagnosis["detections"] > 0
    width, height = image_size(chart)
    assert width > 1000 and 500 < height < 2000 and chart.stat().st_size > 20_000
    printed = capsys.readouterr()
    assert all(name in printed.out for name in (*diagnosis["classes"], "background", "further"))
    assert chart.name in "".join(printed.err.split())


@pytest.mark.parametrize(("command", "copy"), [("evaluate", "metrics"), ("diagnose", "diagnosis")])
def test_results_are_shown_and_written_where_asked_although_the_run_folder_takes_no_copy(
    run: Path,
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    copy: str,
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("metrics-*", "diagnosis-*"))
    blocked = tmp_path / "run" / f"{copy}-VOC-demo-val.json"
    blocked.mkdir()
    json_file = tmp_path / "result.json"
    assert boxless(monkeypatch, command, tmp_path / "run", demo, "--split", "val", "--json", json_file) == 0
    result = json.loads(json_file.read_text())
    printed = capsys.readouterr()
    assert all(name in printed.out for name in result["classes"])
    assert f"Warning: A copy is missing: {blocked}: cannot be written" in " ".join(printed.err.split())
    # To standard output JSON goes alone.
    assert boxless(monkeypatch, command, tmp_path / "run", demo, "--split", "val", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == result["classes"]


def test_a_file_is_written_although_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    """As with `boxless evaluate ... --json scores.json | head -1`."""
    program = (
        "import sys; from pathlib import Path; from boxless.cli import _write; from boxless.tables import results; "
        "_write(Path(sys.argv[1]), {'a': 1}, lambda result: results.print('x'))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "a.json"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_path_without_permission_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo: Path
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/a.jpg")

    monkeypatch.setattr("boxless.datasets.load_dataset", refused)
    assert boxless(monkeypatch, "proposals", demo) == 1
    assert "Error: /closed/a.jpg: Permission denied; get access to it" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["evaluate", "diagnose", "doctor"])
def test_a_file_that_cannot_be_written_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "file").write_text("")
    words = ["NOWHERE"] if command == "doctor" else ["NOWHERE", "NOWHERE"]
    assert boxless(monkeypatch, command, *words, "--json", tmp_path / "file" / "below.json") == 1
    assert "below.json: cannot be written (Not a directory)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("coco", "predictions.json"),
        ("csv", "predictions.csv"),
        ("voc", "Annotations"),
        ("yolo", "data.yaml"),
        ("label-studio", "tasks.json"),
    ],
)
def test_predict_writes_overlays_beside_results(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, file: str
) -> None:
    out = tmp_path / "out"
    assert boxless(monkeypatch, "predict", run, demo / "JPEGImages", "--out", out, "--format", form) == 0
    assert (out / file).exists()
    overlays = sorted((out / "overlays").iterdir())
    images = sorted((demo / "JPEGImages").iterdir())
    assert [overlay.stem for overlay in overlays] == [image.stem for image in images]
    assert image_size(overlays[0]) == image_size(images[0])
    assert (out / "overview.jpg").exists()


def test_predict_writes_the_confident_boxes_or_those_from_a_threshold_on(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted((demo / "JPEGImages").iterdir())[0]
    detector = Detector.load(run)
    capsys.readouterr()
    middle = float(np.median(detector.predict(image, 0).scores))
    for name, words in {"confident": [], "all": ["--threshold", 0], "above": ["--threshold", middle]}.items():
        assert boxless(monkeypatch, "predict", run, image, "--out", tmp_path / name, *words) == 0
        found = json.loads((tmp_path / name / "predictions.json").read_text())["annotations"]
        expected = detector.predict(image, float(words[1]) if words else None)
        assert [row["score"] for row in found] == pytest.approx(expected.scores.tolist(), abs=1e-4)
        told = f"Found {counted(len(expected), 'box')} in {min(len(expected), 1)} of 1 image"
        assert told in capsys.readouterr().err


def test_names_of_classes_and_data_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**dict.fromkeys(summary.CONVENTIONS), "images": 3, "objects": 4}
    print_scores({**row, "data": "a [b] c", "supervision": "tags", "classes": {"screw [left]": row, "[/x]": row}})
    printed = capsys.readouterr().out
    assert "a [b] c" in printed and "[left]" in printed and "[/x]" in printed


def test_a_class_may_be_called_as_the_row_of_the_means(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**dict.fromkeys(summary.CONVENTIONS), "images": 3, "objects": None}
    classes = {"mean": {**row, "classification_mAP": 0.125}, "cat": {**row, "classification_mAP": 0.375}}
    print_scores({**row, "classification_mAP": 0.25, "data": "a", "supervision": "tags", "classes": classes})
    printed = capsys.readouterr().out
    assert all(value in printed for value in ("0.125", "0.375", "0.250"))


def test_the_name_of_a_class_with_a_comma_is_put_in_quotation_marks() -> None:
    assert class_names('cat, "red, big",dog,') == ["cat", "red, big", "dog"]
    assert class_names("cat,\ndog") == ["cat", "dog"]
    assert class_names(None) is None and class_names("") == []


def test_scores_of_tags_alone_are_those_of_image_classification(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**dict.fromkeys(summary.CONVENTIONS), "classification_mAP": 0.25, "images": 3, "objects": None}
    print_scores({**row, "data": "tags", "supervision": "tags", "classes": {"cat": row}})
    printed = capsys.readouterr().out
    assert "0.250" in printed and "classification_mAP" in printed and "CorLoc" not in printed
    assert "Other scores need boxes, which this data does not have." in printed


def test_a_training_that_is_stopped_says_how_it_goes_on(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("boxless.pipeline.train", stopped)
    assert boxless(monkeypatch, "train", demo, "--out", tmp_path / "run") == 130
    said = " ".join(capsys.readouterr().err.split())
    assert f"Stopped: the same command continues {tmp_path / 'run'}" in said


def test_results_among_the_images_are_not_predicted(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted((demo / "JPEGImages").iterdir())[:2]:
        shutil.copy(path, tmp_path)
    expected = sorted(file.name for file in tmp_path.iterdir())
    for _ in range(2):
        assert boxless(monkeypatch, "predict", run, tmp_path, "--out", tmp_path) == 0
        assert sorted(file.name for file in (tmp_path / "overlays").iterdir()) == expected
        assert len(json.loads((tmp_path / "predictions.json").read_text())["images"]) == 2


def test_heatmaps_are_images_and_arrays(run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = sorted((demo / "JPEGImages").iterdir())[0]
    assert boxless(monkeypatch, "heatmap", run, image, "--out", tmp_path / "all") == 0
    maps = np.load(tmp_path / "all" / "maps" / f"{image.stem}.npy")
    names = (tmp_path / "all" / "maps" / "classes.txt").read_text().split()
    assert len(maps) == len(names) == 6
    words = ["--out", tmp_path / "one", "--class", "fish", "--colormap", "viridis"]
    assert boxless(monkeypatch, "heatmap", run, image, *words) == 0
    assert image_size(tmp_path / "one" / "overlays" / f"{image.stem}.jpg") == image_size(image)


def test_broken_images_among_good_ones_are_counted(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my images äöü"
    folder.mkdir()
    good = sorted((demo / "JPEGImages").iterdir())[0]
    shutil.copy(good, folder / "ein schönes Bild.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(good.read_bytes()[:2000])
    (folder / "text.jpg").write_text("hello")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.fromarray(read_image(good)).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.full((60, 80), 40000, np.uint16)).save(folder / "deep.png")
    assert boxless(monkeypatch, "predict", run, folder, "--out", tmp_path / "out", "--format", "csv") == 0
    printed = capsys.readouterr().err
    assert "4 images skipped" in printed
    overlays = {file.name for file in (tmp_path / "out" / "overlays").iterdir()}
    assert overlays == {"ein schönes Bild.jpg", "cmyk.jpg", "deep.jpg"}
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert all(
            Path(row["image"]).name in {"ein schönes Bild.jpg", "cmyk.jpg", "deep.png"} for row in csv.DictReader(file)
        )


def test_proposals_reports_recall(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boxless(monkeypatch, "proposals", demo, "generator=grid", "--split", "val") == 0
    printed = "".join(capsys.readouterr())
    for name in ("proposals per image", "seconds", "recall@0.5", "recall@0.7", "mean best overlap"):
        assert name in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "NOWHERE", "--out", "OUT"], "NOWHERE"),
        (["train", "DEMO", "--split", "train", "--out", "OUT", "training.epoch=3"], "no such setting"),
        (["train", "DEMO", "--split", "tarin", "--out", "OUT"], "tarin"),
        (["evaluate", "DEMO", "DEMO", "--split", "val"], "not a run folder"),
        (["diagnose", "RUN", "TAGS"], "tags has no boxes, and a diagnosis needs them"),
        (["predict", "RUN", "EMPTY", "--out", "OUT"], "there is no image"),
        (["predict", "RUN", "NOWHERE", "--out", "OUT"], "does not exist"),
        (["heatmap", "RUN", "DEMO", "--out", "OUT", "--class", "cat"], "no class 'cat'; it has: ball"),
        (["heatmap", "RUN", "DEMO", "--out", "OUT", "--colormap", "jets"], "no colormap 'jets'"),
        (["predict", "RUN", "DEMO", "--out", "FILE/below"], "cannot be written"),
        (["proposals", "DEMO", "size=3"], "the configuration of proposals does not fit: size: Input should be"),
        (
            ["predict", "RUN", "DEMO", "--out", "OUT", "--format", "tiff"],
            "export format 'tiff' is unknown; there are coco",
        ),
    ],
)
def test_errors_of_users_are_printed_without_a_traceback(
    run: Path,
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    places = {"RUN": run, "DEMO": demo, "OUT": tmp_path / "out", "EMPTY": tmp_path / "empty"}
    image = sorted((demo / "JPEGImages").iterdir())[0]
    (tmp_path / "tags.csv").write_text(f"image,tags\n{image},fish\n")
    places |= {"FILE/below": tmp_path / "file" / "below", "TAGS": tmp_path / "tags.csv"}
    assert boxless(monkeypatch, *(places.get(word, word) for word in words)) == 1
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split())
    assert "Traceback" not in printed


def test_a_gpu_without_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("boxless.cli.app", fail)
    error = torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith("Error: the memory of the GPU is full: ")
    error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        main()


def test_a_run_folder_from_another_version_is_refused(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"format": 99, "versions": {"boxless": "7.0"}}))
    assert boxless(monkeypatch, "predict", other, demo, "--out", tmp_path / "out") == 1
    assert "a run folder of format 99, made by Boxless 7.0" in " ".join(capsys.readouterr().err.split())
    (other / "manifest.json").write_text("{")
    assert boxless(monkeypatch, "predict", other, demo, "--out", tmp_path / "out") == 1
    shutil.copy(run / "manifest.json", other / "manifest.json")
    (other / "weights.safetensors").write_bytes((run / "weights.safetensors").read_bytes()[:999])
    assert boxless(monkeypatch, "predict", other, demo, "--out", tmp_path / "out") == 1
    assert "does not load" in " ".join(capsys.readouterr().err.split())


def test_serve_answers_until_it_is_interrupted(run: Path, demo: Path) -> None:
    words = ["serve", str(run), "--port", "0"]
    command = [sys.executable, "-c", "from boxless.cli import main; main()", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            printed = (server.stderr or sys.stdin).readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", printed)
            assert url is not None, printed
            image = sorted((demo / "JPEGImages").iterdir())[0]
            files = {"file": image.open("rb")}
            with files["file"]:
                answer = requests.post(f"{url[0]}/predict?threshold=0", files=files, timeout=60).json()
            found = Detector.load(run).predict(image, 0)
            assert len(found) > 0
            assert answer["model_version"] == "run"
            assert [one["name"] for one in answer["detections"]] == found.names
            np.testing.assert_allclose([one["box"] for one in answer["detections"]], found.boxes, atol=0.02)
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0


def test_a_port_that_is_taken_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert boxless(monkeypatch, "serve", run, "--port", port) == 1
    assert f"127.0.0.1:{port}: cannot listen there" in " ".join(capsys.readouterr().err.split())


def test_without_its_extra_the_server_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "boxless.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert boxless(monkeypatch, "serve", run) == 1
    assert "pip install -e '.[serve]'" in " ".join(capsys.readouterr().err.split())


def test_doctor_prints_its_report(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo, data)
    broken = sorted((data / "JPEGImages").iterdir())[:5]
    for image in broken:
        image.write_bytes(b"")
    assert boxless(monkeypatch, "doctor", data, "--classes", "ball,fish", "--json", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["classes"]) == ["ball", "fish"]
    assert [finding["fault"] for finding in report["findings"] if finding["images"]] == ["broken"]
    captured = capsys.readouterr()
    assert captured.err.startswith("data train: PASCAL VOC, 16 images, 6 classes\n")
    printed = " ".join(captured.out.split())
    assert f"(train): {report['images']} images" in printed
    for name, row in report["classes"].items():
        assert name in printed and row["verdict"] in printed
    assert "JPEGImages/000001.jpg JPEGImages/000002.jpg JPEGImages/000003.jpg ... and 2 more" in printed
    assert "fix: replace or remove them" in printed
    assert boxless(monkeypatch, "doctor", demo, "--split", "tset") == 1
