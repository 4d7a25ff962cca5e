from pathlib import Path

import pytest

from boxless.doctor.images import Image, Look
from boxless.doctor.names import check_names


def found(counts: dict[str, int], wanted: list[str] | None = None) -> list[list[str]]:
    """The classes that are blamed when so many images have these tags."""
    images = [
        Image("train", Path(f"{name}{number}.jpg"), Look("", 500, 0, 0), frozenset({name}), frozenset(), None)
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
def test_names_that_are_the_same_but_for_their_spelling(one: str, other: str):
    assert found({one: 30, other: 30}) == [[one, other]]
    assert found({one: 2, other: 30}) == [[one]]
    assert found({one: 30, other: 2, "dog": 9}) == [[other]]
    assert found({one: 3, other: 30}) == [[one, other]]


@pytest.mark.parametrize("slip", ["scrach", "scrratch", "scradch", "scrtach", "cratch", "Scratvh"])
def test_a_slip_in_a_long_name_that_is_rare(slip: str):
    assert found({slip: 2, "scratch": 30}) == [[slip]]
    assert found({slip: 3, "scratch": 30}) == []


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


def test_one_word_of_several_may_hold_the_slip():
    assert found({"suface scratch": 1, "surface scratch": 50}) == [["suface scratch"]]


def test_names_are_compared_with_those_that_were_not_chosen():
    counts = {"Cat": 30, "cat": 30, "Dog": 9, "dog": 9}
    assert found(counts, wanted=["cat"]) == [["Cat", "cat"]]
