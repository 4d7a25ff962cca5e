"""YOLO sets as tools export them: without data.yaml, with paths of other machines, with labels that do not match."""

from pathlib import Path

import numpy as np
import pytest

from boxless.datasets import load_dataset, split_names, yolo_images
from boxless.datasets.lookup import RESPELLED
from boxless.errors import BoxlessError

LABEL = "0 0.5 0.5 0.2 0.4\n"
"""Of 100 x 80 pixels: (40, 24) to (60, 56)."""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return root


def assert_one_cat(data: Path, image: Path, split: str | None = None) -> None:
    dataset = load_dataset(data, split)
    assert [(sample.path, sample.tags) for sample in dataset.samples] == [(image, {0})]
    assert dataset.classes == ("cat", "dog")
    np.testing.assert_allclose(dataset.samples[0].annotations.boxes, [[40, 24, 60, 56]], rtol=1e-6)


@pytest.mark.parametrize("name", ["dataset.yaml", "cats.yml", "data.yaml"])
def test_the_yaml_may_have_any_name(tmp_path, image, name):
    photo = image(tmp_path / "images" / "a.jpg")
    others = {"mkdocs.yml": "site_name: x", "template.yml": "names: null"}
    write(tmp_path, others | {"labels/a.txt": LABEL, name: "names: [cat, dog]\ntrain: images"})
    assert_one_cat(tmp_path, photo)


@pytest.mark.parametrize("given", ["", "labels"])
def test_the_list_of_classes_may_lie_beside_the_labels(tmp_path, image, given):
    """As LabelImg writes it."""
    photo = image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": LABEL, "labels/classes.txt": "cat\ndog\n"})
    dataset = load_dataset(tmp_path / given)
    assert (dataset.name, dataset.classes, dataset.summary) == (
        tmp_path.name,
        ("cat", "dog"),
        "YOLO, 1 image, 2 classes",
    )
    assert [(sample.id, sample.path) for sample in dataset.samples] == [("images/a.jpg", photo)]


def test_labels_are_found_behind_many_empty_ones(tmp_path, image):
    empty = {f"labels/a{number}.txt": "" for number in range(30)}
    for name in (*empty, "labels/b.txt"):
        image(tmp_path / "images" / f"{name[7:-4]}.jpg")
    write(tmp_path, {**empty, "labels/b.txt": LABEL, "classes.txt": "cat\ndog\n"})
    assert load_dataset(tmp_path).summary == "YOLO, 31 images, 2 classes; 30 images without a tag, kept as negatives"


def test_keypoints_behind_a_box_are_no_polygon(tmp_path, image):
    photo = image(tmp_path / "images" / "a.jpg")
    text = "names: [cat, dog]\ntrain: images\nkpt_shape: [4, 2]"
    write(tmp_path, {"labels/a.txt": f"{LABEL.strip()} 0.1 0.1 0.9 0.1 0.9 0.9 0 0\n", "data.yaml": text})
    assert_one_cat(tmp_path, photo)


def test_keypoints_are_known_by_their_visibility(tmp_path, image):
    photo = image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": f"{LABEL.strip()} 0.1 0.1 2 0.9 0.9 0\n", "classes.txt": "cat\ndog\n"})
    assert_one_cat(tmp_path, photo)
    assert load_dataset(tmp_path).warnings[0] == (
        "labels with keypoints (a third of the numbers behind the box are 0, 1 or 2), not used: 1 (images/a.jpg)"
    )


@pytest.mark.parametrize(
    "label", ["cat 0.5 0.5 0.2 0.4", "0,0.5,0.5,0.2,0.4", "0;0.5;0.5;0.2;0.4", "0, 0.5, 0.5, 0.2, 0.4"]
)
def test_names_of_classes_and_commas_are_read(tmp_path, image, label):
    photo = image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": f"{label}\n", "data.yaml": "names: [cat, dog]\ntrain: images"})
    assert_one_cat(tmp_path, photo)
    named = "labels that begin with the name of a class, not with its number, read: 1 (images/a.jpg)"
    assert (named in load_dataset(tmp_path).warnings) == label.startswith("cat")


