import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.structures import Detections

CLASSES = ("cat", "sheep & <lamb>", "Kuh, groß")


def detected(rows: list[tuple[int, float, tuple[float, float, float, float]]], size: tuple[int, int]) -> Detections:
    return Detections(
        boxes=np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows], np.float32),
        labels=np.array([label for label, _, _ in rows], np.int64),
        classes=CLASSES,
        size=size,
        image_scores=np.array([0.25, 0.75, 0.5], np.float32),
    )


A = [(2, 0.9, (0.0, 0.0, 100.0, 80.0)), (0, 1.25e-7, (10.26, 20.74, 30.5, 40.125))]
B = [(1, 0.5, (99.2, 3.1, 99.4, 60.0))]
PREDICTIONS = [
    (Path("a/one.jpg"), detected(A, (100, 80))),
    (Path("b/one.jpg"), detected(B, (100, 60))),
    (Path("a/none.png"), detected([], (32, 16))),
]


def test_a_coco_api_reads_the_same_boxes(tmp_path: Path) -> None:
    from faster_coco_eval import COCO

    path = FORMATS["coco"].write(tmp_path, iter(PREDICTIONS), CLASSES, "first")
    assert path == tmp_path / "predictions.json"
    coco = COCO(str(path))
    assert coco.dataset["info"] == {"description": "first"}
    assert [coco.cats[i]["name"] for i in (1, 2, 3)] == list(CLASSES)
    by_name = {image["file_name"]: image for image in coco.imgs.values()}
    assert list(by_name) == ["a/one.jpg", "b/one.jpg", "a/none.png"]
    assert (by_name["b/one.jpg"]["width"], by_name["b/one.jpg"]["height"]) == (100, 60)
    for (_, detections), image in zip(PREDICTIONS, by_name.values(), strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert [a["category_id"] - 1 for a in annotations] == detections.labels.tolist()
        assert [a["score"] for a in annotations] == pytest.approx(detections.scores.tolist(), rel=1e-5)
        boxes = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, detections.boxes, atol=0.02)
        assert [a["area"] for a in annotations] == pytest.approx(
            [a["bbox"][2] * a["bbox"][3] for a in annotations], abs=0.01
        )
    assert sorted(coco.anns) == [1, 2, 3]
    assert all(a["iscrowd"] == 0 and a["segmentation"] == [] for a in coco.anns.values())


def test_coco_predictions_evaluate_perfectly_against_themselves(tmp_path: Path) -> None:
    from faster_coco_eval import COCO, COCOeval_faster

    path = FORMATS["coco"].write(tmp_path, PREDICTIONS[:2], CLASSES, "first")
    ground_truth = COCO(str(path))
    scores = COCOeval_faster(ground_truth, ground_truth.loadRes(json.loads(path.read_text())["annotations"]), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1)


def test_coco_without_any_image_is_valid(tmp_path: Path) -> None:
    content = json.loads(FORMATS["coco"].write(tmp_path, [], CLASSES, "first").read_text())
    assert content["images"] == [] and content["annotations"] == [] and len(content["categories"]) == 3


def test_voc_boxes_are_integer_one_based_inclusive_pixels(tmp_path: Path) -> None:
    folder = FORMATS["voc"].write(tmp_path, iter(PREDICTIONS), CLASSES, "first")
    assert sorted(file.name for file in folder.iterdir()) == ["b-one.xml", "none.xml", "one.xml"]
    root = ET.parse(folder / "one.xml").getroot()
    assert root.findtext("source/annotation") == "first"
    assert [root.findtext(f"size/{key}") for key in ("width", "height", "depth")] == ["100", "80", "3"]
    assert [node.findtext("name") for node in root.iter("object")] == ["Kuh, groß", "cat"]
    assert [float(node.findtext("score", "")) for node in root.iter("object")] == pytest.approx([0.9, 1.25e-7])
    assert [[int(side.text or "") for side in box] for box in root.iter("bndbox")] == [
        [1, 1, 100, 80],
        [11, 22, 30, 40],
    ]
    other = ET.parse(folder / "b-one.xml").getroot()
    assert (other.findtext("filename"), other.findtext("path")) == ("one.jpg", str(Path.cwd() / "b" / "one.jpg"))
    assert other.findtext("object/name") == "sheep & <lamb>"
    # 99.2 to 99.4 is in the hundredth and last column.
    assert [int(side.text or "") for side in next(other.iter("bndbox"))] == [100, 4, 100, 60]
    assert not list(ET.parse(folder / "none.xml").getroot().iter("object"))


