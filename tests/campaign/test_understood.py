"""Of every layout, the doctor begins with a line on what was understood."""

from pathlib import Path

import pytest
from running import boxless
from victims import DATASETS, Victim

LINES = {
    "VOC": "PASCAL VOC, 2 images, 2 classes",
    "VOC without lists": "PASCAL VOC, 3 images, 2 classes",
    "COCO": "COCO, 3 images, 2 classes",
    "Label Studio": "Label Studio, 3 images, 3 classes",
    "YOLO": "YOLO, 2 images, 2 classes",
    "YOLO labels": "YOLO, 2 images, 2 classes",
    "tags": "table, 3 images, 2 classes",
    "classes": "table, 3 images, 2 classes",
    "boxes": "table of boxes, 3 images, 1 class",
}


@pytest.mark.parametrize("victim", DATASETS, ids=lambda victim: victim.name)
def test_the_doctor_begins_with_what_was_understood(
    victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    victim.make(tmp_path / "folder")
    assert boxless(monkeypatch, "doctor", tmp_path / "folder", "--json", tmp_path / "report.json") == 0
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.partition(": ")[2] == LINES[victim.name]