def test_an_image_with_the_label_file_of_another_is_left_out(tmp_path, image):
    photo = image(tmp_path / "images" / "0.jpg")
    image(tmp_path / "images" / "0.png")
    write(tmp_path, {"labels/0.txt": LABEL, "data.yaml": "names: [cat, dog]\ntrain: images"})
    assert_one_cat(tmp_path, photo)
    assert load_dataset(tmp_path).warnings[0] == "images with the label file of another, left out: 1 (images/0.png)"


def test_a_label_file_is_that_of_the_image_which_is_spelled_as_it(tmp_path, image):
    image(tmp_path / "images" / "A.jpg")
    photo = image(tmp_path / "images" / "a.png")
    write(tmp_path, {"labels/a.txt": LABEL, "data.yaml": "names: [cat, dog]\ntrain: images"})
    assert_one_cat(tmp_path, photo)
    left_out = "images with the label file of another, left out: 1 (images/A.jpg)"
    assert left_out in load_dataset(tmp_path).warnings


@pytest.mark.parametrize(
    ("text", "unlisted"),
    [
        ("train: images/train\nval: images/val", "images/extra/a.jpg"),
        ("train: train.txt\nval: images/val\ntest: nowhere", "images/extra/a.jpg, images/train/b.jpg"),
        ("train: images", ""),
    ],
)
def test_images_that_no_split_has_are_counted(tmp_path, image, text, unlisted):
    for name in ("train/a", "train/b", "val/a", "extra/a"):
        image(tmp_path / "images" / f"{name}.jpg")
        write(tmp_path, {f"labels/{name}.txt": LABEL})
    write(tmp_path, {"train.txt": "images/train/a.jpg\n", "data.yaml": f"names: [cat]\n{text}"})
    number = len(unlisted.split(", "))
    expected = (f"image files that no split has, not used: {number} ({unlisted})",) if unlisted else ()
    assert load_dataset(tmp_path).warnings == expected


def test_links_to_images_of_a_split_are_no_other_images(tmp_path, image):
    image(tmp_path / "images" / "real" / "a.jpg")
    write(tmp_path, {"labels/real/a.txt": LABEL, "data.yaml": "names: [cat]\ntrain: images/link"})
    for name in ("images", "labels"):
        (tmp_path / name / "link").symlink_to(tmp_path / name / "real", target_is_directory=True)
    assert load_dataset(tmp_path).warnings == ()


def test_keys_may_be_in_capitals(tmp_path, image):
    for split in ("train", "val"):
        photo = image(tmp_path / "images" / split / "a.jpg")
        write(tmp_path, {f"labels/{split}/a.txt": LABEL})
    write(tmp_path, {"data.yaml": "Names: [cat, dog]\ntrain: images/train\nVal: images/val"})
    assert split_names(tmp_path) == ("train", "val")
    assert_one_cat(tmp_path, photo, "val")


def test_a_list_of_images_may_have_any_suffix(tmp_path, image):
    photo = image(tmp_path / "images" / "a.jpg")
    files = {"labels/a.txt": LABEL, "train.lst": "images/a.jpg\n"}
    write(tmp_path, files | {"data.yaml": "names: [cat, dog]\ntrain: train.lst"})
    assert_one_cat(tmp_path, photo)


def test_a_score_behind_a_box_is_not_used(tmp_path, image):
    photo = image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": f"{LABEL.strip()} 0.93\n", "data.yaml": "names: [cat, dog]\ntrain: images"})
    assert_one_cat(tmp_path, photo)
    assert load_dataset(tmp_path).warnings[0] == (
        "labels with a sixth number, taken as a score and not used: 1 (images/a.jpg)"
    )


def test_null_is_no_folder(tmp_path, image):
    photo = image(tmp_path / "images" / "a.jpg")
    text = "path: null\ntrain: images\nval: ~\ntest: null\nnames: [cat, dog]"
    assert split_names(write(tmp_path, {"labels/a.txt": LABEL, "data.yaml": text})) == ("train",)
    assert_one_cat(tmp_path, photo)


