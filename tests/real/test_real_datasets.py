"""The loaders on real data sets, against the official boxes of VOC."""

import json
import os

import numpy as np
import pytest

from boxless.datasets import load_dataset
from boxless.images import image_size, read_image

pytestmark = pytest.mark.skipif("BOXLESS_DATA" not in os.environ, reason="set BOXLESS_DATA to the folder of real data")

ANIMALS = ["cat", "cow", "dog", "horse", "sheep"]


@pytest.mark.parametrize(("split", "count"), [("train", 2424), ("val", 400)])
def test_voc2012_animals_have_the_official_tags_and_boxes(data, split, count):
    dataset = load_dataset(data / "voc2012-animals", split)
    official = json.loads((data / "voc_official_boxes.json").read_text())["voc2012_all17125"]
    assert len(dataset) == count
    for sample in dataset.samples:
        rows = official[sample.id]
        certain = {row[0] for row in rows if not row[5]}
        assert {dataset.classes[tag] for tag in sample.tags} == certain
        assert {dataset.classes[tag] for tag in sample.unsure} == {row[0] for row in rows} - certain
        found = zip(sample.annotations.labels, sample.annotations.boxes, sample.annotations.ignore, strict=True)
        assert sorted((dataset.classes[label], *box.tolist(), bool(hard)) for label, box, hard in found) == sorted(
            (name, x1 - 1, y1 - 1, x2, y2, bool(hard)) for name, x1, y1, x2, y2, hard in rows
        )


def test_boxes_lie_in_the_displayed_image(data):
    for sample in load_dataset(data / "voc2012-animals", "val").samples[::20]:
        height, width = read_image(sample.path).shape[:2]
        assert image_size(sample.path) == (width, height)
        assert (sample.annotations.boxes >= 0).all()
        assert (sample.annotations.boxes <= np.array([width, height, width, height])).all()


def test_the_animals_benchmark(data):
    dataset = load_dataset(data / "voc2012-animals", "val", ANIMALS)
    assert dataset.classes == tuple(ANIMALS)
    assert dataset.image_labels().shape == (400, 5)
    assert np.nansum(dataset.image_labels(), axis=0).min() > 0


def test_playing_cards(data):
    train = load_dataset(data / "playing-cards")
    test = load_dataset(data / "playing-cards", "test")
    assert (len(train), len(test)) == (296, 67)
    assert train.classes == test.classes == ("ace", "jack", "king", "nine", "queen", "ten")
    assert train.has_boxes
