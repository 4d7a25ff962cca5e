import subprocess
import sys

import pytest

from boxless.datasets import load_dataset
from boxless.datasets._shared import Problems
from boxless.errors import BoxlessError


@pytest.fixture
def folders(tmp_path, image):
    for name in ("ant/1.jpg", "bee/1.jpg", "cow/1.jpg"):
        image(tmp_path / "set" / name)
    return tmp_path / "set"


def test_classes_are_chosen_and_ordered_and_the_rest_are_negatives(folders):
    dataset = load_dataset(folders, classes=["cow", "ant"])
    assert dataset.classes == ("cow", "ant")
    assert [sample.tags for sample in dataset.samples] == [{1}, set(), {0}]
    assert dataset.warnings == ("images without a tag, kept as negatives: 1 (bee/1.jpg)",)
    with pytest.raises(BoxlessError, match="no class 'dog'; it has: ant, bee, cow"):
        load_dataset(folders, classes=["dog"])


def test_home_and_plain_strings_are_understood(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders.parent))
    assert load_dataset("~/set").samples == load_dataset(folders).samples


def test_the_name_of_a_relative_path_is_the_folders(folders, monkeypatch):
    monkeypatch.chdir(folders)
    assert load_dataset(".").name == "set"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such file or folder"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: path.touch(), "is not a kind of file that holds a dataset"),
        (lambda path: (path / "docs").mkdir(parents=True), "it holds docs/"),
    ],
)
def test_what_is_not_a_dataset_is_an_error_that_lists_the_layouts(tmp_path, make, message):
    make(tmp_path / "thing")
    with pytest.raises(BoxlessError, match=f"thing.*{message}") as error:
        load_dataset(tmp_path / "thing")
    if message != "there is no such file or folder":
        assert all(layout in str(error.value) for layout in ("VOC", "COCO", "YOLO", "<class>/*.jpg", ".csv"))


def test_many_problems_of_a_kind_are_one_line():
    problems = Problems()
    for name in "abbcde":
        problems.add("odd", name)
    problems.add("even", "f")
    assert problems.lines() == ("odd: 6 (a, b, c, ...)", "even: 1 (f)")


def test_torch_is_not_imported():
    code = "import sys, boxless.datasets, boxless.datasets.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
