"""What a person said of images, laid over a dataset: JSON Lines of a review, COCO, Label Studio."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.datasets.labels import with_labels
from boxless.datasets.lookup import RESPELLED
from boxless.errors import BoxlessError
from boxless.structures import Annotations, Dataset, Sample

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A table of four images of 100 x 50 pixels."""
    rows = {"photos/a.jpg": "cat", "photos/b.jpg": "cat;dog", "more/a.jpg": "?dog", "more/c.jpg": "owl"}
    for name in rows:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 50)).save(tmp_path / name)
    (tmp_path / "tags.csv").write_text("image,tags\n" + "".join(f"{name},{tags}\n" for name, tags in rows.items()))
    return tmp_path


def labelled(root: Path, file: str | Path, *lines: dict[str, Any]) -> Dataset:
    """The table with labels; `lines` are written to the file."""
    if lines:
        (root / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return with_labels(load_dataset(root / "tags.csv"), root / file, root / "tags.csv")


def by_id(dataset: Dataset) -> dict[str, Sample]:
    return {sample.id: sample for sample in dataset.samples}


def names(dataset: Dataset, labels: frozenset[int]) -> set[str]:
    return {dataset.classes[label] for label in labels}


def rows(own: Annotations) -> list[tuple[str, list[float]]]:
    assert not own.ignore.any()
    return [(CLASSES[label], box) for label, box in zip(own.labels.tolist(), own.boxes.tolist(), strict=True)]


def box(name: str, *xyxy: float, state: str = "right") -> dict[str, Any]:
    return {"class": name, "xyxy": xyxy, "state": state}


# JSON Lines.


def test_what_was_said_of_an_image_overrides_its_tags(root: Path):
    found = labelled(root, "labels.jsonl", {"image": "photos/b.jpg", "tags": {"cat": False, "dog": None, "owl": True}})
    own = by_id(found)["photos/b.jpg"]
    assert (names(found, own.tags), names(found, own.unsure)) == ({"owl"}, {"dog"})
    assert own.given is None
    np.testing.assert_array_equal(found.image_labels()[1], [0, np.nan, 1])
    # The others are as they were.
    assert found.samples[0] == load_dataset(root / "tags.csv").samples[0]


def test_an_unknown_tag_becomes_known(root: Path):
    for answer, tags in ((True, {"dog"}), (False, set())):
        found = labelled(root, "labels.jsonl", {"image": "more/a.jpg", "tags": {"dog": answer}})
        own = by_id(found)["more/a.jpg"]
        assert (names(found, own.tags), own.unsure) == (tags, frozenset())


def test_boxes_are_given_for_training_and_say_that_their_class_is_there(root: Path):
    boxes = [box("owl", 1, 2, 30, 40), box("owl", 50, 0, 100, 50), box("dog", 5, 5, 20, 20)]
    line = {"image": "photos/a.jpg", "boxes": [*boxes, box("cat", 0, 0, 9, 9, state="wrong")], "complete": ["owl"]}
    found = labelled(root, "labels.jsonl", line)
    own = by_id(found)["photos/a.jpg"]
    assert names(found, own.tags) == {"cat", "dog", "owl"} and own.annotations is None and own.given is not None
    assert rows(own.given.right) == [(one["class"], list(one["xyxy"])) for one in boxes]
    assert rows(own.given.wrong) == [("cat", [0, 0, 9, 9])]
    assert names(found, own.given.complete) == {"owl"} and names(found, own.given.labels) == {"dog", "owl"}
    assert found.summary.endswith("labels of 1 image with 3 right and 1 wrong boxes")


def test_a_later_line_replaces_an_earlier_one_whole(root: Path):
    first = {"image": "photos/a.jpg", "tags": {"owl": True}, "boxes": [box("cat", 1, 1, 9, 9)]}
    found = labelled(root, "labels.jsonl", first, {"image": "photos/a.jpg", "tags": {"dog": True}})
    own = by_id(found)["photos/a.jpg"]
    assert names(found, own.tags) == {"cat", "dog"} and own.given is None


def test_boxes_beyond_the_image_are_clipped_and_those_outside_leave_their_class_incomplete(root: Path):
    boxes = [box("cat", 80, 40, 130, 60), box("dog", 10, 10, 20, 20), box("dog", 200, 10, 220, 20)]
    found = labelled(root, "labels.jsonl", {"image": "photos/b.jpg", "boxes": boxes, "complete": ["cat", "dog"]})
    given = by_id(found)["photos/b.jpg"].given
    assert given is not None and names(found, given.complete) == {"cat"}
    assert rows(given.right) == [("cat", [80, 40, 100, 50]), ("dog", [10, 10, 20, 20])]
    assert found.warnings == (
        "boxes that reach outside the image, clipped: 1 (photos/b.jpg)",
        "boxes without area inside the image, dropped (their tags stay): 1 (photos/b.jpg)",
    )


@pytest.mark.parametrize(
    "name", ["photos/a.jpg", "photos/A.JPG", "/elsewhere/photos/a.jpg", "/data/local-files/?d=photos/a.jpg"]
)
def test_images_are_found_by_their_names(root: Path, name: str):
    found = labelled(root, "labels.jsonl", {"image": name, "tags": {"owl": True}})
    assert names(found, found.samples[0].tags) == {"cat", "owl"}
    assert (f"{RESPELLED}: 1 (photos/A.JPG)" in found.warnings) == (name == "photos/A.JPG")


def test_a_name_that_fits_several_images_is_none_of_them(root: Path):
    lines = [{"image": name, "tags": {"owl": True}} for name in ("a.jpg", "c.jpg", "z.jpg")]
    found = labelled(root, "labels.jsonl", *lines)
    assert [sample.id for sample in found.samples if "owl" in names(found, sample.tags)] == ["more/c.jpg"]
    assert found.warnings == ("images of the labels that are not among those to train on, left out: 2 (a.jpg, z.jpg)",)


def test_what_is_not_used_is_counted_in_one_line(root: Path):
    said = {"counts": {"cat": 3}, "points": [{"class": "cat", "xy": [4, 5]}], "tags": {"yak": True, "owl": True}}
    lines = [{"image": name, **said} for name in ("photos/a.jpg", "photos/b.jpg")]
    found = labelled(root, "labels.jsonl", *lines)
    assert set(found.warnings) == {
        "images with counts or points, which training does not use: 2 (photos/a.jpg, photos/b.jpg)",
        "classes of the labels that are not among those to train on, left out: 2 (yak)",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "photos/a.jpg", "tags": {"yak": true}}\n', "says nothing of the images and classes of tags"),
        ('{"image": "x.jpg", "tags": {"cat": true}}\n', "says nothing of the images and classes of tags\n  images of"),
        ('{"image": "photos/a.jpg", "tags": {"cat": "perhaps"}}\n', "line 1: tags.cat"),
        ('{"image": "photos/a.jpg"}\n\n{"images": 3}\n', "line 3: image: Field required"),
        ("[]\n", "line 1"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(root: Path, text: str, message: str):
    (root / "labels.jsonl").write_text(text)
    with pytest.raises(BoxlessError) as raised:
        labelled(root, "labels.jsonl")
    assert message in str(raised.value) and str(root / "labels.jsonl") in str(raised.value)


def test_other_files_are_refused(root: Path):
    for name, message in (
        ("tags.csv", "no labels: give the .jsonl of boxless review, a COCO .json or one of Label Studio"),
        ("photos", "no labels"),
        ("none.json", "there is no such file"),
        ("none.jsonl", "cannot be read"),
    ):
        with pytest.raises(BoxlessError, match=message):
            labelled(root, name)


# COCO and Label Studio.


def coco(root: Path, *annotations: tuple[int, str, list[float]], crowd: bool = False) -> Path:
    """A file of three images, one of which the data set does not have, and four categories."""
    categories = [{"id": number, "name": name} for number, name in enumerate((*CLASSES, "yak"), 1)]
    images = [{"id": number, "file_name": name, "width": 200, "height": 100} for number, name in IMAGES.items()]
    items = [
        {"id": row, "image_id": image, "category_id": (*CLASSES, "yak").index(name) + 1, "bbox": bbox, "iscrowd": 0}
        for row, (image, name, bbox) in enumerate(annotations)
    ]
    if crowd:
        items[-1]["iscrowd"] = 1
    # In another folder than the images.
    (root / "review").mkdir()
    file = root / "review" / "corrected.json"
    file.write_text(json.dumps({"images": images, "annotations": items, "categories": categories}))
    return file


IMAGES = {1: "photos/a.jpg", 2: "photos/b.jpg", 3: "z.jpg"}


def test_every_image_of_a_coco_file_is_reviewed(root: Path):
    file = coco(root, (1, "owl", [2, 4, 20, 40]), (1, "owl", [100, 0, 100, 100]), (2, "cat", [0, 0, 200, 100]))
    found = labelled(root, file)
    first, second = (by_id(found)[name] for name in ("photos/a.jpg", "photos/b.jpg"))
    assert first.given is not None and second.given is not None
    # The file states twice the size of the image.
    assert rows(first.given.right) == [("owl", [1, 2, 11, 22]), ("owl", [50, 0, 100, 50])]
    assert rows(second.given.right) == [("cat", [0, 0, 100, 50])]
    assert names(found, first.given.complete) == {"owl"} and names(found, second.given.complete) == {"cat"}
    assert names(found, first.tags) == {"cat", "owl"} and names(found, second.tags) == {"cat", "dog"}
    assert len(first.given.wrong.labels) == 0
    kept = "tags of reviewed images without a box of their class in the labels, kept: 2 (cat, dog)"
    missing = "images of the labels that are not among those to train on, left out: 1 (z.jpg)"
    assert {kept, missing} <= set(found.warnings)


def test_a_crowd_leaves_its_class_incomplete(root: Path):
    file = coco(root, (1, "cat", [0, 0, 20, 40]), (1, "owl", [0, 0, 40, 40]), (1, "owl", [90, 0, 99, 60]), crowd=True)
    given = by_id(labelled(root, file))["photos/a.jpg"].given
    assert given is not None and rows(given.right) == [("cat", [0, 0, 10, 20]), ("owl", [0, 0, 20, 20])]
    assert {CLASSES[label] for label in given.complete} == {"cat"}


def task(image: str, *results: dict[str, Any], key: str = "annotations", **more: Any) -> dict[str, Any]:
    return {"data": {"image": f"/data/local-files/?d={image}"}, key: [{"result": list(results), **more}]}


def rectangle(name: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [name]}
    return {"type": "rectanglelabels", "original_width": 100, "original_height": 50, "value": value}


def test_of_label_studio_only_what_a_person_annotated_is_taken(root: Path):
    choice = {"type": "choices", "value": {"choices": ["dog"]}}
    tasks = [
        task("photos/a.jpg", rectangle("cat", 10, 20, 30, 40), choice),
        task("photos/b.jpg", rectangle("cat", 0, 0, 50, 50), key="predictions"),
        task("more/c.jpg", rectangle("owl", 0, 0, 50, 50), was_cancelled=True),
    ]
    (root / "tasks.json").write_text(json.dumps(tasks))
    found = labelled(root, "tasks.json")
    own = by_id(found)["photos/a.jpg"]
    assert own.given is not None and rows(own.given.right) == [("cat", [10, 10, 40, 30])]
    assert names(found, own.tags) == {"cat", "dog"} and names(found, own.given.complete) == {"cat"}
    assert all(sample.given is None for sample in found.samples if sample.id != "photos/a.jpg")
    assert "tasks without an annotation, left out as their tags are unknown: 2 (task 2, task 3)" in found.warnings


# Datasets with given boxes.


def test_classes_that_are_left_out_take_their_given_boxes_along(root: Path):
    boxes = [box("owl", 1, 2, 30, 40), box("dog", 5, 5, 20, 20), box("cat", 0, 0, 9, 9, state="wrong")]
    line = {"image": "photos/a.jpg", "boxes": boxes, "complete": ["owl", "dog"]}
    found = labelled(root, "labels.jsonl", line).with_classes(["owl", "cat"])
    given = by_id(found)["photos/a.jpg"].given
    assert given is not None and given.complete == given.labels == {0}
    assert (given.right.boxes.tolist(), given.right.labels.tolist()) == ([[1, 2, 30, 40]], [0])
    assert (given.wrong.boxes.tolist(), given.wrong.labels.tolist()) == ([[0, 0, 9, 9]], [1])


def test_given_boxes_are_not_annotations(root: Path):
    found = labelled(root, "labels.jsonl", {"image": "photos/a.jpg", "boxes": [box("cat", 1, 2, 30, 40)]})
    assert not found.has_boxes
    assert found.without_annotations() == found
    assert all(sample.given is None for sample in found.tags_only().samples)
