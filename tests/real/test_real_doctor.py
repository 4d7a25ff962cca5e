"""The doctor's report on real datasets."""

import os
from pathlib import Path

import pytest

from boxless import examine

pytestmark = pytest.mark.skipif("BOXLESS_DATA" not in os.environ, reason="set BOXLESS_DATA to the folder of real data")

ANIMALS = ["cat", "cow", "dog", "horse", "sheep"]


def test_playing_cards(data: Path):
    report = examine(data / "playing-cards")
    assert (report["splits"], report["images"]) == (["train"], 296)
    assert {row["verdict"] for row in report["classes"].values()} == {"fine"}
    assert report["classes"]["ace"]["images"] == 82
    assert [finding["fault"] for finding in report["findings"]] == ["duplicates", "near duplicates"]
    duplicates, scenes = (
        [[Path(file).stem for file in group] for group in one["images"]] for one in report["findings"]
    )
    # Checked by eye: one image saved twice; five times the same cards, photographed again a moment later.
    assert duplicates == [["cam_image1", "cam_image54"]]
    pairs = [(2464, 2465), (2466, 2467), (2468, 2469), (2471, 2472), (2473, 2474)]
    assert scenes == [[f"IMG_{number}" for number in pair] for pair in pairs]


def test_the_animals_benchmark(data: Path):
    report = examine(data / "voc2012-animals", classes=ANIMALS)
    assert (report["splits"], report["images"]) == (["trainval"], 2824)
    assert {name: row["verdict"] for name, row in report["classes"].items()} == dict.fromkeys(ANIMALS, "fine")
    assert report["classes"]["horse"]["co_occurrence"] == {"class": "person", "share": pytest.approx(0.46, abs=0.005)}
    # No two VOC photographs are reported as duplicates, within or across train and val.
    assert report["findings"] == []
