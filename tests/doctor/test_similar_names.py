from pathlib import Path

import pytest

from boxless.doctor.images import ImageFile, TaggedImage
from boxless.doctor.names import check_names, source_name


def found(counts: dict[str, int], wanted: list[str] | None = None) -> list[list[str]]:
    """The classes of the findings if these numbers of images have these tags."""
    images = [
        TaggedImage(
            "train", Path(f"{name}{number}.jpg"), ImageFile("", 500, 0, 0, 0), frozenset({name}), frozenset(), None
        )
        for name, count in counts.items()
        for number in range(count)
    ]
    return [finding.classes for finding in check_names(images, list(counts), wanted or list(counts))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("traffic light", "traffic_light"),
        ("traffic-light", "TrafficLight"),
        ("dent", "dents"),
        ("scratch", "Scratches"),
        ("K\u00e4fer", "Ka\u0308fer"),
    ],
)
def test_names_that_differ_in_spelling_only(one: str, other: str):
    assert found({one: 30, other: 30}) == [[one, other]]
    assert found({one: 2, other: 30}) == [[one]]
    assert found({one: 30, other: 2, "dog": 9}) == [[other]]
    assert found({one: 3, other: 30}) == [[one, other]]


@pytest.mark.parametrize("typo", ["scrach", "scrratch", "scradch", "scrtach", "cratch", "Scratvh"])
def test_a_typo_in_a_long_name_that_is_rare(typo: str):
    assert found({typo: 2, "scratch": 30}) == [[typo]]
    assert found({typo: 3, "scratch": 30}) == []


@pytest.mark.parametrize(
    ("rare", "common"),
    [
        ("cat", "car"),
        ("nine", "line"),
        ("type a", "type b"),
        ("grade_10001", "grade_10002"),
        ("scrahct", "scratch"),
        ("screw head", "screw"),
        ("steel bolt", "steel nuts"),
        ("c", "c++"),
        ("as", "a"),
    ],
)
def test_names_that_are_different_words(rare: str, common: str):
    assert found({rare: 1, common: 50}) == []


def test_one_of_several_words_may_have_the_typo():
    assert found({"suface scratch": 1, "surface scratch": 50}) == [["suface scratch"]]


def test_names_are_compared_with_those_that_were_not_selected():
    counts = {"Cat": 30, "cat": 30, "Dog": 9, "dog": 9}
    assert found(counts, wanted=["cat"]) == [["Cat", "cat"]]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("IMG_1_jpg.rf.5859bc4a16f7d97421db4c680710be9f.jpg", "IMG_1_jpg"),
        ("part_augmented_1.png", "part"),
        ("part-aug-12.png", "part"),
        ("part_aug3.png", "part"),
        ("part_AUG.png", "part"),
        ("cats_original_part.jpg_0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f.jpg", "part"),
        ("part_1.png", "part_1"),
        ("aug_1.png", "aug_1"),
        ("august_1.png", "august_1"),
        ("photo_3_aug_2024.png", "photo_3"),
        ("part.rf.png", "part.rf"),
    ],
)
def test_names_of_augmented_copies(name, source):
    assert source_name(Path(name)) == source
