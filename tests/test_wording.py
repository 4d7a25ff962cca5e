"""Numbers and their nouns in messages."""

import pytest

from boxless.datasets.problems import Problems
from boxless.wording import counted, duration, supervision_note


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((2424, "image"), "2,424 images"),
        ((1, "class"), "1 class"),
        ((3, "class"), "3 classes"),
        ((2, "proposed box"), "2 proposed boxes"),
        ((1, "image is", "images are"), "1 image is"),
        ((2, "image is", "images are"), "2 images are"),
    ],
)
def test_a_number_has_its_noun(words, expected):
    assert counted(*words) == expected


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("images without a label file, kept as negatives", "1 image without a label file"),
        ("annotation files without an image", "1 annotation file without an image"),
        ("folders of images without a COCO file, not read", "1 folder of images without a COCO file"),
        ("ids without an image in JPEGImages, left out", "1 id without an image in JPEGImages"),
        ("rows whose image is missing, left out", "1 row whose image is missing"),
    ],
)
def test_what_has_no_counterpart_is_counted(kind, one):
    problems = Problems()
    problems.add_unmatched(kind, "a")
    assert problems.unmatched() == [one]
    problems.add_unmatched(kind, "b")
    assert problems.unmatched() == [f"2 {kind.partition(',')[0]}"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (45.4, "45 s"), (59.6, "1 min 0 s"), (432, "7 min 12 s"), (3600, "1 h 0 min"), (3785, "1 h 3 min")],
)
def test_times_have_two_units(seconds: float, expected: str):
    assert duration(seconds) == expected


def test_a_fully_supervised_upper_bound_is_named():
    assert supervision_note({"supervision": "boxes"}) == " (fully supervised upper bound)"
    assert supervision_note({"supervision": "tags"}) == ""
    assert supervision_note({"supervision": "tags on 9 images, boxes on 2 of them"}) == (
        " (tags on 9 images, boxes on 2 of them)"
    )
