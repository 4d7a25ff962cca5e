"""What is exported is read back by `load_dataset`, wherever the images lie and whatever they are called."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.export import FORMATS
from boxless.result_record import record_results
from boxless.structures import Dataset, Detections

CLASSES = ("no", "sheep & <lamb>", "Kuh, groß")
NAMES = ("photos/one.jpg", "photos/more/one.jpg", "photos/none.png", os.fsdecode(b"photos/caf\xe9 %20.jpg"))
SIZES = ((500, 333), (400, 300), (32, 16), (100, 80))
NOT_IN_XML = "photos/bell \x07.jpg"


def predictions(root: Path, names: tuple[str, ...]) -> list[tuple[Path, Detections]]:
    """Images with 3, 4, 0 and 2 boxes with integer corners."""
    rng = np.random.default_rng(0)
    found = []
    for name, size, count in zip(names, SIZES, (3, 4, 0, 2), strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / name)
        corners = rng.integers(0, np.array(size) - 9, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(2, 9, (count, 2))], axis=1).astype(np.float32)
        scores = np.sort(rng.uniform(0, 1, count))[::-1].astype(np.float32)
        labels = rng.integers(0, 3, count)
        found.append((root / name, Detections(boxes, scores, labels, CLASSES, size, np.full(3, 0.5, np.float32))))
    return found


def assert_same(dataset: Dataset, expected: list[tuple[Path, Detections]], atol: float) -> None:
    by_path = {sample.path.resolve(): sample for sample in dataset.samples}
    assert list(by_path) == [path.resolve() for path, _ in expected]
    for sample, (_, found) in zip(by_path.values(), expected, strict=True):
        assert sample.annotations is not None
        np.testing.assert_allclose(sample.annotations.boxes, found.boxes, atol=atol)
        assert [dataset.classes[label] for label in sample.annotations.labels] == found.names
        assert {dataset.classes[tag] for tag in sample.tags} == set(found.names)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("coco", "predictions.json"),
        ("voc", "."),
        ("yolo", "data.yaml"),
        ("csv", "predictions.csv"),
        ("label-studio", "tasks.json"),
    ],
)
def test_predictions_are_read_back(tmp_path, monkeypatch, name, file, relative, whole):
    monkeypatch.chdir(tmp_path)
    made = predictions(Path() if relative else tmp_path, NAMES)
    FORMATS[name].write(tmp_path / "out", made, CLASSES, "model")
    # `boxless predict` writes overlays beside it, and records both.
    Image.new("RGB", (32, 32)).save(tmp_path / "out" / "overview.jpg")
    record_results(tmp_path / "out", ["overview.jpg", *FORMATS[name].files])
    monkeypatch.chdir("/")
    dataset = load_dataset(tmp_path / "out" if whole else tmp_path / "out" / file)
    monkeypatch.chdir(tmp_path)
    if name == "csv":  # An image without detections has no row.
        made = [one for one in made if len(one[1])]
    elif name == "voc":
        made = sorted(
            made, key=lambda one: {"photos/more/one.jpg": "more-one"}.get(os.path.relpath(one[0]), one[0].stem)
        )
    assert_same(dataset, made, 1e-3 if name in ("yolo", "label-studio") else 1e-4)


def test_a_name_that_xml_cannot_hold_is_read_back_from_voc(tmp_path):
    made = predictions(tmp_path, (*NAMES[:3], NOT_IN_XML))
    FORMATS["voc"].write(tmp_path / "out", made, ("n\x07", *CLASSES[1:]), "model")
    dataset = load_dataset(tmp_path / "out")
    assert tmp_path / NOT_IN_XML in [sample.path for sample in dataset.samples]
    assert "n\x07" in dataset.classes


def test_label_studio_gets_the_bytes_of_a_name(tmp_path):
    made = predictions(tmp_path, NAMES)
    path = FORMATS["label-studio"].write(tmp_path / "out", made, CLASSES, "model")
    address = json.loads(path.read_text())[3]["data"]["image"]
    assert address.endswith("/photos/caf%E9%20%2520.jpg")


def test_csv_and_lists_hold_the_bytes_of_a_name(tmp_path):
    made = predictions(tmp_path, NAMES)
    for name in ("csv", "yolo"):
        FORMATS[name].write(tmp_path / "out", made, CLASSES, "model")
    for file in ("predictions.csv", "images.txt"):
        assert b"/photos/caf\xe9 %20.jpg" in (tmp_path / "out" / file).read_bytes()


def test_tasks_are_read_back_where_neither_they_nor_the_current_folder_are_near_the_images(tmp_path, monkeypatch):
    made = predictions(tmp_path / "a" / "b" / "c" / "d" / "e" / "f", ("one.jpg", "two.jpg", "none.jpg", "three.jpg"))
    monkeypatch.chdir(made[0][0].parent)
    file = FORMATS["label-studio"].write(
        tmp_path / "out", [(Path(path.name), found) for path, found in made], CLASSES, "model"
    )
    monkeypatch.chdir("/")
    assert_same(load_dataset(file), made, 1e-3)
