"""VOC annotations without the development kit's folders and lists, as LabelImg, Kaggle and Roboflow have them."""

from pathlib import Path

import pytest

from boxless.datasets import load_dataset, split_names
from boxless.errors import BoxlessError


def write(root: Path, *names: str, size: tuple[int, int] = (100, 80), inside: str = "") -> None:
    """Empty images, and annotations with one dog at (11, 21, 30, 40)."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(SIDES, (11, 21, 30, 40), strict=True))
        stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        object_ = f"<object><name>dog</name><bndbox>{sides}</bndbox></object>"
        text = f"<annotation>{inside}{stated}{object_}</annotation>" if name.endswith(".xml") else ""
        (root / name).write_text(text)


SIDES = ("xmin", "ymin", "xmax", "ymax")


@pytest.mark.parametrize(
    ("images", "annotations"),
    [("", ""), ("images/", "annotations/"), ("Images/", "Annotations/"), ("img/", "xmls/"), ("", "annotations/")],
)
def test_images_beside_their_annotations_or_in_a_folder_beside_theirs(tmp_path, images, annotations):
    root = tmp_path / "set"
    write(root, f"{images}a.jpg", f"{images}sub/b.png", f"{annotations}a.xml", f"{annotations}sub/b.xml")
    dataset = load_dataset(root)
    assert [(sample.id, sample.path) for sample in dataset.samples] == [
        ("a", root / images / "a.jpg"),
        ("sub/b", root / images / "sub" / "b.png"),
    ]
    assert (dataset.classes, dataset.name, dataset.warnings) == (("dog",), "set", ())
    assert dataset.samples[0].annotations.boxes.tolist() == [[10, 20, 30, 40]]
    assert dataset.summary == "PASCAL VOC, 2 images, 1 class"


@pytest.mark.parametrize(("images", "annotations"), [("", ""), ("images/", "annotations/")])
def test_folders_called_like_splits_are_splits(tmp_path, images, annotations):
    names = [
        f"{folder}{split}/1.{suffix}"
        for folder, suffix in ((images, "jpg"), (annotations, "xml"))
        for split in ("train", "valid")
    ]
    write(tmp_path, *names)
    assert split_names(tmp_path) == ("train", "valid")
    assert [sample.path for sample in load_dataset(tmp_path).samples] == [tmp_path / images / "train" / "1.jpg"]
    # Tools call the split differently.
    assert [sample.path for sample in load_dataset(tmp_path, "val").samples] == [tmp_path / images / "valid" / "1.jpg"]


@pytest.mark.parametrize(("images", "annotations"), [("", ""), ("images/", "annotations/")])
@pytest.mark.parametrize("splits", [("train", "val", "test1"), ("train2017", "val2017"), ("training", "testing")])
def test_usual_spellings_of_splits_are_splits_whatever_lies_beside_them(tmp_path, images, annotations, splits):
    for split in (*splits, "extra"):
        write(tmp_path, f"{images}{split}/{split}.jpg", f"{annotations}{split}/{split}.xml")
    assert split_names(tmp_path) == tuple(sorted(splits))
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == [f"{splits[0]}/{splits[0]}"]
    assert dataset.warnings == ("images beside the folders of the splits, left out: 1 (extra/extra)",)


@pytest.mark.parametrize(("images", "annotations"), [("", ""), ("images/", "annotations/")])
def test_images_of_a_folder_without_annotations_are_counted(tmp_path, images, annotations):
    write(tmp_path, f"{images}b1/a.jpg", f"{annotations}b1/a.xml", f"{images}b2/b.jpg", f"{images}b2/c.jpg")
    assert load_dataset(tmp_path).warnings == (
        "images of folders without annotations, left out as their tags are unknown: 2 (b2/b, b2/c)",
    )


def test_what_has_no_counterpart_is_counted_both_ways(tmp_path):
    write(tmp_path, "a.jpg", "b.jpg", "c.jpg", "a.xml", "b.xml", "d.xml")
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["a", "b"]
    assert dataset.warnings == (
        "annotation files without an image: 1 (d.xml)",
        "images without an annotation, left out as their tags are unknown: 1 (c)",
    )
    write(tmp_path, "e.xml", "f.xml")
    with pytest.raises(BoxlessError, match=r"3 of 5 annotation files without an image \(d.xml, e.xml, f.xml\); give"):
        load_dataset(tmp_path)


def test_the_image_that_an_annotation_names_is_taken_if_none_has_its_name(tmp_path):
    write(tmp_path, "photos/x.jpg", "photos/y z.jpg")
    write(tmp_path, "annotations/1.xml", inside="<filename>x.jpg</filename>")
    write(tmp_path, "annotations/2.xml", inside=r"<path>C:\Users\me\photos\y%20z.jpg</path>")
    write(tmp_path, "annotations/3.xml", inside="<filename>x.jpg</filename>")
    dataset = load_dataset(tmp_path)
    assert [(sample.id, sample.path.name) for sample in dataset.samples] == [("1", "x.jpg"), ("2", "y z.jpg")]
    assert dataset.warnings[1] == "annotation files of an image that has another, left out: 1 (3.xml)"


def test_suffixes_of_annotations_may_be_in_capitals(tmp_path):
    write(tmp_path, "cam/a.jpg", "cam/a.xml")
    (tmp_path / "cam" / "a.xml").rename(tmp_path / "cam" / "a.XML")
    dataset = load_dataset(tmp_path)
    assert [(sample.id, sample.tags) for sample in dataset.samples] == [("cam/a", {0})]


def test_of_annotations_that_are_too_deep_the_folder_to_give_holds_images_too(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/annotations/a.xml")
    with pytest.raises(BoxlessError, match=rf"too deep below it.*nearer to them, such as {tmp_path}/train$"):
        load_dataset(tmp_path)
    assert len(load_dataset(tmp_path / "train")) == 1


def test_linked_folders_are_followed(tmp_path):
    write(tmp_path / "real", "a.jpg", "a.xml")
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    for name in ("images", "annotations"):
        (tmp_path / "set" / name / "one").symlink_to(tmp_path / "real", target_is_directory=True)
    assert [sample.id for sample in load_dataset(tmp_path / "set").samples] == ["one/a"]


def test_folders_of_one_split_are_one_set(tmp_path):
    write(tmp_path, "test1/a.jpg", "test1/a.xml", "test2/b.jpg", "test2/b.xml")
    assert split_names(tmp_path) == ()
    assert [sample.id for sample in load_dataset(tmp_path).samples] == ["test1/a", "test2/b"]
    write(tmp_path, "train/c.jpg", "train/c.xml")
    assert split_names(tmp_path) == ("test1", "test2", "train")