@pytest.mark.parametrize(
    ("names", "message"),
    [("{0: cat, 0: dog}", r"cannot be read as YAML \(0 given twice\)"), ("{0: cat, 1: }", "a class without a name")],
)
def test_classes_that_would_be_lost_are_an_error(tmp_path, image, names, message):
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": LABEL, "data.yaml": f"names: {names}\ntrain: images"})
    with pytest.raises(BoxlessError, match=message):
        load_dataset(tmp_path)


def test_several_yaml_files_with_classes_are_an_error_that_names_them(tmp_path, image):
    image(tmp_path / "images" / "a.jpg")
    text = "names: [cat, dog]\ntrain: images"
    write(tmp_path, {"labels/a.txt": LABEL, "one.yaml": text, "two.yaml": text})
    with pytest.raises(BoxlessError, match=r"several YAML files name classes, give the path of one of one.yaml, two.y"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path / "two.yaml").classes == ("cat", "dog")


def test_darknet_as_cvat_exports_it(tmp_path, image):
    photo = image(tmp_path / "obj_train_data" / "sub" / "a b.jpg")
    files = {
        "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": "cat\ndog\n",
        "train.txt": "data/obj_train_data/sub/a b.jpg\n",
        "obj_train_data/sub/a b.txt": LABEL,
    }
    assert split_names(write(tmp_path, files)) == ("train",)
    assert_one_cat(tmp_path, photo)


@pytest.mark.parametrize("folders", [("images", "labels"), (".", "."), ("Images", "Labels")])
def test_a_list_of_classes_beside_images_and_labels(tmp_path, image, folders):
    photo = image(tmp_path / folders[0] / "a.jpg")
    write(tmp_path, {f"{folders[1]}/a.txt": LABEL, "classes.txt": "cat\ndog\n"})
    assert split_names(tmp_path) == ()
    assert_one_cat(tmp_path, photo)
    assert load_dataset(tmp_path).warnings == ("classes that no image is tagged with: 1 (dog)",)


@pytest.mark.parametrize("pattern", ["images/{}", "{}/images", "{}"])
def test_splits_beside_a_list_of_classes(tmp_path, image, pattern):
    for split in ("train", "val"):
        photo = image(tmp_path / pattern.format(split) / "a.jpg")
        labels = pattern.replace("images", "labels").format(split)
        write(tmp_path, {f"{labels}/a.txt": LABEL, "classes.txt": "cat\ndog\n"})
    assert split_names(tmp_path) == ("train", "val")
    assert_one_cat(tmp_path, photo, "val")


@pytest.mark.parametrize("splits", [("train", "val", "test1"), ("train2017", "val2017"), ("train",)])
def test_usual_spellings_of_splits_beside_a_list_of_classes_are_splits(tmp_path, image, splits):
    for split in (*splits, "extra"):
        image(tmp_path / "images" / split / f"{split}.jpg")
        write(tmp_path, {f"labels/{split}/{split}.txt": LABEL, "classes.txt": "cat\n"})
    assert split_names(tmp_path) == tuple(sorted(splits))
    dataset = load_dataset(tmp_path, "train")
    assert [sample.id for sample in dataset.samples] == [f"images/{splits[0]}/{splits[0]}.jpg"]
    assert dataset.warnings == ("image files that no split has, not used: 1 (images/extra/extra.jpg)",)


def test_a_list_of_classes_without_labels_is_no_yolo(tmp_path, image):
    image(tmp_path / "cat" / "a.jpg")
    write(tmp_path, {"classes.txt": "cat\ndog\n", "notes.txt": "12 cats"})
    assert load_dataset(tmp_path).summary.startswith("class folders")


@pytest.mark.parametrize("split", ["val", "valid"])
def test_validation_may_be_called_valid(tmp_path, image, split):
    photo = image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": LABEL, "data.yaml": "names: [cat, dog]\ntrain: nowhere\nvalid: images"})
    assert split_names(tmp_path) == ("train", "valid")
    assert_one_cat(tmp_path, photo, split)