def test_voc_boxes_are_exact_to_half_a_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 300, (50, 2, 2)), axis=1).reshape(-1, 4) + np.array([0, 0, 2, 2])
    folder = FORMATS["voc"].write(
        tmp_path, [(Path("x.jpg"), detected([(0, 0.5, tuple(b)) for b in boxes], (302, 302)))], CLASSES, "first"
    )
    back = np.array([[int(side.text or "") for side in box] for box in ET.parse(folder / "x.xml").iter("bndbox")])
    np.testing.assert_allclose(back - [1, 1, 0, 0], boxes, atol=0.506)


def test_yolo_lines_and_names(tmp_path: Path) -> None:
    path = FORMATS["yolo"].write(tmp_path, iter(PREDICTIONS), CLASSES, "first")
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {
        "names": dict(enumerate(CLASSES)),
        "train": "images.txt",
        "boxless_labels": "labels.txt",
    }
    images = [str(Path.cwd() / name) for name in ("a/one.jpg", "b/one.jpg", "a/none.png")]
    assert (tmp_path / "images.txt").read_text().splitlines() == images
    labels = ["labels/one.txt", "labels/b-one.txt", "labels/none.txt"]
    assert (tmp_path / "labels.txt").read_text().splitlines() == labels
    assert sorted(file.name for file in (tmp_path / "labels").iterdir()) == ["b-one.txt", "none.txt", "one.txt"]
    assert (tmp_path / "labels/none.txt").read_bytes() == b""
    lines = [line.split() for line in (tmp_path / "labels/one.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["2", "0"]
    assert [float(x) for x in lines[0][1:]] == pytest.approx([0.5, 0.5, 1, 1])
    cx, cy, w, h = np.array(lines[1][1:], float) * [100, 80, 100, 80]
    np.testing.assert_allclose([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], A[1][2], atol=0.02)


def test_csv_rows(tmp_path: Path) -> None:
    path = FORMATS["csv"].write(tmp_path, iter(PREDICTIONS), CLASSES, "first")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["class"]) for row in rows] == [
        ("a/one.jpg", "Kuh, groß"),
        ("a/one.jpg", "cat"),
        ("b/one.jpg", "sheep & <lamb>"),
    ]
    for row, (_, score, box) in zip(rows, A + B, strict=True):
        assert float(row["score"]) == pytest.approx(score, rel=1e-5)
        assert [float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")] == pytest.approx(box, abs=0.01)


@pytest.mark.parametrize(
    ("root", "served", "outside"),
    [
        (None, ["in/a.jpg", "in/b.jpg", "TMP/other/c.jpg", "TMP/other/d.jpg"], "2 images are not below TMP/here,"),
        (".", ["in/a.jpg", "in/b.jpg", "TMP/other/c.jpg", "TMP/other/d.jpg"], "2 images are not below TMP/here,"),
        ("..", ["here/in/a.jpg", "here/in/b.jpg", "other/c.jpg", "other/d.jpg"], ""),
        ("/", ["TMP/here/in/a.jpg", "TMP/here/in/b.jpg", "TMP/other/c.jpg", "TMP/other/d.jpg"], ""),
    ],
)
def test_label_studio_paths_start_in_its_document_root(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    root: str | None,
    served: list[str],
    outside: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", raising=False)
    if root is not None:
        monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", root)
    given = (Path("in/a.jpg"), tmp_path / "here/in/b.jpg", Path("../other/c.jpg"), tmp_path / "other/d.jpg")
    with caplog.at_level("WARNING", logger="boxless"):
        file = FORMATS["label-studio"].write(
            tmp_path, [(path, detected([], (7, 9))) for path in given], CLASSES, "first"
        )
    top = tmp_path.as_posix()
    addresses = [f"/data/local-files/?d={path.replace('TMP', top.lstrip('/'))}" for path in served]
    assert [task["data"]["image"] for task in json.loads(file.read_text())] == addresses
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(outside) and all(outside.replace("TMP", top) in message for message in messages)


def test_label_studio_boxes_are_in_percent_of_the_image(tmp_path: Path) -> None:
    images = [*PREDICTIONS, (Path("/über all/x?&.jpg"), detected([], (7, 9)))]
    path = FORMATS["label-studio"].write(tmp_path, iter(images), CLASSES, "first")
    one, other, none, odd = json.loads(path.read_text())
    assert one["data"] == {"image": "/data/local-files/?d=a/one.jpg", "path": str(Path.cwd() / "a/one.jpg")}
    assert odd["data"] == {"image": "/data/local-files/?d=%C3%BCber%20all/x%3F%26.jpg", "path": "/über all/x?&.jpg"}
    (prediction,) = one["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("first", 0.75)
    whole, small = prediction["result"]
    assert whole == {
        "id": "box-1",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 100,
        "original_height": 80,
        "image_rotation": 0,
        "value": {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["Kuh, groß"]},
        "score": 0.9,
    }
    # Of 100 x 80 pixels: 10.26 from the left, 20.74 from the top, 20.24 wide, 19.38 (to a hundredth) high.
    wanted = {"x": 10.26, "y": 25.925, "width": 20.24, "height": 24.225}
    assert {key: small["value"][key] for key in wanted} == pytest.approx(wanted, abs=0.02)
    assert small["score"] == pytest.approx(1.25e-7) and small["value"]["rectanglelabels"] == ["cat"]
    assert other["predictions"][0]["result"][0]["original_height"] == 60
    assert none["predictions"][0]["result"] == []


def test_the_labeling_config_matches_the_tasks(tmp_path: Path) -> None:
    path = FORMATS["label-studio"].write(tmp_path, iter(PREDICTIONS), CLASSES, "first")
    view = ET.parse(tmp_path / "labeling-config.xml").getroot()
    rectangles, image = view.find("RectangleLabels"), view.find("Image")
    assert rectangles is not None and image is not None
    region = json.loads(path.read_text())[0]["predictions"][0]["result"][0]
    assert (rectangles.get("name"), rectangles.get("toName")) == (region["from_name"], region["to_name"])
    assert (image.get("name"), image.get("value")) == (region["to_name"], "$image")
    assert [label.get("value") for label in rectangles] == list(CLASSES)


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_file_names_are_unique(tmp_path: Path, name: str) -> None:
    images = ["a/x.jpg", "b/x.jpg", "c/b/x.jpg", "a/x.png", "A/X.jpg", "x.jpg", "b-x.jpg"]
    FORMATS[name].write(tmp_path, [(Path(p), detected([], (9, 9))) for p in images], CLASSES, "first")
    stems = {file.stem.casefold() for file in tmp_path.glob("*/*")}
    assert len(stems) == len(images)
    assert {"x", "b-x", "b-x-2", "a-x"} <= stems


@pytest.mark.parametrize("name", list(FORMATS))
def test_images_are_consumed_one_by_one_and_an_interruption_leaves_no_partial_file(tmp_path: Path, name: str) -> None:
    taken = []

    def stream() -> Iterator[tuple[Path, Detections]]:
        for number in range(3):
            taken.append(number)
            yield Path(f"{number}.jpg"), detected(A, (100, 80))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FORMATS[name].write(tmp_path, stream(), CLASSES, "first")
    assert taken == [0, 1, 2]
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    whole = {"voc": "Annotations/{}.xml", "yolo": "labels/{}.txt"}
    assert left == ([whole[name].format(number) for number in range(3)] if name in whole else [])


@pytest.mark.parametrize("name", list(FORMATS))
def test_an_unwritable_folder_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match=re.escape(str(tmp_path / "file"))):
        FORMATS[name].write(tmp_path / "file", PREDICTIONS, CLASSES, "first")


def test_exports_visualize_and_the_demo_data_do_not_import_torch() -> None:
    code = "import sys, boxless.export, boxless.visualize, boxless.demo.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
