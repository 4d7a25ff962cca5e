import importlib.metadata
import json
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from boxless.errors import BoxlessError
from boxless.run_folder import (
    FORMAT,
    read_history,
    read_manifest,
    result_file,
    save_checkpoint,
    versions,
    write_history,
)

WHOLE = {
    "format": FORMAT,
    "method": "cam",
    "supervision": "tags",
    "classes": ["cat"],
    "data": {},
    "weights": {},
    "seconds": {},
    "finished": True,
}
ROW = {"epoch": 1, "loss": 0.5, "seconds": 2.0}


def test_a_whole_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(WHOLE))
    assert read_manifest(tmp_path) == WHOLE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"5",
        b"\xff\xfe",
        b"{}",
        b"[" * 10**5,
        *(json.dumps({**WHOLE, key: None}).encode() for key in WHOLE if key != "format"),
        *(json.dumps({k: v for k, v in WHOLE.items() if k != key}).encode() for key in WHOLE),
        json.dumps({**WHOLE, "seconds": {"training": float("nan")}}).encode(),
    ],
)
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BoxlessError, match=r"manifest\.json: damaged \(.+\); train again") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    write_history(tmp_path, [ROW, {**ROW, "epoch": 2}])
    assert read_history(tmp_path) == [ROW, {**ROW, "epoch": 2}]


@pytest.mark.parametrize(
    "line",
    [b"{", b"5", b"[]", b"\xff", b'{"epoch": 1}', b'{"epoch": 2, "seconds": NaN}', b'{"epoch": 2, "seconds": "x"}'],
)
def test_a_damaged_history_is_one_line_with_the_fix(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "history.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n" + line + b"\n")
    with pytest.raises(BoxlessError, match=r"history\.jsonl: damaged \(.+\); delete it") as error:
        read_history(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("versions", [{"versions": {"boxless": "0.0.9"}}, {"versions": None}, {}])
def test_a_manifest_of_another_format_says_which(tmp_path: Path, versions: dict[str, object]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT - 1, **versions}))
    maker = "0.0.9" if versions.get("versions") else "another version"
    with pytest.raises(BoxlessError, match=f"format {FORMAT - 1}, made by Boxless {maker}; this version reads"):
        read_manifest(tmp_path)


def test_a_package_that_another_build_replaced_is_left_out_of_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name.startswith("opencv"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    found = versions()
    assert found["torch"] == "1.0" and not any(name.startswith("opencv") for name in found)


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_told(tmp_path: Path) -> None:
    model = nn.Linear(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(BoxlessError, match=r"checkpoint\.pt: cannot be written \(File too large\)"):
            save_checkpoint(tmp_path, model, optimizer, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_results_lie_in_the_run_folder_whatever_a_split_is_called(tmp_path: Path) -> None:
    assert result_file(tmp_path, "metrics", "photos a/b") == tmp_path / "metrics-photos-a-b.json"
