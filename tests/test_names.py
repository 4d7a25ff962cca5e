"""File names that are not UTF-8, through the commands."""

import json
import os
import shutil
from pathlib import Path

import pytest
from running import boxless, small_settings

from boxless.datasets import load_dataset


def rename(data: Path, split: str) -> None:
    """Give an image of a split and its annotation a name in Latin-1."""
    file = data / "ImageSets" / "Main" / f"{split}.txt"
    old, *others = file.read_bytes().split(b"\n")
    new = split.encode() + b" caf\xe9"
    file.write_bytes(b"\n".join([new, *others]))
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        (data / folder / f"{old.decode()}{suffix}").rename(data / folder / f"{os.fsdecode(new)}{suffix}")


@pytest.mark.slow
def test_names_that_are_not_utf_8_are_no_problem(
    demo: Path, tmp_path: Path, short_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run, out = shutil.copytree(demo, tmp_path / "data"), tmp_path / "run", tmp_path / "out"
    for split in ("train", "val"):
        rename(data, split)
        assert os.fsdecode(split.encode() + b" caf\xe9.jpg") in {
            one.path.name for one in load_dataset(data, split).samples
        }
    out.mkdir()
    assert boxless(monkeypatch, "doctor", data, "--json", out / "doctor.json") == 0
    words = ["--split", "train", "--method", "cam", "--out", run, *small_settings("cam")]
    assert boxless(monkeypatch, "train", data, *words) == 0
    assert json.loads((run / "manifest.json").read_text())["data"]["images"] == 16
    assert boxless(monkeypatch, "evaluate", run, data, "--split", "val", "--json", out / "scores.json") == 0
    assert boxless(monkeypatch, "report", run, data, "--split", "val", "--out", out / "report.html") == 0
    # Text is UTF-8 all the same.
    written = {file.name: file.read_text(encoding="utf-8") for file in out.iterdir()}
    assert json.loads(written["doctor.json"])["images"] == 16
    assert json.loads(written["scores.json"])["images"] == 6
    assert r"val caf\udce9" in written["report.html"]
