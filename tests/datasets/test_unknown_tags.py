"""Tags of which it is unknown whether they hold: neither positive nor negative."""

from pathlib import Path

import numpy as np
import pytest

from boxless.datasets import load_dataset
from boxless.structures import Count, Dataset


def load(folder: Path, *lines: str) -> Dataset:
    """The dataset of a table whose images are called 0.jpg, 1.jpg and so on; {} is the name."""
    rows = [line.replace("{}", f"{number}.jpg") for number, line in enumerate(lines[1:])]
    for number in range(len(rows)):
        (folder / f"{number}.jpg").touch()
    (folder / "tags.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    return load_dataset(folder / "tags.csv")


NAN = np.nan


@pytest.mark.parametrize(
    "lines",
    [
        ("image,tags", "{},dent;?scratch", "{},scratch", "{},"),
        ("image,tags", "{},dent|? scratch", "{},scratch", "{},"),
        ("image,tags", '{},"dent, ?scratch"', "{},scratch", "{},"),
        ("image,tags", "{},\"['dent', '?scratch']\"", "{},['scratch']", "{},[]"),
        ("image,tags", '{},"[""dent"", ""?scratch""]"', "{},scratch", "{},[]"),
        ("image,dent,scratch", "{},1,-1", "{},0,1", "{},0,"),
    ],
    ids=str,
)
def test_a_question_mark_and_minus_one_are_unknown_and_an_empty_cell_is_none(tmp_path: Path, lines: tuple[str, ...]):
    dataset = load(tmp_path, *lines)
    assert dataset.classes == ("dent", "scratch")
    np.testing.assert_array_equal(dataset.image_labels(), [[1, NAN], [0, 1], [0, 0]])


def test_a_class_that_is_present_in_another_row_of_the_image_is_present(tmp_path: Path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,?dent;?scratch\na.jpg,dent\n")
    (sample,) = load_dataset(tmp_path / "tags.csv").samples
    assert (sample.tags, sample.unsure) == ({0}, {1})


@pytest.mark.parametrize(
    "lines",
    [
        ("image,tags", "{},dent:3;scratch", "{},scratch:2+", "{},dent: 0 ;scratch : 1"),
        ("image,tags", "{},dent:3|scratch", "{},scratch:2+", "{},scratch:1"),
        ("image,tags", '{},"[""dent:3"", ""scratch""]"', "{},['scratch:2+']", "{},[scratch:1]"),
        ("image,tags", '{},"dent:3, scratch"', "{},scratch:2+", "{},scratch:1"),
    ],
    ids=str,
)
def test_a_number_behind_a_tag_counts_its_objects(tmp_path: Path, lines: tuple[str, ...]):
    dataset = load(tmp_path, *lines)
    assert dataset.classes == ("dent", "scratch")
    assert [sample.tags for sample in dataset.samples] == [{0, 1}, {1}, {1}]
    assert [sample.counts for sample in dataset.samples] == [{0: Count(3)}, {1: Count(2, True)}, {1: Count(1)}]
    assert "tags with a number of objects, such as `apple:3`: 3 (dent, scratch)" in dataset.warnings
    assert not dataset.has_boxes and dataset.without_annotations().samples == dataset.samples
    assert not any(sample.counts for sample in dataset.tags_only().samples)


def test_other_names_with_a_colon_are_names(tmp_path: Path):
    dataset = load(tmp_path, "image,tags", "{},scale 1:x;:3", "{},a:b;?dent:2")
    assert dataset.classes == (":3", "a:b", "dent", "scale 1:x")
    assert not any(sample.counts for sample in dataset.samples) and dataset.samples[1].unsure == {2}


def test_a_question_mark_alone_names_nothing(tmp_path: Path):
    dataset = load(tmp_path, "image,tags", "{},dent;?", "{},dent")
    assert dataset.classes == ("dent",)
    assert dataset.warnings == ("question marks without a tag, left out: 1 (dent;?)",)
