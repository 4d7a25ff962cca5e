"""Reviewed labels of images, laid over a dataset: JSON Lines of a review, and the formats of other tools."""

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
from boxless.structures import Annotations, Count, Dataset, Point, Sample

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
    assert found.summary.endswith("labels of 1 image with 3 right and 1 wrong box")


def test_a_later_line_replaces_an_earlier_one_whole(root: Path):
    first = {"image": "photos/a.jpg", "tags": {"owl": True}, "boxes": [box("cat", 1, 1, 9, 9)]}
    found = labelled(root, "labels.jsonl", first, {"image": "photos/a.jpg", "tags": {"dog": True}})
    own = by_id(found)["photos/a.jpg"]
    assert names(found, own.tags) == {"cat", "dog"} and own.given is None


def test_of_names_of_one_image_that_are_spelled_differently_the_last_line_counts(root: Path):
    lines = [("photos/a.jpg", "owl"), ("Photos/A.JPG", "dog"), ("photos/a.jpg", "owl")]
    found = labelled(root, "labels.jsonl", *({"image": name, "tags": {tag: True}} for name, tag in lines[:2]))
    assert names(found, by_id(found)["photos/a.jpg"].tags) == {"cat", "dog"}
    warning = "images whose name is spelled in several ways, of which the last line is taken: 1"
    assert f"{warning} (Photos/A.JPG)" in found.warnings
    found = labelled(root, "labels.jsonl", *({"image": name, "tags": {tag: True}} for name, tag in lines))
    assert names(found, by_id(found)["photos/a.jpg"].tags) == {"cat", "owl"}
    assert f"{warning} (photos/a.jpg)" in found.warnings


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
    lines = [{"image": name, "tags": {"owl": True}} for name in ("a.jpg", "c.jpg", "z.jpg", "photos/b.jpg")]
    found = labelled(root, "labels.jsonl", *lines)
    owls = [sample.id for sample in found.samples if "owl" in names(found, sample.tags)]
    assert owls == ["photos/b.jpg", "more/c.jpg"]
    assert found.warnings == ("images of the labels that are not among those to train on, left out: 2 (a.jpg, z.jpg)",)


def test_labels_of_which_most_images_are_not_those_of_the_data_are_refused(root: Path):
    lines = [{"image": name, "tags": {"owl": True}} for name in ("c.jpg", "y.jpg", "z.jpg")]
    with pytest.raises(BoxlessError, match="2 of 3 images of the labels that are not among") as raised:
        labelled(root, "labels.jsonl", *lines)
    assert "labels.jsonl" in str(raised.value) and "(y.jpg, z.jpg); give the labels of these images" in str(
        raised.value
    )


def test_counts_and_points_say_that_their_class_is_there(root: Path):
    said = {
        "tags": {"yak": True},
        "counts": {"cat": 0, "dog": 3, "yak": 2, "owl": "2+"},
        "points": [{"class": name, "xy": [4, 5.5]} for name in ("dog", "yak")],
    }
    lines = [{"image": name, **said} for name in ("photos/a.jpg", "photos/b.jpg")]
    found = labelled(root, "labels.jsonl", *lines)
    for name in ("photos/a.jpg", "photos/b.jpg"):
        own = by_id(found)[name]
        assert names(found, own.tags) == {"dog", "owl"} and own.given is None
        assert own.counts == {1: Count(3), 2: Count(2, or_more=True)} and own.points == (Point(1, 4, 5.5),)
    assert found.warnings == ("classes of the labels that are not among those to train on, left out: 2 (yak)",)
    assert found.summary.endswith("labels of 2 images with 0 right and 0 wrong boxes, 4 counts, 2 points")


def test_a_count_below_the_number_of_right_boxes_is_not_used(root: Path):
    boxes = [box("cat", 0, 0, 9, 9), box("cat", 20, 0, 30, 9)]
    for number, kept in ((0, {}), (1, {}), (2, {0: Count(2)}), (3, {0: Count(3)}), ("1+", {0: Count(1, or_more=True)})):
        found = labelled(root, "labels.jsonl", {"image": "photos/a.jpg", "boxes": boxes, "counts": {"cat": number}})
        assert by_id(found)["photos/a.jpg"].counts == kept
        assert len(found.warnings) == (number in (0, 1))
        assert names(found, by_id(found)["photos/a.jpg"].tags) == {"cat"}


