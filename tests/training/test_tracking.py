import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

import boxless

pytestmark = pytest.mark.slow

OPTIONS = ["views.scales=[160]", "training.epochs=2", "training.monitor=val"]
OPTIONS += ["proposals.generator=grid", "proposals.min_area=0.05", "training.lr=0.003"]


@pytest.fixture(scope="module")
def tracked(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both trackers, without an account."""
    run = tmp_path_factory.mktemp("tracked") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("WANDB_API_KEY", raising=False)
        boxless.train(
            demo, run, method="contextlocnet", split="train", options=OPTIONS, trackers=["tensorboard", "wandb"]
        )
    return run


def test_history_has_a_line_an_epoch(tracked: Path) -> None:
    rows = [json.loads(line) for line in (tracked / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(
        np.isfinite([row["image labels"], row["lr"], row["seconds"], row["CorLoc"], row["mAP_11point"]]).all()
        for row in rows
    )


def test_tensorboard_has_curves_and_images(tracked: Path) -> None:
    file = next(tracked.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(file.parent), size_guidance={"images": 0})
    events.Reload()
    assert {"loss/image labels", "lr", "val/mAP_11point", "val/AP/ball"} <= set(events.Tags()["scalars"])
    rows = [json.loads(line) for line in (tracked / "history.jsonl").read_text().splitlines()]
    logged = [event.value for event in events.Scalars("val/CorLoc")]
    assert logged == pytest.approx([row["CorLoc"] for row in rows])
    images = [tag for tag in events.Tags()["images"] if tag.startswith(("boxes/", "heatmaps/"))]
    assert len(images) == 12
    assert events.Images(images[0])[0].encoded_image_string.startswith(b"\x89PNG")


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log, as W&B writes it: blocks of 32 KiB, the first after a header of 7 bytes."""
    whole, first, last = 1, 2, 4
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        part = content[position + 7 : position + 7 + length]
        record = part if kind in (whole, first) else record + part
        position += 7 + length
        if kind in (whole, last):
            yield record


def test_wandb_offline_has_curves_images_and_boxes(tracked: Path) -> None:
    file = next(tracked.rglob("run-*.wandb"))
    logged: dict[str, list[str]] = {}
    for data in wandb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            logged.setdefault(item.key or ".".join(item.nested_key), []).append(item.value_json)
    assert {"loss/image labels", "lr", "val/mAP_11point", "val/AP/ball"} <= logged.keys()
    rows = [json.loads(line) for line in (tracked / "history.jsonl").read_text().splitlines()]
    assert [json.loads(value) for value in logged["val/CorLoc"]] == pytest.approx([row["CorLoc"] for row in rows])
    assert len({key.split(".")[0] for key in logged if key.startswith("heatmaps/")}) == 6
    media = next(tracked.rglob("media"))
    assert any(media.rglob("*.png"))
    boxes = [json.loads(path.read_text()) for path in media.rglob("*.boxes2D.json")]
    assert boxes and all("box_data" in entry for entry in boxes)


def test_a_broken_image_of_the_monitored_split_is_left_out(demo: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(demo, data)
    boxless.load_dataset(data, "val").samples[0].path.write_bytes(b"")
    options = ["views.scales=[160]", "training.epochs=1", "training.monitor=val"]
    boxless.train(data, run, method="cam", split="train", options=options, trackers=["tensorboard"])
    file = next(run.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(file.parent), size_guidance={"images": 0})
    events.Reload()
    assert len([tag for tag in events.Tags()["images"] if tag.startswith("boxes/")]) == 5
