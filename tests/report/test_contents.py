import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxless import Detector, diagnose, evaluate
from boxless.errors import BoxlessError
from boxless.report import contents as module
from boxless.report import write_report
from boxless.report.contents import curve

Command = Callable[..., int]


def contents_of(page: Path) -> dict[str, Any]:
    """The JSON within a page."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_it_holds_the_results_of_evaluate_diagnose_and_doctor(report: Path, run: Path, data: Path) -> None:
    contents, detector = contents_of(report), Detector.load(run)
    for name, function in (("evaluations", evaluate), ("diagnoses", diagnose)):
        wanted = function(detector, data, "val")
        assert contents[name] == [wanted | {"seconds": contents[name][0]["seconds"]}]
    assert (contents["evaluations"][0]["images"], contents["evaluations"][0]["skipped"]) == (5, 1)
    assert [line.split(":")[0] for line in contents["skipped"]] == ["images/val 1.jpg"]
    assert set(contents["doctor"]["classes"]) == set(detector.classes)
    assert ["images/val 1.jpg"] in [f["images"] for f in contents["doctor"]["findings"] if f["fault"] == "broken"]
    assert contents["manifest"] == json.loads((run / "manifest.json").read_text())
    assert [row["epoch"] for row in contents["history"][""]] == list(range(1, 16))
    assert {image["name"] for image in contents["gallery"]["images"]} == {
        f"images/{file.name}" for file in (data / "images").glob("*.jpg") if not re.match("train|val 1", file.name)
    }


def test_data_without_a_usable_training_split_is_reported_without_the_doctor(
    run: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    empty = json.dumps({"images": [], "annotations": [], "categories": []})
    (tmp_path / "data" / "annotations" / "train.json").write_text(empty)
    contents = write_report(run, tmp_path / "report.html", tmp_path / "data", "val")
    assert contents["doctor"] is None and contents["evaluations"][0]["images"] == 5
    assert contents_of(tmp_path / "report.html")["doctor"] is None


def test_a_class_that_the_data_lacks_is_named(
    run: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data, tmp_path / "data")
    file = tmp_path / "data" / "annotations" / "val.json"
    content = json.loads(file.read_text())
    name = content["categories"][-1]["name"]
    content["annotations"] = [
        row for row in content["annotations"] if row["category_id"] != content["categories"][-1]["id"]
    ]
    file.write_text(json.dumps(content | {"categories": content["categories"][:-1]}))
    contents = write_report(run, tmp_path / "report.html", tmp_path / "data", "val")
    assert f"data val: classes of the detector that the data lacks: 1 ({name})" in caplog.text
    assert contents["evaluations"][0]["classes"][name]["CorLoc"] is None


def test_curves_lead_to_the_average_precision(report: Path) -> None:
    contents = contents_of(report)
    rows = zip(contents["curves"], contents["evaluations"][0]["classes"].values(), strict=True)
    for points, row in rows:
        assert (points is None) == (row["mAP_area"] is None)
        best, area, last = [], 0.0, 0.0
        for i, (recall, _) in enumerate(points or []):
            best.append(max(precision for _, precision in points[i:]))
            area += (recall - last) * best[-1]
            last = recall
        assert row["mAP_area"] is None or area == pytest.approx(row["mAP_area"], abs=1e-3)


def test_the_reliability_is_that_of_the_best_boxes(report: Path) -> None:
    contents = contents_of(report)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for image in contents["gallery"]["images"]:
        for label in range(len(contents["classes"])):
            scores = [box[4] for box in image["boxes"] if box[5] == label]
            if scores:
                bins.setdefault(min(int(max(scores) * 10), 9), []).append((max(scores), label in image["tags"]))
    expected = [
        [sum(score for score, _ in pairs) / len(pairs), sum(there for _, there in pairs) / len(pairs), len(pairs)]
        for _, pairs in sorted(bins.items())
    ]
    reliability = contents["reliability"]
    assert reliability["calibrated"] and len(reliability["rows"]) == 1 + len(contents["classes"])
    assert [row[2] for row in reliability["rows"][0]] == [row[2] for row in expected]
    for row, wanted in zip(reliability["rows"][0], expected, strict=True):
        assert row == pytest.approx(wanted, abs=2e-3)
    total = sum(row[2] for row in expected)
    by_hand = sum(number * abs(score - share) for score, share, number in expected) / total
    assert reliability["error"][0] == pytest.approx(by_hand, abs=2e-3)
    assert reliability["raw_error"] != pytest.approx(by_hand, abs=1e-4)


def test_a_curve_has_its_hits_and_its_end() -> None:
    points = curve([False, True, False, True, False, False], 4)
    assert points == [[0.25, 0.5], [0.5, 0.5], [0.5, round(2 / 6, 4)]]
    assert curve([], 4) == []
    long = curve([True, False] * 900, 1000)
    assert len(long) <= module.POINTS
    assert (long[0], long[-1]) == ([0.001, 1.0], [0.9, 0.5])


def test_predictions_are_computed_once(run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postprocess, seen = Detector.postprocess_with_heatmaps, []
    monkeypatch.setattr(
        Detector, "postprocess_with_heatmaps", lambda self, images: seen.extend(images) or postprocess(self, images)
    )
    write_report(run, tmp_path / "report.html", data, "val")
    assert len(seen) == 5


def test_without_data_it_shows_what_the_run_folder_holds(
    run: Path, data: Path, tmp_path: Path, command: Command
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    bare = write_report(copy, tmp_path / "bare.html")
    assert (bare["evaluations"], bare["diagnoses"], bare["gallery"], bare["doctor"]) == ([], [], None, None)
    assert "Not evaluated yet" in bare["summary"][-1]
    assert command("evaluate", copy, data, "--split", "val") == 0
    assert command("diagnose", copy, data, "--split", "val") == 0
    assert command("report", copy, "--out", tmp_path / "full.html") == 0
    full = contents_of(tmp_path / "full.html")
    assert [row["data"] for row in full["evaluations"] + full["diagnoses"]] == ["hostile val"] * 2
    assert full["history"] == bare["history"] != {}
    for name in ("metrics-x.json", "diagnosis-x.json"):
        for damaged in (b"{", b"[]", b"\xff", b'{"data": NaN}', b'{"data": "x", "classes": {}}', b"[" * 10**5):
            (copy / name).write_bytes(damaged)
            with pytest.raises(BoxlessError, match=rf"{name}: damaged"):
                write_report(copy, tmp_path / "damaged.html")
        (copy / name).unlink()
    assert not (tmp_path / "damaged.html").exists()


def test_a_damaged_history_is_named_and_may_be_deleted(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "history.jsonl").write_text("{")
    with pytest.raises(BoxlessError, match=r"history\.jsonl: damaged"):
        write_report(copy, tmp_path / "report.html")
    (copy / "history.jsonl").unlink()
    assert "" not in write_report(copy, tmp_path / "report.html")["history"]


def test_a_page_that_cannot_be_written_is_named_before_the_work(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match=r"report\.html: cannot be written"):
        write_report(run, tmp_path / "file" / "report.html", "NOWHERE")


def test_data_with_tags_only_is_reported_without_boxes(run: Path, data: Path, tmp_path: Path) -> None:
    images = sorted((data / "images").glob("train*.jpg"))[:4]
    rows = "".join(f"{image},{name}\n" for image, name in zip(images, ["gift", "ladybird"] * 2, strict=True))
    (tmp_path / "tags.csv").write_text(f"image,tags\n{rows}")
    contents = write_report(run, tmp_path / "report.html", tmp_path / "tags.csv")
    assert (contents["diagnoses"], contents["curves"]) == ([], None)
    assert list(contents["gallery"]["orders"]) == ["confident", "uncertain"]
    assert any("has tags only, so boxes were not evaluated" in line for line in contents["summary"])
    assert {image["ground_truth"] for image in contents["gallery"]["images"]} == {None}


def test_the_summary_has_the_most_important_results() -> None:
    scores = {
        "data": "zoo val",
        "images": 8,
        "CorLoc": 0.549,
        "classification_mAP": 0.956,
        "classes": {"cat": {"mAP_area": 0.6}, "cow": {"mAP_area": 0.125}, "emu": {"mAP_area": None}},
    }
    outcomes = {"correct": 3, "part": 6, "group": 1}
    rates = {f"{name}_rate": number / 10 for name, number in outcomes.items()}
    doctor = {"classes": {"cat": {"verdict": "weak"}, "cow": {"verdict": "fine"}, "emu": {"verdict": "fine"}}}
    contents = {
        "manifest": {"supervision": "tags"},
        "evaluations": [scores],
        "diagnoses": [{"detections": 10, "outcomes": outcomes, **rates}],
        "doctor": doctor,
    }
    lines = module.summary(contents)
    assert module.summary(contents | {"manifest": {"supervision": "boxes"}}) == [
        "Trained with ground-truth boxes: a fully supervised upper bound, not a result from tags.",
        *lines,
    ]
    mixed = "tags on 9 images, boxes on 2 of them"
    assert module.summary(contents | {"manifest": {"supervision": mixed}}) == [f"Trained on {mixed}.", *lines]
    for number, told in (
        (3, ["zoo val: trained on 3 of the 8 images, whose scores are higher than those of new images."]),
        (0, []),
    ):
        evaluations = [scores | {"training_images": number}]
        assert module.summary(contents | {"evaluations": evaluations}) == [*told, *lines]
    labels = {"cat": {"kept": 3, "all": 9, "agreement": 0.1}, "cow": {"kept": 0, "all": 0, "agreement": None}}
    warned = module.summary(contents | {"manifest": {"supervision": "tags", "pseudo_labels": labels}})
    assert (
        warned[1:] == lines
        and warned[0].startswith("Boxes of these classes may be wrong")
        and "cat (0.10)" in warned[0]
    )
    assert lines == [
        "zoo val: in 55 % of the images of a class, its best box lies on an object.",
        "30 % of the 10 top-scored detections are correct; most frequent error: part (60 %).",
        "Boxes are best for cat (AP 0.60) and worst for cow (AP 0.12).",
        "Image classification has a mAP of 0.96.",
        "Tags of the classes, as boxless doctor rates them: 2 fine, 1 weak.",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DATA", "DATA"], "not a run folder"),
        (["RUN", "DATA", "--split", "tset"], "tset"),
        (["RUN", "NOWHERE"], "NOWHERE"),
        (["RUN", "--split", "val"], "give the dataset too"),
    ],
)
def test_wrong_arguments_give_a_message(
    run: Path,
    data: Path,
    tmp_path: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    places = {"RUN": run, "DATA": data}
    assert command("report", *(places.get(word, word) for word in words), "--out", tmp_path / "report.html") == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "report.html").exists()