def test_points_outside_of_the_image_are_left_out(root: Path):
    points = [{"class": "cat", "xy": xy} for xy in ([99.5, 49.5], [100, 20], [20, 50])]
    tasks = [task("photos/b.jpg", keypoint("cat", 99, 50), keypoint("cat", 101, 50), rectangle("owl", 0, 0, 50, 50))]
    (root / "tasks.json").write_text(json.dumps(tasks))
    for found, kept in (
        (labelled(root, "labels.jsonl", {"image": "photos/b.jpg", "points": points}), Point(0, 99.5, 49.5)),
        (labelled(root, "tasks.json"), Point(0, 99, 25)),
    ):
        assert by_id(found)["photos/b.jpg"].points == (kept,)
        assert [line for line in found.warnings if line.startswith("images with points outside of them")]


def test_points_of_a_class_that_is_absent_are_left_out(root: Path):
    line = {"image": "photos/b.jpg", "tags": {"dog": False}, "points": [{"class": "dog", "xy": [4, 5]}]}
    found = labelled(root, "labels.jsonl", line)
    assert by_id(found)["photos/b.jpg"].points == () and by_id(found)["photos/b.jpg"].tags == {0}
    assert found.warnings == ("points of a class that is absent, left out: 1 (photos/b.jpg dog)",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "photos/a.jpg", "tags": {"yak": true}}\n', "says nothing of the images and classes of tags"),
        ('{"image": "photos/a.jpg", "counts": {"cat": 0}, "tags": {"cat": true}}\n', "is present, yet its count is 0"),
        ('{"image": "photos/a.jpg", "counts": {"cat": 2}, "tags": {"cat": false}}\n', "is absent, yet its count is 2"),
        ('{"image": "photos/a.jpg", "points": [[3, 4]]}\n', "line 1: points.0"),
        (
            '{"image": "x.jpg", "tags": {"cat": true}}\n',
            "1 of 1 image of the labels that are not among those to train on (x.jpg)",
        ),
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
    (root / "notes.txt").write_text("a cat")
    for name, message in (
        ("notes.txt", "no labels: give the .jsonl of boxless review, COCO, Label Studio's .json, YOLO's data.yaml"),
        ("photos", "no labels"),
        ("none.json", "there is no such file"),
        ("none.jsonl", "cannot be read"),
    ):
        with pytest.raises(BoxlessError, match=message):
            labelled(root, name)


# Other tools.


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
        task("more/d.jpg", {"type": "taxonomy", "value": {"taxonomy": [["birds", "owl"]]}}),
    ]
    (root / "tasks.json").write_text(json.dumps(tasks))
    found = labelled(root, "tasks.json")
    own = by_id(found)["photos/a.jpg"]
    assert own.given is not None and rows(own.given.right) == [("cat", [10, 10, 40, 30])]
    assert names(found, own.tags) == {"cat", "dog"} and names(found, own.given.complete) == {"cat"}
    assert all(sample.given is None for sample in found.samples if sample.id != "photos/a.jpg")
    assert "tasks without an annotation, left out as their tags are unknown: 2 (task 2, task 3)" in found.warnings
    # Nobody has said what is in it: it is not reviewed.
    assert found.summary.endswith("labels of 1 image with 1 right and 0 wrong boxes")
    unread = "tasks whose regions have no class that is read, left out as their tags are unknown: 1"
    assert any(line.startswith(unread) for line in found.warnings)


def keypoint(name: str, x: float, y: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [name]}
    return {"type": "keypointlabels", "original_width": 200, "original_height": 100, "value": value}


def test_points_and_numbers_of_label_studio(root: Path):
    number = {"type": "number", "from_name": "count-dog", "value": {"number": 3}}
    other = {"type": "number", "from_name": "quality", "value": {"number": 5}}
    # The image was annotated at twice its size.
    owl = {**rectangle("owl", 0, 0, 50, 50), "original_width": 200, "original_height": 100}
    tasks = [task("photos/b.jpg", keypoint("cat", 10, 50), number, other, owl)]
    (root / "tasks.json").write_text(json.dumps(tasks))
    found = labelled(root, "tasks.json")
    own = by_id(found)["photos/b.jpg"]
    assert own.points == (Point(0, 10, 25),) and own.counts == {1: Count(3)} and names(found, own.tags) == set(CLASSES)
    assert own.given is not None and rows(own.given.right) == [("owl", [0, 0, 50, 25])]
    assert names(found, own.given.complete) == {"owl"}
    assert not [line for line in found.warnings if "tags of reviewed images" in line]


def test_a_table_says_unknown_tags_counts_and_boxes(root: Path):
    (root / "said.csv").write_text(
        "image,tags,xmin,ymin,xmax,ymax\n"
        "photos/a.jpg,cat,1,2,30,40\nphotos/a.jpg,?dog,,,,\nphotos/b.jpg,dog:2+,,,,\nmore/c.jpg,?owl;cat:1,,,,\n"
    )
    found = labelled(root, "said.csv")
    first, second, third = (by_id(found)[name] for name in ("photos/a.jpg", "photos/b.jpg", "more/c.jpg"))
    assert first.given is not None and rows(first.given.right) == [("cat", [1, 2, 30, 40])]
    assert (names(found, first.tags), names(found, first.unsure), first.counts) == ({"cat"}, {"dog"}, {})
    assert (names(found, second.tags), second.counts, second.given) == ({"cat", "dog"}, {1: Count(2, True)}, None)
    assert (names(found, third.tags), names(found, third.unsure)) == ({"cat"}, {"owl"})
    assert third.counts == {0: Count(1)}


