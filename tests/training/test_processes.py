"""A training by several processes, as `torchrun` and `accelerate launch` start them, beside one by a single process."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import SEEDED, SMALL_BACKBONE, weights

import boxless
from boxless.config import TrainingConfig
from boxless.distributed import batch_share
from boxless.errors import BoxlessError
from boxless.network import build_network
from boxless.run_folder import read_config

TORCHRUN = ["torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
ACCELERATE = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes=2"]
ACCELERATE += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
END_TO_END = (*SMALL_BACKBONE, "backbone.freeze=none", "views.scales=[96]", "proposals.generator=grid")
END_TO_END = (*END_TO_END, "proposals.min_area=0.05", "head.hidden=[32]", "head.dropout=0")
END_TO_END = (*END_TO_END, "training.optimizer=sgd", "training.lr=0.1", "training.bias_lr_factor=2")
END_TO_END = (*END_TO_END, "training.batch_size=1", "training.accumulate=4", "training.epochs=2")

RECORDED = """
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from running import shorten_training

from boxless.cli import main
from boxless.training.training_views import TrainingViews

rank, create = os.environ["RANK"], TrainingViews.__init__


def opened(event, words):
    if event == "open" and str(words[0]).endswith(".jpg") and "/run/" not in str(words[0]):
        # In one write, as threads and processes share the pipe.
        os.write(1, f"opened {rank} {Path(words[0]).name}\\n".encode())


def recorded(self, data, *rest):
    create(self, data, *rest)
    boxes = [sample.annotations.boxes for sample in data.dataset.samples if sample.annotations is not None]
    if boxes:
        with Path(sys.argv[-1]).with_name(f"boxes-{rank}").open("ab") as file:
            file.write(np.concatenate(boxes).tobytes())


sys.addaudithook(opened)
TrainingViews.__init__ = recorded
with pytest.MonkeyPatch.context() as patch:
    shorten_training(patch)
    main()
"""


def launched(folder: Path, launcher: list[str], *words: object) -> subprocess.CompletedProcess[str]:
    """What two processes print that share a cache of their own."""
    environment = os.environ | {"BOXLESS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", *launcher, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


# What each does of an update.


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "processes", "expected"),
    [(8, 1, 1, (8, 1)), (8, 1, 2, (4, 1)), (8, 3, 8, (1, 3)), (1, 8, 2, (1, 4)), (1, 2, 2, (1, 1)), (3, 4, 2, (3, 2))],
)
def test_the_images_of_an_update_are_shared(
    batch_size: int, accumulate: int, processes: int, expected: tuple[int, int]
):
    training = TrainingConfig(batch_size=batch_size, accumulate=accumulate)
    assert batch_share(training, processes) == expected
    assert expected[0] * expected[1] * processes == batch_size * accumulate


def test_an_update_that_cannot_be_shared_is_an_error():
    with pytest.raises(
        BoxlessError, match=r"cannot be shared evenly by 2 processes: start as many as divide one of them, or set"
    ):
        batch_share(TrainingConfig(batch_size=1, accumulate=1), 2)


# Two processes beside one.


@pytest.mark.slow
def test_end_to_end_two_processes_train_the_weights_of_one(demo: Path, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    boxless.train(demo, one, method="wsddn", split="train", options=END_TO_END)
    done = launched(
        tmp_path, TORCHRUN, "-m", "boxless", "train", demo, "--split=train", "--method=wsddn", *END_TO_END, "--out", two
    )
    alone, together = weights(one), weights(two)
    first = build_network(read_config(one), 6).state_dict()
    change = max(float((alone[name] - first[name]).abs().max()) for name in alone if alone[name].is_floating_point())
    differences = {name: float((alone[name].double() - together[name]).abs().max()) for name in alone}
    # Sums of gradients are rounded in another order.
    print(f"largest difference {max(differences.values()):.2g} of a change of {change:.2g}")
    assert change > 0.01 and max(differences.values()) < 1e-4 * change
    for row, other in zip(history(one), history(two), strict=True):
        assert other["image labels"] == pytest.approx(row["image labels"], abs=2e-5)
        assert other["lr"] == row["lr"]
    assert json.loads((two / "manifest.json").read_text())["command"].startswith("boxless train ")
    assert "2 epochs of 8 steps of 2 images, 1 in each of 2 processes" in done.stderr
    for line in ("epoch 2/2", "Trained in ", "Trained: "):
        assert done.stderr.count(line) == 1, done.stderr


@pytest.mark.slow
def test_seeded_with_two_processes(demo: Path, tmp_path: Path, short_training: None, monkeypatch: pytest.MonkeyPatch):
    """The classifier of the CAM has no chance in it; later networks draw proposals and mirrorings, in each process."""
    script = tmp_path / "train.py"
    script.write_text(RECORDED)
    # Batches of 16 do not go into the 16 images and their mosaics.
    options, run = (*SEEDED, "training.epochs=2", "training.batch_size=6", "pseudo_labels.rounds=1"), tmp_path / "run"
    done = launched(tmp_path, TORCHRUN, script, "train", demo, "--split=train", *options, "--out", run)
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    boxless.train(demo, tmp_path / "one", split="train", options=options)
    alone, together = weights(tmp_path / "one"), weights(run)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        if name.startswith("frozen."):
            assert torch.equal(value, together[name]), name
        # What follows the classifier takes so few steps here that the rounding of other threads decides its weights.
        elif name.startswith(("model.pca.", "model.cam.head.")):
            torch.testing.assert_close(value, together[name], rtol=1e-3, atol=1e-4)
    for network in (".", "cam", "fold-1-1", "fold-1-2"):
        rows, others = history(tmp_path / "one" / network), history(run / network)
        assert [(row["epoch"], row["lr"]) for row in rows] == [(row["epoch"], row["lr"]) for row in others]
    # All are trained on the same boxes: two folds and the final network.
    first, second = (np.fromfile(tmp_path / f"boxes-{process}", np.float32) for process in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert len(first) > 3 * 16
    # The main process reads them; the other one only its share of those in the rescaled pass.
    reads = Counter(line for line in done.stdout.splitlines() if line.startswith("opened"))
    names = {line.split()[2] for line in reads}
    by_other = [name for name in names if reads[f"opened 1 {name}"]]
    assert len(names) == 16 and 0 < len(by_other) < 16
    assert max(reads[f"opened 1 {name}"] for name in names) == 1
    assert done.stderr.count("Trained in ") == 1


@pytest.mark.slow
def test_accelerate_launch_with_a_number_of_images_that_does_not_divide(demo: Path, tmp_path: Path):
    options, run = ["head.objectness=false", *SMALL_BACKBONE, "views.scales=[96]"], tmp_path / "run"
    options += ["training.batch_size=6", "training.epochs=2"]
    with pytest.raises(boxless.CancelledError):
        boxless.train(demo, run, method="cam", split="train", options=options, on_epoch_end=lambda row: False)
    words = ["train", demo, "--split=train", "--method=cam", *options, "--out", run]
    # It was begun by one process.
    done = launched(tmp_path, ACCELERATE, "-m", "boxless", *words)
    # 16 images are two steps of six and one of four, to which two are added that were in the first.
    assert "1 epoch of 3 steps of 6 images, 3 in each of 2 processes" in done.stderr
    first, second = history(run)
    assert (first["epoch"], second["epoch"]) == (1, 2) and second["lr"] < first["lr"]
    assert (run / "weights.safetensors").exists()
