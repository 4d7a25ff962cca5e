"""Labels of images of one name in several folders: each box comes to its own image or to none."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.datasets.label_lines import image_name
from boxless.datasets.labels import with_labels
from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.structures import Detections

SPLITS = ("train", "val")
X = {"train": 10, "val": 50}
"""Left and upper side of the boxes of each split."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of 100 x 80 pixels and the same names in each split; no two are alike."""
    for split in SPLITS:
        for number in range(3):
            file = tmp_path / "data" / split / "cat" / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (100, 80), (80 * number, X[split], 0)).save(file)
    return tmp_path / "data"


def given(root: Path, split: str, labels: Path) -> list[list[float]]:
    """The left and upper sides of the boxes that the images of a split are given."""
    found = with_labels(load_dataset(root, split), labels, root)
    return [[] if one.given is None else one.given.right.boxes[:, 0].tolist() for one in found.samples]


def yolo(top: Path, root: Path) -> Path:
    for split in SPLITS:
        for number in range(3):
            file = top / "labels" / split / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"0 {X[split] / 100 + 0.1} 0.5 0.2 0.2\n")
    (top / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    return top


def label_studio(top: Path, root: Path) -> Path:
    def task(split: str, number: int) -> dict[str, Any]:
        value = {"x": X[split], "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["cat"]}
        result = {"type": "rectanglelabels", "value": value, "original_width": 100, "original_height": 80}
        image = f"/data/local-files/?d=set/{split}/cat/{number}.jpg"
        return {"data": {"image": image}, "annotations": [{"result": [result]}]}

    # Those of the other split come first.
    tasks = [task(split, number) for split in reversed(SPLITS) for number in range(3)]
    (top / "tasks.json").write_text(json.dumps(tasks))
    return top / "tasks.json"


def voc(top: Path, root: Path) -> Path:
    for split in SPLITS:
        (top / split / "cat").mkdir(parents=True)
        for number in range(3):
            sides = f"<xmin>{X[split] + 1}</xmin><ymin>11</ymin><xmax>{X[split] + 20}</xmax><ymax>30</ymax>"
            box = f"<object><name>cat</name><bndbox>{sides}</bndbox></object>"
            size = "<size><width>100</width><height>80</height></size>"
            (top / split / "cat" / f"{number}.xml").write_text(f"<annotation>{size}{box}</annotation>")
    return top


@pytest.mark.parametrize("write", [yolo, label_studio, voc])
def test_labels_of_another_split_are_not_those_of_images_of_its_names(write: Any, root: Path, tmp_path: Path):
    (tmp_path / "labels").mkdir()
    labels = write(tmp_path / "labels", root)
    if write is yolo:
        # As the layout has them: images/train/0.jpg, and tags of its own.
        for split in SPLITS:
            shutil.move(root / split / "cat", root / "images" / split)
            shutil.rmtree(root / split)
        shutil.copytree(labels / "labels", root / "labels")
        (root / "data.yaml").write_text("names: [cat]\ntrain: images/train\nval: images/val\n")
    for split in SPLITS:
        assert given(root, split, labels) == [[pytest.approx(X[split])]] * 3


def coco(file: Path, images: list[Path]) -> Path:
    rows = [{"id": n, "file_name": str(image), "width": 100, "height": 80} for n, image in enumerate(images)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, 2, 30, 40]} for n in range(len(images))]
    file.write_text(json.dumps({"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}))
    return file


def test_a_path_of_another_image_is_none_of_the_data(root: Path, tmp_path: Path):
    own = [root / "train" / "cat" / f"{number}.jpg" for number in range(3)]
    others = [root / "val" / "cat" / f"{number}.jpg" for number in range(3)]
    found = with_labels(load_dataset(root, "train"), coco(tmp_path / "one.json", own), root)
    assert [one.given is not None for one in found.samples] == [True] * 3
    with pytest.raises(BoxlessError, match="3 of 3 images of the labels that are not among those to train on"):
        with_labels(load_dataset(root, "train"), coco(tmp_path / "two.json", others), root)
    # The path of a copy is, as it is the same image.
    shutil.copytree(root, tmp_path / "copy")
    copies = [tmp_path / "copy" / image.relative_to(root) for image in own]
    found = with_labels(load_dataset(root, "train"), coco(tmp_path / "three.json", copies), root)
    assert [one.given is not None for one in found.samples] == [True] * 3


@pytest.mark.parametrize("form", ["yolo", "voc", "coco", "csv"])
def test_what_predict_wrote_of_images_of_one_name_comes_back_to_each(form: str, root: Path, tmp_path: Path):
    def detections(x: int) -> Detections:
        box, one = np.array([[x, x, x + 20, x + 20]], np.float32), np.array([0.9], np.float32)
        return Detections(box, one, np.array([0]), ("cat",), (100, 80), one)

    (tmp_path / "found").mkdir()
    pairs = [(root / split / "cat" / f"{n}.jpg", detections(X[split] + n)) for split in SPLITS for n in range(3)]
    written = FORMATS.find(form).write(tmp_path / "found", pairs, ("cat",), "model")
    for split in SPLITS:
        assert given(root, split, written) == [[pytest.approx(X[split] + n, abs=1e-3)] for n in range(3)]


def test_a_name_that_is_not_utf_8_comes_back(tmp_path: Path):
    names = [os.fsdecode(name) for name in (b"caf\xe9.jpg", b"b.jpg", b"c.jpg")]
    (tmp_path / "data" / "cat").mkdir(parents=True)
    for number, name in enumerate(names):
        try:
            with (tmp_path / "data" / "cat" / name).open("wb") as file:
                Image.new("RGB", (100, 80), (80 * number, 0, 0)).save(file, "JPEG")
        except OSError:
            pytest.skip("this file system takes names in UTF-8 only")
    dataset = load_dataset(tmp_path / "data")
    boxes = [{"class": "cat", "xyxy": [1, 2, 30, 40], "state": "right"}]
    lines = [{"image": image_name(tmp_path / "data", one.path), "boxes": boxes} for one in dataset.samples]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = with_labels(dataset, tmp_path / "labels.jsonl", tmp_path / "data")
    assert [one.given is not None for one in found.samples] == [True] * 3
