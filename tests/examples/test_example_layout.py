import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boxless.datasets import LAYOUTS, load_dataset, split_names
from boxless.errors import BoxlessError
from boxless.images import write_image

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "layout.py"


@pytest.fixture
def registered() -> Iterator[None]:
    runpy.run_path(str(EXAMPLE))
    yield
    del LAYOUTS["JSON Lines"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"image": "photos/1.jpg", "split": "train", "tags": ["scratch", "dent"]},
        {"image": "photos/2.jpg", "split": "train", "boxes": [["dent", 12, 30, 96, 74], ["dent", 0, 0, 8, 9]]},
        {"image": "photos/3.jpg", "split": "train", "tags": []},
        {"image": "photos/gone.jpg", "split": "train", "tags": ["dent"]},
        {"image": "photos/4.jpg", "split": "val", "tags": ["scratch"]},
    ]
    for number, row in enumerate(rows):
        if "gone" not in row["image"]:
            pixels = np.random.default_rng(number).integers(0, 256, (100, 120, 3), np.uint8)
            write_image(tmp_path / row["image"], pixels)
    (tmp_path / "parts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "parts.jsonl"


@pytest.mark.usefixtures("registered")
def test_tags_and_boxes_are_loaded(data: Path):
    assert split_names(data) == ("train", "val")
    dataset = load_dataset(data)
    assert (dataset.name, dataset.classes) == ("parts train", ("dent", "scratch"))
    assert [(one.id, one.path, one.tags) for one in dataset.samples] == [
        ("photos/1.jpg", data.parent / "photos/1.jpg", {0, 1}),
        ("photos/2.jpg", data.parent / "photos/2.jpg", {0}),
        ("photos/3.jpg", data.parent / "photos/3.jpg", set()),
    ]
    first, second, third = (one.annotations for one in dataset.samples)
    assert first is None and third is None and second is not None
    assert second.boxes.tolist() == [[12, 30, 96, 74], [0, 0, 8, 9]] and second.labels.tolist() == [0, 0]
    assert dataset.warnings[0] == "lines whose image is missing, left out: 1 (photos/gone.jpg)"
    with pytest.raises(BoxlessError, match="has no split 'test'; it has: train, val"):
        load_dataset(data, "test")


@pytest.mark.usefixtures("registered")
def test_other_files_keep_their_layout(data: Path, tmp_path: Path):
    (tmp_path / "tags.csv").write_text("image,tags\nphotos/1.jpg,dent\n")
    assert load_dataset(tmp_path / "tags.csv").classes == ("dent",)
    data.write_text("{")
    with pytest.raises(BoxlessError, match=r"parts\.jsonl: a line is not JSON"):
        load_dataset(data)


def test_the_example_runs_the_command_line(data: Path):
    run = subprocess.run([sys.executable, EXAMPLE, "doctor", data], capture_output=True, text=True, check=True)
    assert "parts.jsonl (train): 3 images" in run.stdout
    assert "dent" in run.stdout and "hopeless" in run.stdout
