import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.structures import Point

SIZE = {"original_width": 100, "original_height": 80}


def rectangle(x: float, y: float, width: float, height: float, label: str = "cat", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label], **more}
    return {"type": "rectanglelabels", "value": value, **SIZE}


def task(image: str, *results: list[Any], key: str = "annotations", **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, key: [{"result": result} for result in results], **more}


def write(file: Path, *tasks: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tasks), encoding="utf-8")
    return file


def test_regions_become_boxes_in_pixels(tmp_path, image):
    ellipse = {"value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "ellipselabels": ["dog"]}, **SIZE}
    # Half as wide and high along its own axes as before the turn, which is around its centre.
    oval = {"value": {"x": 50, "y": 50, "radiusX": 30, "radiusY": 5, "rotation": 90, "ellipselabels": ["dog"]}, **SIZE}
    polygon = {"value": {"points": [[10, 25], [30, 50], [20, 75]], "polygonlabels": ["dog"]}, **SIZE}
    # 20 x 40 pixels around the left upper corner at (50, 40): a quarter turn to the right extends to the left.
    turned = rectangle(50, 50, 20, 50, rotation=90)
    file = write(
        tmp_path / "tasks.json",
        task("/data/upload/1/0a1b2c3d-a.jpg", [rectangle(10, 25, 20, 37.5), ellipse, oval, polygon, turned]),
        task("/data/local-files/?d=shots/b.jpg", []),
    )
    image(tmp_path / "a.jpg")
    image(tmp_path / "images" / "shots" / "b.jpg")
    dataset = load_dataset(file)
    assert (dataset.name, dataset.classes) == ("tasks", ("cat", "dog"))
    assert [(sample.id, sample.tags) for sample in dataset.samples] == [
        ("a.jpg", {0, 1}),
        ("images/shots/b.jpg", set()),
    ]
    boxes = [[10, 20, 30, 50], [40, 20, 60, 60], [46, 10, 54, 70], [10, 20, 30, 60], [10, 40, 50, 60]]
    np.testing.assert_allclose(dataset.samples[0].annotations.boxes, boxes, rtol=1e-6)
    assert dataset.samples[0].annotations.labels.tolist() == [0, 1, 1, 1, 0]
    assert dataset.summary == "Label Studio, 2 images, 2 classes; 1 image without a tag, kept as a negative"


def test_choices_are_tags_without_boxes(tmp_path, image):
    choices = {"type": "choices", "value": {"choices": ["cat", "dog"]}}
    file = write(
        tmp_path / "set" / "export.json",
        task("a.jpg", [choices]),
        task("b.jpg", [choices, rectangle(10, 25, 20, 37.5), rectangle(0, 0, 10, 10, "dog")]),
        task("c.jpg", [choices, rectangle(10, 25, 20, 37.5)]),
    )
    for name in "abc":
        image(file.parent / f"{name}.jpg")
    dataset = load_dataset(tmp_path / "set")
    assert [sample.tags for sample in dataset.samples] == [{0, 1}] * 3
    # The boxes of c lack the dog that its tags name.
    assert [sample.annotations is None for sample in dataset.samples] == [True, False, True]
    assert dataset.warnings == (
        "images with a box of one class and none of another, their boxes left out (the tags stay): 1 (c.jpg)",
    )


def test_the_last_annotation_counts_else_the_prediction(tmp_path, image):
    for name in "abcd":
        image(tmp_path / f"{name}.jpg")
    cancelled = {"was_cancelled": True, "result": [rectangle(0, 0, 5, 5, "dog")]}
    first = task("a.jpg", [rectangle(0, 0, 10, 10, "dog")], [rectangle(10, 25, 20, 37.5)])
    first["annotations"].append(cancelled)
    file = write(
        tmp_path / "tasks.json",
        first | {"predictions": [{"result": [rectangle(0, 0, 10, 10, "dog")]}]},
        task("b.jpg", [rectangle(10, 25, 20, 37.5)], key="predictions", annotations=[]),
        task("c.jpg"),
        "nonsense",
    )
    dataset = load_dataset(file)
    assert dataset.classes == ("cat",)
    assert [sample.id for sample in dataset.samples] == ["a.jpg", "b.jpg"]
    warning = "tasks without an annotation, left out as their tags are unknown: 2 (task 3, task 4)"
    assert dataset.warnings == (warning, "image files that no task has, not used: 1 (d.jpg)")


def test_annotations_were_called_completions_before_version_1(tmp_path, image):
    prediction = {"predictions": [{"result": [rectangle(0, 0, 10, 10, "dog")]}]}
    file = write(tmp_path / "tasks.json", task("a.jpg", [rectangle(10, 25, 20, 37.5)], key="completions", **prediction))
    image(tmp_path / "a.jpg")
    dataset = load_dataset(file)
    assert (dataset.classes, dataset.samples[0].annotations.boxes.tolist()) == (("cat",), [[10, 20, 30, 50]])


@pytest.mark.parametrize(("key", "word"), [("annotations", "was_cancelled"), ("completions", "skipped")])
def test_the_prediction_of_a_skipped_task_is_not_taken(tmp_path, image, key, word):
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    predictions = [{"result": [rectangle(0, 0, 10, 10, "dog")]}]
    skipped = {"data": {"image": "a.jpg"}, key: [{word: True, "result": []}], "predictions": predictions}
    dataset = load_dataset(write(tmp_path / "tasks.json", skipped, task("b.jpg", [rectangle(10, 25, 20, 37.5)])))
    assert (dataset.classes, [sample.id for sample in dataset.samples]) == (("cat",), ["b.jpg"])
    assert "tasks without an annotation, left out as their tags are unknown: 1 (task 1)" in dataset.warnings


def test_choices_for_a_region_are_its_class_or_say_more_of_its_label(tmp_path, image):
    def choice(name: str, **shape: Any) -> dict[str, Any]:
        return {"type": "choices", "value": {**shape, "choices": [name]}, **SIZE}

    shape = {"x": 10, "y": 25, "width": 20, "height": 37.5, "rotation": 0}
    bare = {"type": "rectangle", "value": shape, **SIZE}
    file = write(
        tmp_path / "tasks.json",
        task("a.jpg", [rectangle(10, 25, 20, 37.5) | {"id": "r1"}, choice("occluded", **shape) | {"id": "r1"}]),
        task("b.jpg", [bare | {"id": "r1"}, choice("cat", **shape) | {"id": "r1"}]),
        task("c.jpg", [choice("dog", points=[[10, 25], [30, 50], [20, 75]]), choice("cat", x=50, y=50, width=0.5)]),
    )
    for name in "abc":
        image(tmp_path / f"{name}.jpg")
    dataset = load_dataset(file)
    assert dataset.classes == ("cat", "dog")
    assert [sample.tags for sample in dataset.samples] == [{0}, {0}, {0, 1}]
    assert [sample.annotations and sample.annotations.boxes.tolist() for sample in dataset.samples] == [
        [[10, 20, 30, 50]],
        [[10, 20, 30, 50]],
        None,
    ]
    assert dataset.samples[2].points == (Point(0, 50, 40),)
    assert dataset.warnings == (
        "choices for a region that has a label, attributes of it and not used: 1 (occluded)",
        "images with a box of one class and none of another, their boxes left out (the tags stay): 1 (c.jpg)",
    )


def test_an_image_whose_regions_have_no_class_is_no_negative(tmp_path, image):
    taxonomy = {"type": "taxonomy", "value": {"taxonomy": [["animals", "cat"]]}}
    bare = {"type": "rectangle", "value": {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}, **SIZE}
    unlabelled = rectangle(1, 1, 9, 9, rectanglelabels=[])
    remark = {"type": "textarea", "value": {"text": ["blurred"]}}
    relation = {"type": "relation", "from_id": "r1", "to_id": "r1", "labels": ["next to"]}
    labels = {"type": "labels", "value": {**bare["value"], "labels": ["cat"]}, **SIZE}
    file = write(
        tmp_path / "tasks.json",
        task("a.jpg", [taxonomy]),
        task("b.jpg", [bare]),
        task("c.jpg", [unlabelled, remark]),
        # Two entries of one region, one of which names its class.
        task("d.jpg", [bare | {"id": "r1"}, labels | {"id": "r1"}, relation]),
        task("e.jpg", [rectangle(10, 25, 20, 37.5), unlabelled]),
        task("f.jpg", [remark]),
        task("g.jpg", [{"type": "choices", "value": {"choices": []}}]),
        task("h.jpg", [{"type": "pairwise", "value": {"pairwise": "left"}}]),
    )
    for name in "abcdefgh":
        image(tmp_path / f"{name}.jpg")
    dataset = load_dataset(file)
    assert dataset.classes == ("cat",)
    assert [sample.id for sample in dataset.samples] == ["d.jpg", "e.jpg", "f.jpg", "g.jpg", "h.jpg"]
    assert [sample.tags for sample in dataset.samples] == [{0}, {0}, set(), set(), set()]
    assert dataset.warnings == (
        "tasks whose regions have no class that is read, left out as their tags are unknown: 3 (a.jpg, b.jpg, c.jpg)",
        "images with regions that have no class that is read; those regions are not used: 1 (e.jpg)",
    )


def test_missing_images_are_counted_and_most_are_an_error(tmp_path, image):
    image(tmp_path / "a.jpg")
    result = [rectangle(10, 25, 20, 37.5)]
    dataset = load_dataset(write(tmp_path / "tasks.json", task("a.jpg", result), task("s3://bucket/b.jpg", result)))
    assert dataset.warnings == ("tasks whose image is missing, left out: 1 (s3://bucket/b.jpg)",)
    tasks = [task(f"{name}.jpg", result) for name in "abc"]
    with pytest.raises(BoxlessError, match=r"2 of 3 tasks whose image is missing \(b.jpg, c.jpg\); put the images"):
        load_dataset(write(tmp_path / "tasks.json", *tasks))


def test_sizes_of_another_file_are_scaled(tmp_path, image):
    image(tmp_path / "a.jpg", (50, 40))
    file = write(tmp_path / "tasks.json", task("a.jpg", [rectangle(10, 25, 20, 37.5)]))
    assert load_dataset(file).samples[0].annotations.boxes.tolist() == [[5, 10, 15, 25]]


def test_damaged_json_is_an_error_that_names_it(tmp_path):
    (tmp_path / "tasks.json").write_text('[{"data": {')
    with pytest.raises(BoxlessError, match=r"tasks.json: cannot be read as JSON"):
        load_dataset(tmp_path / "tasks.json")


@pytest.mark.parametrize("wrong", [5, True, "text", {"result": []}])
def test_annotations_that_are_no_list_are_as_none(tmp_path, image, wrong):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    tasks = (task("a.jpg", [rectangle(10, 25, 20, 37.5)]), task("b.jpg") | {"annotations": wrong, "predictions": wrong})
    dataset = load_dataset(write(tmp_path / "tasks.json", *tasks))
    assert [sample.id for sample in dataset.samples] == ["a.jpg"]
    assert any("tasks without an annotation, left out" in line for line in dataset.warnings)
