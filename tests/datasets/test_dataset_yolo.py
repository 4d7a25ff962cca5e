from pathlib import Path

import numpy as np
import pytest
import yaml

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError


def write_data(root: Path, **content: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"names": ["cat", "dog"], "train": "images/train", **content}), encoding="utf-8")
    return file


def write_labels(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def test_boxes_and_tags(tmp_path, image):
    write_data(tmp_path)
    image(tmp_path / "images" / "train" / "a b.jpg", (200, 100))
    image(tmp_path / "images" / "train" / "bare.png")
    write_labels(tmp_path / "labels" / "train" / "a b.txt", "1 0.5 0.5 0.2 0.4", "0 0.1 0.1 0.1 0.1", "")
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.classes) == (f"{tmp_path.name} train", ("cat", "dog"))
    first, second = dataset.samples
    assert (first.id, first.tags) == ("images/train/a b.jpg", {0, 1})
    np.testing.assert_allclose(first.annotations.boxes, [[80, 30, 120, 70], [10, 5, 30, 15]], rtol=1e-6)
    assert first.annotations.labels.tolist() == [1, 0]
    assert (second.tags, len(second.annotations.boxes)) == (set(), 0)
    assert dataset.warnings == ("images without a label file, kept as negatives: 1 (images/train/bare.png)",)
    without = "1 image without a label file; 1 image without a tag, kept as a negative"
    assert dataset.summary == f"YOLO, 2 images, 2 classes, {without}"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fractions_are_of_the_displayed_image(tmp_path, image, orientation):
    write_data(tmp_path)
    image(tmp_path / "images" / "train" / "a.jpg", (200, 100), orientation)
    write_labels(tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 1 1")
    size = [100, 200] if orientation >= 5 else [200, 100]
    assert load_dataset(tmp_path).samples[0].annotations.boxes.tolist() == [[0, 0, *size]]


def test_a_polygon_becomes_its_bounding_box(tmp_path, image):
    write_data(tmp_path)
    image(tmp_path / "images" / "train" / "a.jpg", (100, 100))
    write_labels(
        tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.1 0.9 0.4 0.2 0.8", "1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.3"
    )
    boxes = load_dataset(tmp_path).samples[0].annotations.boxes
    np.testing.assert_allclose(boxes, [[20, 10, 90, 80], [10, 10, 20, 30]], rtol=1e-6)


def test_names_as_numbers_to_names(tmp_path, image):
    file = write_data(tmp_path, names={3: "owl", 1: "ant"})
    image(tmp_path / "images" / "train" / "a.jpg")
    write_labels(tmp_path / "labels" / "train" / "a.txt", "3 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5 0.5", "x 1 1 1 1")
    dataset = load_dataset(file)
    assert (dataset.classes, dataset.samples[0].tags) == (("ant", "owl"), {1})
    assert "labels whose class number data.yaml does not name, left out: 2 (images/train/a.jpg)" in dataset.warnings


def test_bad_numbers_do_not_change_the_tags(tmp_path, image):
    write_data(tmp_path)
    image(tmp_path / "images" / "train" / "a.jpg", (100, 80))
    image(tmp_path / "images" / "train" / "b.jpg", (100, 80))
    lines = ["0", "0 nan 0.5 0.5 0.5", "0 a b c d", "0 0.5 0.5 0.5 0.5 0.9 1 1", "0 0.5 0.5 0 0.5", "0 2 2 0.1 0.1"]
    write_labels(tmp_path / "labels" / "train" / "a.txt", *lines)
    write_labels(tmp_path / "labels" / "train" / "b.txt", "1 0.5 0.5 2 1.0000001", "1 1e999 1 1 1")
    dataset = load_dataset(tmp_path)
    first, second = dataset.samples
    assert (first.tags, first.annotations) == ({0}, None)
    assert (second.tags, second.annotations.boxes.tolist()) == ({1}, [[0, 0, 100, 80]])
    assert dataset.warnings == (
        "boxes without numbers, dropped (their tags stay): 5 (images/train/a.jpg, images/train/b.jpg)",
        "boxes without area inside the image, dropped (their tags stay): 2 (images/train/a.jpg)",
        "boxes that reach outside the image, clipped: 1 (images/train/b.jpg)",
    )


def test_rounding_past_the_edge_is_no_warning(tmp_path, image):
    write_data(tmp_path, names=["cat"])
    image(tmp_path / "images" / "train" / "a.jpg", (100, 80))
    write_labels(tmp_path / "labels" / "train" / "a.txt", "0 0.500001 0.500001 1.000001 1.000001")
    dataset = load_dataset(tmp_path)
    assert dataset.warnings == ()
    assert dataset.samples[0].annotations.boxes.max() <= 100


def test_an_image_without_a_readable_size_keeps_its_tags(tmp_path, image):
    write_data(tmp_path)
    image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "images" / "train" / "b.jpg").write_text("no image")
    for name in "ab":
        write_labels(tmp_path / "labels" / "train" / f"{name}.txt", "1 0.5 0.5 0.5 0.5")
    dataset = load_dataset(tmp_path)
    assert [sample.tags for sample in dataset.samples] == [{1}, {1}]
    assert dataset.samples[1].annotations is None
    assert "size cannot be read, their boxes dropped (the tags stay): 1" in dataset.warnings[0]
    assert "b.jpg: not an image" in dataset.warnings[0]
    assert len(dataset.warnings) == 2


