"""What class folders and their images are called."""

import pytest

from boxless.datasets import load_dataset

SAME = "class folders whose images have the same names, as masks and images of another camera have"


def test_names_may_begin_as_those_of_folders_of_network_disks(tmp_path, image):
    for name in ("cat/@user_cat0.jpg", "@home/1.jpg", "@eaDir/1.jpg", "cat/@Recycle/1.jpg", "@tmp/1.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["@home/1.jpg", "cat/@user_cat0.jpg"]
    assert (dataset.classes, dataset.warnings) == (("@home", "cat"), ())


@pytest.mark.parametrize(
    ("folders", "name", "is_named"),
    [
        (("cat", "dog"), "image_{:04}", False),
        (("cat", "dog"), "IMG_{:04}", False),
        (("cat", "dog"), "img ({})", False),
        (("cat", "dog"), "{}_100", False),
        (("cat/scene 1", "cat/scene 2", "dog"), "frame_{:04}", False),
        (("with_mask", "without_mask"), "{}", False),
        (("mask", "no_mask"), "{}", False),
        (("masked", "unmasked"), "{}", False),
        (("mascara", "lipstick"), "{}", False),
        (("thumb", "index", "palm"), "{}", False),
        (("depth", "flat"), "{}", False),
        (("cat", "cat_masks"), "image_{:04}", True),
        (("rgb", "depth"), "{:06}", True),
        (("normal", "thermal"), "{}", True),
    ],
)
def test_of_numbered_images_only_folders_called_as_masks_are_named(tmp_path, image, folders, name, is_named):
    for folder in folders:
        for number in (0, 7, 10, 100):
            image(tmp_path / folder / f"{name.format(number)}.jpg")
    assert any(SAME in warning for warning in load_dataset(tmp_path).warnings) == is_named


def test_folders_whose_images_have_the_same_names_that_are_no_numbers_are_named(tmp_path, image):
    for folder in ("one", "two"):
        for name in ("beach", "house", "tree 1"):
            image(tmp_path / folder / f"{name}.jpg")
    assert load_dataset(tmp_path).warnings == (f"{SAME}: 1 (one and two)",)


@pytest.mark.parametrize(
    "classes", [("covid eval", "covid test"), ("other", "test", "training"), ("train 1", "train 2")]
)
def test_folders_called_like_splits_that_hold_images_only_are_classes(tmp_path, image, classes):
    for name in classes:
        image(tmp_path / name / "1.jpg")
    dataset = load_dataset(tmp_path)
    assert (dataset.classes, len(dataset)) == (classes, len(classes))
    assert "class folders that are called like splits, classes as they hold images directly: 2" in dataset.warnings[0]
    image(tmp_path / classes[0] / "cat" / "2.jpg")
    image(tmp_path / classes[1] / "cat" / "2.jpg")
    if classes[0] == "covid eval":
        assert load_dataset(tmp_path, "covid test").classes == ("cat",)
