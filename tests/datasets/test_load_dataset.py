import subprocess
import sys
from pathlib import Path

import pytest

from boxless.datasets import LAYOUTS, Source, load_dataset, split_names
from boxless.datasets.class_names import report_names
from boxless.datasets.problems import Problems
from boxless.errors import BoxlessError
from boxless.structures import Dataset, Sample


@pytest.fixture
def folders(tmp_path, image):
    for name in ("ant/1.jpg", "bee/1.jpg", "cow/1.jpg"):
        image(tmp_path / "set" / name)
    return tmp_path / "set"


def test_classes_are_selected_and_ordered_and_other_images_are_negatives(folders):
    dataset = load_dataset(folders, classes=["cow", "ant"])
    assert dataset.classes == ("cow", "ant")
    assert [sample.tags for sample in dataset.samples] == [{1}, set(), {0}]
    assert dataset.warnings == ()
    used = "of the classes 2 are used; 1 image without a tag, kept as a negative"
    assert dataset.summary == f"class folders, 3 images, 3 classes; {used}"
    with pytest.raises(BoxlessError, match="no class 'dog'; it has: ant, bee, cow"):
        load_dataset(folders, classes=["dog"])


def test_classes_that_look_like_mistakes_in_tags_are_named(tmp_path, image):
    for number, name in enumerate(("Ant", "ant", "bee", "ant and bee", "bee, ant", "queen bee")):
        image(tmp_path / "set" / name / f"{number}.jpg")
    assert load_dataset(tmp_path / "set").warnings == (
        "classes whose names differ in case or punctuation only: 1 (Ant and ant)",
        "classes that join the names of others; in a table `;` separates tags: 2 (ant and bee, bee, ant)",
    )


def remarks(*classes: str) -> tuple[str, ...]:
    problems = Problems()
    report_names(classes, problems)
    return problems.lines()


def test_names_that_differ_in_their_encoding_or_as_numbers_are_named():
    accents = ("cafe\u0301", "caf\u00e9", "cafe")
    assert remarks(*accents) == (
        "classes whose names differ in the encoding of accents only (NFC and NFD): 1 (cafe\u0301 and caf\u00e9)",
    )
    assert remarks("1", "1.0", "10") == ("classes whose names are the same number: 1 (1 and 1.0)",)
    # Two words of Hindi that differ in their vowels, which are signs.
    assert remarks("v1.0", "v10", "A+", "A", "\u0915\u093f", "\u0915\u093e") == ()


@pytest.mark.parametrize(
    "classes",
    [
        ("cat/dog", "cat+bird", "dog & bird"),
        ("haze primary", "haze road", "primary road", "clear haze", "haze primary road"),
    ],
)
def test_combinations_of_the_same_words_are_named(classes):
    (line,) = remarks(*classes)
    assert line.startswith(
        "classes that combine the same few words, as joined tags do; in a table `;` separates tags: "
    )
    assert "(" + ", ".join(classes) + ")" in line


def test_names_of_several_words_are_not_named():
    suits, ranks = ("spades", "hearts"), ("ace", "two", "ten")
    assert remarks(*(f"{rank} of {suit}" for rank in ranks for suit in suits)) == ()
    assert remarks("traffic light", "AC/DC", "stop sign", "black & white", "baseball bat", "baseball glove") == ()
    assert remarks("red apple", "green apple", "red pepper", "green pepper", "apple", "pepper") == ()
    assert remarks("apple leaf", "apple rust leaf", "tomato leaf", "tomato leaf mosaic virus", "leaf spot") == ()


def test_home_and_plain_strings_are_accepted(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders.parent))
    assert load_dataset("~/set").samples == load_dataset(folders).samples


def test_the_name_of_a_relative_path_is_that_of_the_folder(folders, monkeypatch):
    monkeypatch.chdir(folders)
    assert load_dataset(".").name == "set"