def test_a_label_file_that_cannot_be_read_leaves_its_image_out(tmp_path, image, monkeypatch):
    write_data(tmp_path)
    for name in "ab":
        image(tmp_path / "images" / "train" / f"{name}.jpg")
        write_labels(tmp_path / "labels" / "train" / f"{name}.txt", "1 0.5 0.5 0.5 0.5")
    read_text = Path.read_text

    def refuse(path: Path, *args: object, **more: object) -> str:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["images/train/a.jpg"]
    assert dataset.warnings[0].startswith("label files that cannot be read, their images left out: 1")


def test_label_files_are_in_place_of_the_last_images_or_beside(tmp_path, image):
    root = tmp_path / "images" / "set"
    write_data(root, train="images/images/deep", val="flat")
    image(root / "images" / "images" / "deep" / "a.jpg")
    image(root / "flat" / "b.jpg")
    write_labels(root / "images" / "labels" / "deep" / "a.txt", "0 0.5 0.5 1 1")
    write_labels(root / "flat" / "b.txt", "1 0.5 0.5 1 1")
    assert load_dataset(root, "train").samples[0].tags == {0}
    assert load_dataset(root, "val").samples[0].tags == {1}


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"path": "data", "train": "images"}, "data/images"),
        ({"path": "nowhere", "train": "images"}, "images"),
        ({"train": "../train/images"}, "train/images"),
        ({"train": ["one/images", "two/images"]}, "two/images"),
    ],
)
def test_where_images_are_searched(tmp_path, image, content, where):
    root = tmp_path / "set"
    (root / "one" / "images").mkdir(parents=True)
    write_data(root, **content)
    image(root / where / "a.jpg")
    write_labels((root / where).parent / "labels" / "a.txt", "0 0.5 0.5 1 1")
    assert [sample.path for sample in load_dataset(root).samples] == [root / where / "a.jpg"]


def test_images_from_a_list(tmp_path, image):
    write_data(tmp_path, path="data", train="train.txt")
    image(tmp_path / "data" / "images" / "a ü.jpg")
    write_labels(tmp_path / "data" / "labels" / "a ü.txt", "0 0.5 0.5 1 1")
    write_labels(tmp_path / "data" / "train.txt", "./images/a ü.jpg", "images/a ü.jpg", "images/gone.jpg")
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["data/images/a ü.jpg"]
    assert dataset.warnings[0] == "images listed but missing, left out: 1 (images/gone.jpg)"
    assert dataset.warnings[1].startswith("images listed more than once, taken once: 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [", "cannot be read as YAML"),
        ("- a\n- b", "needs `names`"),
        ("train: images", "needs `names`"),
        ("names: 5\ntrain: images", "must list the classes"),
        ("names: {a: b}\ntrain: images", "must list the classes"),
        ("names: [cat]", "lists no split"),
        ("names: [cat]\ntrain: nowhere", "`train: nowhere` is neither at"),
        (f"names: [cat]\ntrain: {'x' * 300}", "is neither at"),
        ("names: [cat]\ntest: a\nval: b", "it has: test, val"),
        ("!!python/object/apply:os.system ['true']", "needs `names`"),
    ],
)
def test_an_invalid_data_file_is_an_error_that_names_it(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(BoxlessError, match=f"data.yaml.*{message}"):
        load_dataset(tmp_path)


def test_no_labels_at_all_is_an_error(tmp_path, image):
    write_data(tmp_path)
    image(tmp_path / "images" / "train" / "a.jpg")
    with pytest.raises(BoxlessError, match=r"none of the 1 usable image .* has a tag"):
        load_dataset(tmp_path)
