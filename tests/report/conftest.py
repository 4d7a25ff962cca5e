import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from boxless import load_dataset, train
from boxless.cli import main

HOSTILE = (
    "<script>document.title='taken'</script>",
    "</script><img src=x onerror=\"document.title='taken'\">",
    "{{data}}",
)
"""Class names, which the page must show as text."""
HOSTILE_FILE = "<img src=x onerror=document.title='taken'> & \"quoted\".jpg"


def boxless(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line in this process; returns its exit status."""
    monkeypatch.setattr("sys.argv", ["boxless", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    return lambda *words: boxless(monkeypatch, *words)


@pytest.fixture(scope="session")
def data(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo set as COCO, three of its classes under hostile names, one image too, and one broken in val."""
    root = tmp_path_factory.mktemp("data") / "hostile"
    for split in ("train", "val"):
        dataset = load_dataset(demo, split)
        (root / "images").mkdir(parents=True, exist_ok=True)
        names = [*HOSTILE, *dataset.classes[3:]]
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names)]
        for i, sample in enumerate(dataset.samples):
            name = HOSTILE_FILE if (split, i) == ("val", 0) else f"{split} {i}.jpg"
            shutil.copy(sample.path, root / "images" / name)
            if (split, i) == ("val", 1):
                (root / "images" / name).write_bytes(sample.path.read_bytes()[:900])
            content["images"].append({"id": i, "file_name": name})
            assert sample.annotations is not None
            for box, label in zip(sample.annotations.boxes.tolist(), sample.annotations.labels.tolist(), strict=True):
                x1, y1, x2, y2 = box
                row = {"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                content["annotations"].append(row)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default method on that data."""
    out = tmp_path_factory.mktemp("report") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        train(data, out, split="train", options=["views.scales=[160]", "training.epochs=15", "head.hidden=[64]"])
    return out


@pytest.fixture(scope="session")
def report(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the run on its data, as the command line writes it."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert boxless(patch, "report", run, data, "--split", "val", "--out", out) == 0
    return out
