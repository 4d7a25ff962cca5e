import json
from pathlib import Path

import pytest

from boxless.datasets import load_dataset, split_names
from boxless.datasets.common import choose_split, find_splits
from boxless.errors import BoxlessError


def write(file, text=""):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def make_table(root, image):
    for name in "abc":
        image(root / f"{name}.jpg")
    return write(root / "t.csv", "image,tags,split\na.jpg,x,train\nb.jpg,x,val\nc.jpg,x,\n")


def make_voc(root, image):
    image(root / "JPEGImages" / "a.jpg")
    write(root / "Annotations" / "a.xml", "<annotation><object><name>x</name></object></annotation>")
    for name in ("train", "val", "x_train", "x_val"):
        write(root / "ImageSets" / "Main" / f"{name}.txt", "a\n")
    return root


def make_voc_of_tags(root, image):
    image(root / "JPEGImages" / "a.jpg")
    for name in ("x_train", "x_val"):
        write(root / "ImageSets" / "Main" / f"{name}.txt", "a 1\n")
    return root


def make_coco(root, image):
    image(root / "images" / "a.jpg")
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    images, classes = [{"id": 1, "file_name": "a.jpg"}], [{"id": 1, "name": "x"}]
    content = {"images": images, "annotations": boxes, "categories": classes}
    for split in ("train", "val"):
        write(root / "annotations" / f"instances_{split}.json", json.dumps(content))
    return root


def make_yolo(root, image):
    for split in ("train", "val"):
        image(root / "images" / split / "a.jpg")
        write(root / "labels" / split / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    return write(root / "data.yaml", "names: [x]\ntrain: images/train\nval: images/val\ntest:\n")


def make_folders(root, image):
    for split in ("train", "val"):
        image(root / split / "x" / "a.jpg")
    return root


@pytest.mark.parametrize("make", [make_table, make_voc, make_voc_of_tags, make_coco, make_yolo, make_folders])
def test_every_layout_lists_the_splits_it_loads(tmp_path, image, make):
    data = make(tmp_path / "set", image)
    assert split_names(data) == ("train", "val")
    for split in ("train", "val"):
        assert load_dataset(data, split).name.endswith(split)
    with pytest.raises(BoxlessError, match="has no split 'test'; it has: train, val"):
        load_dataset(data, "test")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "val", "test1", "extra"], {"train", "val", "test1"}),
        (["Training", "Test", "test-multiple_fruits"], {"Training", "Test"}),
        (["seg_train", "seg_test", "seg_pred"], {"seg_train", "seg_test"}),
        (["images_train", "images_val"], {"images_train", "images_val"}),
        (["train2017"], {"train2017"}),
        (["train", "bus"], set()),
        (["bullet_train", "drug_test"], set()),
        (["bullet_train", "steam_train"], set()),
        (["test_tube", "train_station", "validator"], set()),
        ([], set()),
    ],
)
def test_names_of_folders_that_are_splits(names, expected):
    assert find_splits(names) == expected


@pytest.mark.parametrize(
    ("split", "found", "chosen"),
    [
        (None, ["Train", "Val"], "Train"),
        (None, ["training_set", "test_set"], "training_set"),
        ("val", ["train2017", "val2017"], "val2017"),
        ("validation", ["train", "dev", "valid"], "valid"),
        ("val", ["val", "val2017"], "val"),
        ("val", ["val1", "val2"], None),
        ("train2017", ["train2014"], None),
        ("train", ["cat_train", "val"], None),
        (None, ["cat_train", "dog_train"], None),
    ],
)
def test_another_spelling_of_a_split_is_chosen_if_it_is_the_only_one(split, found, chosen):
    if chosen is None:
        with pytest.raises(BoxlessError, match=r"has no split|choose a split"):
            choose_split(split, found, Path("set"))
    else:
        assert choose_split(split, found, Path("set")) == chosen


def test_unsplit_data_has_no_split_names(tmp_path, image):
    image(tmp_path / "set" / "x" / "a.jpg")
    assert split_names(tmp_path / "set") == ()
    assert split_names(write(tmp_path / "set" / "t.csv", "image,tags\nx/a.jpg,x\n")) == ()


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(BoxlessError, match="there is no such file or folder"):
        split_names(tmp_path / "gone")
