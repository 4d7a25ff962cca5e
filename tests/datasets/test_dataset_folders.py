import pytest

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError


def test_folders_are_classes(tmp_path, image):
    for name in ("katze süß/1.jpg", "dog/a b.PNG", "dog/deep/1.jpg", "dog/.ipynb_checkpoints/1.jpg", ".git/1.jpg"):
        image(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.classes) == (tmp_path.name, ("dog", "katze süß"))
    assert [(s.id, s.tags) for s in dataset.samples] == [
        ("dog/a b.PNG", {0}),
        ("dog/deep/1.jpg", {0}),
        ("katze süß/1.jpg", {1}),
    ]
    assert dataset.samples[0].path == tmp_path / "dog" / "a b.PNG"
    assert not dataset.has_boxes
    assert dataset.warnings == ()
    with pytest.raises(BoxlessError, match="has no splits, so 'train' cannot be chosen"):
        load_dataset(tmp_path, "train")


def test_splits_above_the_classes(tmp_path, image):
    for name in ("train/dog/1.jpg", "train/cat/1.jpg", "val/dog/2.jpg", "train/stray.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.classes) == (f"{tmp_path.name} train", ("cat", "dog"))
    assert [(s.id, s.tags) for s in dataset.samples] == [("train/cat/1.jpg", {0}), ("train/dog/1.jpg", {1})]
    assert dataset.warnings == ("images outside of the class folders, left out: 1 (train/stray.jpg)",)
    assert load_dataset(tmp_path, "val").classes == ("dog",)
    with pytest.raises(BoxlessError, match="no split 'test'; it has: train, val"):
        load_dataset(tmp_path, "test")


def test_splits_of_any_name_where_classes_lie_below_all_of_them(tmp_path, image):
    for name in ("2023/dog/1.jpg", "2024/dog/1.jpg"):
        image(tmp_path / name)
    assert [sample.id for sample in load_dataset(tmp_path, "2024").samples] == ["2024/dog/1.jpg"]


def test_a_class_may_be_called_train(tmp_path, image):
    for name in ("train/1.jpg", "bus/1.jpg"):
        image(tmp_path / name)
    assert load_dataset(tmp_path).classes == ("bus", "train")


@pytest.mark.parametrize("names", [["train/1.jpg", "val/1.jpg"], ["images/train/1.jpg"], ["images/1.jpg"], ["1.jpg"]])
def test_folders_that_cannot_be_classes_are_not_taken_for_some(tmp_path, image, names):
    for name in names:
        image(tmp_path / name)
    with pytest.raises(BoxlessError, match="laid out in no way that is known; it holds"):
        load_dataset(tmp_path)
