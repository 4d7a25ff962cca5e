"""Exports are read by the tools they are meant for; tools that are not installed are skipped."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.export import FORMATS
from boxless.structures import Detections

CLASSES = ("cat", "sheep & <lamb>", "Kuh, groß")
NAMES = ("photos/one.jpg", "photos/more/one.jpg", "photos/none.png")
SIZES = ((500, 333), (4000, 3000), (32, 16))


def images() -> list[tuple[Path, Detections]]:
    """Three images with 12, 12 and no boxes, at least two pixels wide and high."""
    rng = np.random.default_rng(0)
    found = []
    for name, size, count in zip(NAMES, SIZES, (12, 12, 0), strict=True):
        corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * (np.array(size) - 2)
        boxes = corners.reshape(-1, 4) + np.array([0, 0, 2, 2])
        labels, scores = rng.integers(0, 3, count), np.sort(rng.uniform(0, 1, count))[::-1]
        values = boxes.astype(np.float32), scores.astype(np.float32), labels.astype(np.int64)
        found.append((Path(name), Detections(*values, CLASSES, size, np.full(3, 0.5, np.float32))))
    return found


def assert_same(boxes: list[list[float]], labels: list[str], scores: list[float] | None, found: Detections) -> None:
    """Xyxy boxes in pixels to half a pixel, class names and scores, in the order of `found`."""
    np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), found.boxes, atol=0.5)
    assert labels == found.names
    if scores is not None:
        assert scores == pytest.approx(found.scores.tolist(), abs=1e-5)


def test_pycocotools_reads_coco(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    path = FORMATS["coco"].write(tmp_path, images(), CLASSES, "first")
    coco = coco_api.COCO(str(path))
    for (name, found), image in zip(images(), coco.imgs.values(), strict=True):
        assert (image["file_name"], image["width"], image["height"]) == (name.as_posix(), *found.size)
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
        labels = [coco.cats[row["category_id"]]["name"] for row in rows]
        assert_same(boxes, labels, [row["score"] for row in rows], found)


def test_datumaro_reads_coco_as_cvat_does(tmp_path: Path) -> None:
    """Datumaro is what CVAT imports "COCO 1.0" with; CVAT finds a frame by the item's id, its name without suffix."""
    datumaro = pytest.importorskip("datumaro")
    (tmp_path / "images").mkdir()  # CVAT's own build of it does not ask for one.
    path = FORMATS["coco"].write(tmp_path / "annotations", images(), CLASSES, "first")
    data = datumaro.Dataset.import_from(str(path), "coco_instances")
    names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
    items = {item.id: item for item in data}
    assert items.keys() == {name.rsplit(".")[0] for name in NAMES}
    for name, found in images():
        rows = sorted(items[name.with_suffix("").as_posix()].annotations, key=lambda row: row.id)
        assert all(row.type == datumaro.AnnotationType.bbox for row in rows)
        labels = [names[row.label] for row in rows]
        assert_same([row.points for row in rows], labels, [row.attributes["score"] for row in rows], found)


def test_label_studio_accepts_the_tasks(tmp_path: Path) -> None:
    """The SDK validates the tasks; accepted unchanged, the converter exports the same boxes."""
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    converter = pytest.importorskip("label_studio_sdk.converter")
    path = FORMATS["label-studio"].write(tmp_path / "in", images(), CLASSES, "first")
    config, tasks = (tmp_path / "in/labeling-config.xml").read_text(), json.loads(path.read_text())
    label_config = interface.LabelInterface(config)
    label_config.validate()
    for task in tasks:
        assert label_config.validate_task({"data": task["data"]})
        assert label_config.validate_prediction(task["predictions"][0], return_errors=True) == []
    accepted = [
        {
            "id": number,
            "data": task["data"],
            "annotations": [{"id": number, "result": task["predictions"][0]["result"]}],
        }
        for number, task in enumerate(tasks, 1)
    ]
    (tmp_path / "accepted.json").write_text(json.dumps(accepted))
    exporter = converter.Converter(config, str(tmp_path), download_resources=False)
    exporter.convert_to_coco(str(tmp_path / "accepted.json"), str(tmp_path / "out"), is_dir=False)
    coco = json.loads((tmp_path / "out/result.json").read_text())
    names = {row["id"]: row["name"] for row in coco["categories"]}
    for number, (_, found) in enumerate(images()[:2]):
        rows = [row for row in coco["annotations"] if row["image_id"] == coco["images"][number]["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
        assert_same(boxes, [names[row["category_id"]] for row in rows], None, found)


def test_supervision_reads_voc_and_yolo(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    image = pytest.importorskip("PIL.Image")
    shots = tmp_path / "images"
    shots.mkdir()
    found = [(shots / f"{number}.png", found) for number, (_, found) in enumerate(images())]
    for path, detections in found:
        image.new("RGB", detections.size).save(path)
    voc = FORMATS["voc"].write(tmp_path, found, CLASSES, "first")
    yolo = FORMATS["yolo"].write(tmp_path, found, CLASSES, "first")
    sets = [
        (supervision.DetectionDataset.from_pascal_voc(str(shots), str(voc)), 0.506),
        (supervision.DetectionDataset.from_yolo(str(shots), str(tmp_path / "labels"), str(yolo)), 0.02),
    ]
    for data, far in sets:
        for path, _, back in data:
            wanted = dict(found)[Path(path)]
            np.testing.assert_allclose(back.xyxy.reshape(-1, 4), wanted.boxes, atol=far)
            assert [data.classes[label] for label in back.class_id] == wanted.names


def test_x_anylabeling_takes_coco_and_gives_it_back(tmp_path: Path) -> None:
    """Its menus `Upload` and `Export`, "COCO Detection", do no more; it finds images by name, beside their labels."""
    module = pytest.importorskip("anylabeling.views.labeling.label_converter")
    photos, given = tmp_path / "photos", [images()[0], images()[2]]
    photos.mkdir()
    for path, found in given:
        Image.new("RGB", found.size).save(photos / path.name)
    path = FORMATS["coco"].write(tmp_path, given, CLASSES, "first")
    module.LabelConverter().coco_to_custom(str(path), str(photos), "rectangle")
    for image, found in given:
        shown = json.loads((photos / image.name).with_suffix(".json").read_text(encoding="utf-8"))
        assert (shown["imagePath"], shown["imageWidth"], shown["imageHeight"]) == (image.name, *found.size)
        boxes = [[*shape["points"][0], *shape["points"][2]] for shape in shown["shapes"]]
        assert_same(boxes, [shape["label"] for shape in shown["shapes"]], None, found)
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(CLASSES), encoding="utf-8")
    files = [str(photos / image.name) for image, _ in given]
    module.LabelConverter(str(names)).custom_to_coco(files, str(photos), str(photos), "rectangle")
    data = load_dataset(photos / "coco_detection.json")
    for sample, (_, found) in zip(data.samples, given, strict=True):
        assert sample.annotations is not None
        labels = [data.classes[label] for label in sample.annotations.labels]
        assert_same(sample.annotations.boxes.tolist(), labels, None, found)