@pytest.mark.parametrize(
    "text",
    [
        r"train: D:\data\cats\images\train",
        "path: D:\\data\\cats\ntrain: images/train",
        "path: D:\\data\\cats\ntrain: images\\train",
        "train: /content/drive/cats/images/train",
        "train: /content/drive/cats/list.txt",
        "train: Images/Train",
    ],
)
def test_paths_of_another_machine_are_found_by_their_end(tmp_path, image, text):
    photo = image(tmp_path / "images" / "train" / "a.jpg")
    files = {"labels/train/a.txt": LABEL, "data.yaml": f"names: [cat, dog]\n{text}"}
    assert_one_cat(write(tmp_path, files | {"list.txt": "D:\\data\\images\\train\\a.jpg\n"}), photo)


def test_a_split_that_is_a_folder_far_above_is_not_searched(tmp_path, image, monkeypatch):
    """It may be the whole disk."""
    file = tmp_path / "a" / "b" / "data.yaml"
    image(tmp_path / "a" / "b" / "images" / "x.png")
    for path, refused in (("../../..", True), ("../..", True), ("/", True), ("..", False), (".", False)):
        file.write_text(f"names: [cat]\ntrain: {path}\n")
        if refused:
            with monkeypatch.context() as patch, pytest.raises(BoxlessError, match="is far above it; give the folder"):
                patch.setattr(yolo_images, "scan_images", lambda *_: pytest.fail("it is searched"))
                load_dataset(file)
        else:
            with pytest.raises(BoxlessError, match="none of the 1 usable image"):
                load_dataset(file)


def test_names_are_as_written(tmp_path, image):
    image(tmp_path / "images" / "a.jpg")
    names = "[yes, no, 'off', 010, 1e3, null, 2024-01-01, ~, 12:30]"
    write(tmp_path, {"labels/a.txt": LABEL, "data.yaml": f"names: {names}\ntrain: images"})
    expected = ("yes", "no", "off", "010", "1e3", "null", "2024-01-01", "~", "12:30")
    assert load_dataset(tmp_path).classes == expected


@pytest.mark.parametrize(
    ("photo", "label"),
    [
        ("images/a b.jpg", "labels/a%20b.txt"),
        ("images/a.jpg", "labels/A.TXT"),
        ("images/a.jpg", "labels/a.jpg.txt"),
        ("images/caf\u00e9.jpg", "labels/cafe\u0301.txt"),
        ("images/caf\udce9.jpg", "labels/caf\u00e9.txt"),
        ("images/a.jpg", "images/a.jpg.txt"),
    ],
)
def test_label_files_that_are_spelled_otherwise_are_matched_and_counted(tmp_path, image, photo, label):
    path = image(tmp_path / photo)
    write(tmp_path, {label: LABEL, "data.yaml": "names: [cat, dog]\ntrain: images"})
    assert_one_cat(tmp_path, path)
    assert load_dataset(tmp_path).warnings[0].startswith(f"{RESPELLED}: 1 (")


def test_folders_in_capitals_are_no_problem(tmp_path, image):
    photo = image(tmp_path / "Images" / "train" / "a.jpg")
    write(tmp_path, {"Labels/Train/a.txt": LABEL, "data.yaml": "names: [cat, dog]\ntrain: Images/train"})
    assert_one_cat(tmp_path, photo)