@pytest.mark.parametrize("folder", ["", "labels/", "labels/photos/"])
def test_label_files_of_yolo_name_the_images_of_the_data(root: Path, folder: str):
    top = root / "yolo"
    (top / folder).mkdir(parents=True)
    (top / "data.yaml").write_text("names: [owl, yak, cat]\ntrain: images\n")
    (top / folder / "b.txt").write_text("0 0.5 0.5 0.2 0.4\n2 0.1 0.2 0.2 0.4\n1 0.5 0.5 0.1 0.1\n")
    for path in (top, top / "data.yaml"):
        found = labelled(root, path)
        own = by_id(found)["photos/b.jpg"]
        assert own.given is not None and rows(own.given.right) == [("owl", [40, 15, 60, 35]), ("cat", [0, 0, 20, 20])]
        assert names(found, own.given.complete) == {"cat", "owl"} and names(found, own.tags) == set(CLASSES)
        assert found.summary.endswith("labels of 1 image with 2 right and 0 wrong boxes")
        # Two images are called a.
        assert not any(line.startswith("names spelled differently") for line in found.warnings)
    (top / folder / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (top / folder / "z.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    if folder != "labels/photos/":
        with pytest.raises(BoxlessError, match="2 of 3 images of the labels that are not among those to train on"):
            labelled(root, top)
    else:
        found = labelled(root, top)
        assert by_id(found)["photos/a.jpg"].given is not None and by_id(found)["more/a.jpg"].given is None


def test_a_label_file_with_a_damaged_line_is_read_and_reported(root: Path):
    (root / "yolo").mkdir()
    (root / "yolo" / "data.yaml").write_text("names: [owl, yak, cat]\ntrain: images\n")
    (root / "yolo" / "b.txt").write_text("0 0.5 0.5 0.2 0.4\nyak\n")
    (root / "yolo" / "notes.txt").write_text("none of an image\n")
    found = labelled(root, root / "yolo")
    own = by_id(found)["photos/b.jpg"]
    assert own.given is not None and rows(own.given.right) == [("owl", [40, 15, 60, 35])]
    assert any(line.startswith("labels whose class number") for line in found.warnings)


def test_annotation_files_of_voc_name_the_images_of_the_data(root: Path):
    def xml(name: str, *objects: tuple[str, int, int, int, int]) -> str:
        boxes = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
            "</bndbox></object>"
            for kind, a, b, c, d in objects
        )
        size = "<size><width>200</width><height>100</height></size>"
        return f"<annotation><filename>{name}</filename>{size}{boxes}</annotation>"

    (root / "voc" / "Annotations" / "more").mkdir(parents=True)
    (root / "voc" / "Annotations" / "b.xml").write_text(xml("b.jpg", ("cat", 1, 1, 20, 40), ("dog", 101, 51, 200, 100)))
    (root / "voc" / "Annotations" / "more" / "a.xml").write_text(xml("a.jpg", ("dog", 21, 1, 40, 20)))
    (root / "voc" / "Annotations" / "z.xml").write_text(xml("z.jpg", ("dog", 21, 1, 40, 20)))
    for path in (root / "voc", root / "voc" / "Annotations"):
        found = labelled(root, path)
        first, second = (by_id(found)[name] for name in ("photos/b.jpg", "more/a.jpg"))
        assert first.given is not None and second.given is not None
        # Pixels are counted from 1, of an image of twice the size.
        assert rows(first.given.right) == [("cat", [0, 0, 10, 20]), ("dog", [50, 25, 100, 50])]
        assert rows(second.given.right) == [("dog", [10, 0, 20, 10])] and names(found, second.tags) == {"dog"}
        assert "left out: 1 (" in next(line for line in found.warnings if line.startswith("images of the labels"))


def outside(root: Path, form: str) -> Path:
    """One box that reaches outside of photos/a.jpg, and one beyond photos/b.jpg; no file states a size."""
    if form == "table":
        file = root / "said.csv"
        sides = "image,class,xmin,ymin,xmax,ymax"
        file.write_text(f"{sides}\nphotos/a.jpg,cat,60,10,120,30\nphotos/b.jpg,dog,500,500,900,900\n")
    elif form == "COCO":
        file = coco(root, (1, "cat", [60, 10, 60, 20]), (2, "dog", [500, 500, 400, 400]))
        content = json.loads(file.read_text())
        images = [{key: image[key] for key in ("id", "file_name")} for image in content["images"]]
        file.write_text(json.dumps({**content, "images": images}))
    else:
        file = root / "yolo"
        (file / "photos").mkdir(parents=True)
        (file / "classes.txt").write_text("cat\ndog\n")
        (file / "photos" / "a.txt").write_text("0 0.9 0.4 0.6 0.4\n")
        (file / "photos" / "b.txt").write_text("1 50 50 20 20\n")
    return file


@pytest.mark.parametrize("form", ["table", "COCO", "YOLO"])
def test_boxes_of_other_tools_outside_of_the_image_are_clipped_or_dropped(root: Path, form: str):
    found = labelled(root, outside(root, form))
    first, second = (by_id(found)[name] for name in ("photos/a.jpg", "photos/b.jpg"))
    assert first.given is not None and second.given is None
    assert rows(first.given.right) == [("cat", [60, 10, 100, 30])]
    # Whose box is dropped has its tag, but not all of its boxes.
    assert names(found, second.tags) == {"cat", "dog"}
    for kind in (
        "boxes that reach outside the image, clipped: 1 (",
        "boxes without area inside the image, dropped (their tags stay): 1 (",
        "images of no stated size with boxes beyond the file, so the other boxes may refer to another size, too: 1 (",
    ):
        assert [line for line in found.warnings if line.startswith(kind)]
    assert "labels of 2 images with 1 right and 0 wrong boxes" in found.summary


def test_a_folder_of_coco_is_read_as_cvat_exports_it(root: Path):
    file = coco(root, (1, "owl", [2, 4, 20, 40]), (2, "cat", [0, 0, 200, 100]))
    (root / "export" / "annotations").mkdir(parents=True)
    file.rename(root / "export" / "annotations" / "instances_default.json")
    found = labelled(root, root / "export")
    given = by_id(found)["photos/a.jpg"].given
    assert given is not None and rows(given.right) == [("owl", [1, 2, 11, 22])]


def test_a_folder_of_several_coco_files_is_refused_with_their_names(root: Path):
    file = coco(root, (1, "owl", [2, 4, 20, 40]))
    (root / "review" / "old").mkdir()
    for name in ("_annotations.coco.json", "old/export.json"):
        (root / "review" / name).write_bytes(file.read_bytes())
    several = "_annotations.coco.json, corrected.json, old/export.json; give one of them"
    with pytest.raises(BoxlessError, match=f"review: several COCO files, which are not read together: {several}"):
        labelled(root, root / "review")
    # Alone it is read.
    (root / "review" / "_annotations.coco.json").unlink()
    (root / "review" / "old" / "export.json").unlink()
    assert "labels of 2 images" in labelled(root, root / "review").summary


# Datasets with given boxes.


def test_classes_that_are_left_out_take_their_given_boxes_along(root: Path):
    boxes = [box("owl", 1, 2, 30, 40), box("dog", 5, 5, 20, 20), box("cat", 0, 0, 9, 9, state="wrong")]
    points = [{"class": name, "xy": [1, 2]} for name in ("dog", "cat")]
    more = {"counts": {"owl": 2, "dog": 1}, "points": points}
    line = {"image": "photos/a.jpg", "boxes": boxes, "complete": ["owl", "dog"], **more}
    found = labelled(root, "labels.jsonl", line).with_classes(["owl", "cat"])
    given = by_id(found)["photos/a.jpg"].given
    assert by_id(found)["photos/a.jpg"].counts == {0: Count(2)}
    assert by_id(found)["photos/a.jpg"].points == (Point(1, 1, 2),)
    assert given is not None and given.complete == given.labels == {0}
    assert (given.right.boxes.tolist(), given.right.labels.tolist()) == ([[1, 2, 30, 40]], [0])
    assert (given.wrong.boxes.tolist(), given.wrong.labels.tolist()) == ([[0, 0, 9, 9]], [1])


def test_given_boxes_are_not_annotations(root: Path):
    found = labelled(root, "labels.jsonl", {"image": "photos/a.jpg", "boxes": [box("cat", 1, 2, 30, 40)]})
    assert not found.has_boxes
    assert found.without_annotations() == found
    assert all(sample.given is None for sample in found.tags_only().samples)


def test_a_byte_order_mark_may_begin_any_line(root: Path):
    lines = [json.dumps({"image": f"photos/{name}.jpg", "tags": {"owl": True}}) for name in "ab"]
    (root / "l.jsonl").write_text("".join(f"\ufeff{line}\n" for line in lines), encoding="utf-8")
    images = by_id(labelled(root, "l.jsonl"))
    assert [2 in images[f"photos/{name}.jpg"].tags for name in "ab"] == [True, True]