@pytest.mark.parametrize("name", ["", "tags.csv"])
def test_a_folder_that_cannot_be_opened_is_passed_over(tmp_path, image, monkeypatch, name):
    """As `lost+found` at the top of a disk, for any user but root."""
    for label in ("cat", "dog"):
        image(tmp_path / label / "a.jpg")
    (tmp_path / "lost+found").mkdir()
    if name:
        (tmp_path / name).write_text("image,tags\ncat/a.jpg,cat\ndog/a.jpg,dog\n")
    listed, stat = Path.iterdir, Path.stat

    def refused(call):
        def called(path, *words, **named):
            if "lost+found" in (path.parts if call is listed else path.parent.parts):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *words, **named)

        return called

    monkeypatch.setattr(Path, "iterdir", refused(listed))
    monkeypatch.setattr(Path, "stat", refused(stat))
    assert [one.id for one in load_dataset(tmp_path / name).samples] == ["cat/a.jpg", "dog/a.jpg"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such file or folder"),
        (lambda path: path.mkdir(), "the folder is empty"),
        (lambda path: path.touch(), "not a file of a recognised dataset layout"),
        (lambda path: (path / "docs").mkdir(parents=True), r"not a recognised dataset layout \(found: docs/\)"),
    ],
)
def test_an_unrecognised_path_is_an_error_that_lists_the_layouts(tmp_path, make, message):
    make(tmp_path / "thing")
    with pytest.raises(BoxlessError, match=f"thing.*{message}") as error:
        load_dataset(tmp_path / "thing")
    if message != "there is no such file or folder":
        assert all(layout in str(error.value) for layout in ("VOC", "COCO", "YOLO", "<class>/*.jpg", ".csv"))


def test_a_layout_registered_from_outside_is_tried_first(folders, monkeypatch):
    def own(path):
        """A folder with a file `mine`."""
        if not (path / "mine").exists():
            return None
        sample = Sample("1", path / "ant" / "1.jpg", frozenset([0]))
        return Source(lambda: ["all"], lambda split: Dataset("own", ("thing",), (sample,)))

    monkeypatch.setitem(LAYOUTS, "own", own)
    assert load_dataset(folders).classes == ("ant", "bee", "cow")
    with pytest.raises(BoxlessError, match=r"(?s)nothing: .*\n  own +A folder with a file `mine`\n  PASCAL VOC"):
        (folders / "nothing").mkdir()
        load_dataset(folders / "nothing")
    (folders / "mine").touch()
    assert (load_dataset(folders).classes, split_names(folders)) == (("thing",), ("all",))
    assert load_dataset(folders).summary == "own, 1 image, 1 class"


def test_many_problems_of_a_kind_are_one_line():
    problems = Problems()
    for name in "abbcdef":
        problems.add("odd", name)
    problems.add("even", "gr\udcfcn")
    assert problems.lines() == ("odd: 7 (a, b, c, d, e, ...)", r"even: 1 (gr\udcfcn)")


def test_names_that_break_or_control_a_line_are_shown_escaped():
    problems = Problems()
    problems.add("files", "a\x0cb\u2028c\x1b[3m \xa0é\udcff\n")
    assert problems.lines() == ("files: 1 (a\\x0cb\\u2028c\\x1b[3m \xa0é\\udcff\\n)",)


def test_problems_of_more_than_half_stop_loading():
    problems = Problems()
    for name in "abc":
        problems.add_unmatched("labels without an image, left out", name)
    problems.refuse_most("labels without an image, left out", 6, Path("set"), "rename them")
    problems.refuse_most("something else", 0, Path("set"), "no")
    with pytest.raises(BoxlessError, match=r"^set: 3 of 5 labels without an image \(a, b, c\); rename them$"):
        problems.refuse_most("labels without an image, left out", 5, Path("set"), "rename them")
    assert problems.unmatched() == ["3 labels without an image"]


def test_torch_is_not_imported():
    code = "import sys, boxless.datasets, boxless.datasets.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