def test_labels_and_images_without_counterpart_are_counted_and_most_are_an_error(tmp_path, image):
    for name in "abc":
        image(tmp_path / "images" / "train" / f"{name}.jpg")
    labels = dict.fromkeys((f"labels/train/{name}.txt" for name in "abxy"), LABEL)
    write(tmp_path, labels | {"labels/train/classes.txt": "cat\ndog", "data.yaml": "names: [cat, dog]\ntrain: images"})
    # As where a file that is kept elsewhere is not there.
    (tmp_path / "labels" / "train" / "z.txt").symlink_to("/nowhere/z.txt")
    dataset = load_dataset(tmp_path)
    assert [sample.tags for sample in dataset.samples] == [{0}, {0}, set()]
    assert dataset.warnings[:2] == (
        "images without a label file, kept as negatives: 1 (images/train/c.jpg)",
        "label files without an image: 2 (labels/train/x.txt, labels/train/y.txt)",
    )
    assert dataset.summary == (
        "YOLO, 3 images, 2 classes, 1 image without a label file, 2 label files without an image"
        "; 1 image without a tag, kept as a negative"
    )
    (tmp_path / "images" / "train" / "b.jpg").rename(tmp_path / "images" / "train" / "new.jpg")
    with pytest.raises(
        BoxlessError, match=r"3 of 4 label files without an image \(labels/train/b.txt, labels/train/x.t"
    ):
        load_dataset(tmp_path)


def test_labels_of_another_split_in_the_same_folder_have_an_image(tmp_path, image):
    for name in "abc":
        image(tmp_path / "images" / f"{name}.jpg")
        write(tmp_path, {f"labels/{name}.txt": LABEL})
    lists = {"train.txt": "images/a.jpg\n", "val.txt": "images/b.jpg\nimages/c.jpg\n"}
    write(tmp_path, lists | {"data.yaml": "names: [cat]\ntrain: train.txt\nval: val.txt"})
    assert load_dataset(tmp_path).warnings == load_dataset(tmp_path, "val").warnings == ()


def test_a_list_of_which_most_images_are_missing_is_an_error(tmp_path, image):
    image(tmp_path / "images" / "a.jpg")
    files = {"labels/a.txt": LABEL, "train.txt": "images/a.jpg\nimages/x.jpg\nimages/y.jpg\n"}
    write(tmp_path, files | {"data.yaml": "names: [cat]\ntrain: train.txt"})
    with pytest.raises(BoxlessError, match=r"2 of 3 images listed but missing \(images/x.jpg, images/y.jpg\)"):
        load_dataset(tmp_path)


def test_links_are_followed_and_images_in_other_formats_are_counted(tmp_path, image):
    image(tmp_path / "elsewhere" / "images" / "a.jpg")
    write(tmp_path, {"elsewhere/labels/a.txt": LABEL, "set/data.yaml": "names: [cat, dog]\ntrain: images"})
    for name in ("images", "labels"):
        (tmp_path / "set" / name).mkdir()
        (tmp_path / "set" / name / "one").symlink_to(tmp_path / "elsewhere" / name, target_is_directory=True)
    assert_one_cat(tmp_path / "set", tmp_path / "set" / "images" / "one" / "a.jpg")
    (tmp_path / "set" / "images" / "b.NEF").touch()
    assert load_dataset(tmp_path / "set").warnings[0] == (
        "image files left out, a raw file of a camera, which is not read; convert it to JPEG or PNG: 1 (images/b.NEF)"
    )


@pytest.mark.parametrize(("inside", "given"), [("labels", "."), ("images", "data.yaml"), ("", ".")])
def test_a_set_is_the_same_from_within_its_folders(tmp_path, image, monkeypatch, inside, given):
    photo = image(tmp_path / "images" / "a.jpg")
    yaml = {"images/data.yaml": "names: [cat, dog]\ntrain: ."} if inside == "images" else {}
    write(tmp_path, {"labels/a.txt": LABEL, "labels/classes.txt": "cat\ndog\n", **yaml})
    monkeypatch.chdir(tmp_path / inside)
    (sample,) = load_dataset(given).samples
    assert sample.path.resolve() == photo
    np.testing.assert_allclose(sample.annotations.boxes, [[40, 24, 60, 56]], rtol=1e-6)


def test_a_blank_line_between_classes_is_an_error_and_one_behind_them_is_not(tmp_path, image):
    image(tmp_path / "images" / "a.jpg")
    write(tmp_path, {"labels/a.txt": LABEL, "classes.txt": "cat\ndog\n\n \n"})
    assert load_dataset(tmp_path).classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(BoxlessError, match=r"classes\.txt: line 2 is blank, and a class's number is that of its line"):
        load_dataset(tmp_path)
