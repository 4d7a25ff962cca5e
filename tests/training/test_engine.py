"""The parts of the training loop: parameter groups, warm-up, what is logged before the start."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from running import QUICK, SMALL, SMALL_BACKBONE, assert_same_bits, weights
from torch import nn

import boxless
from boxless.config import TrainingConfig
from boxless.training.engine import _loader, optimizer_for
from boxless.training.estimate import Estimate


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def train(data: Path, run: Path, *options: str, method: str = "cam") -> list[dict[str, Any]]:
    boxless.train(data, run, method=method, split="train", options=[*SMALL, *options], seed=1)
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


# Biases.


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_without_a_factor_all_weights_are_one_group(optimizer: str):
    (group,) = optimizer_for(model(), TrainingConfig(optimizer=optimizer, weight_decay=0.25)).param_groups
    assert [value.shape for value in group["params"]] == [value.shape for value in model().parameters()]
    assert group["weight_decay"] == 0.25 and "lr_factor" not in group


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_have_a_learning_rate_of_their_own_and_no_weight_decay(optimizer: str):
    network = model()
    training = TrainingConfig(optimizer=optimizer, weight_decay=0.25, bias_lr_factor=2)
    others, biases = optimizer_for(network, training).param_groups
    assert [id(value) for value in biases["params"]] == [id(network[0].bias), id(network[1].bias)]
    assert [id(value) for value in others["params"]] == [id(network[row].weight) for row in range(3)]
    assert (others["weight_decay"], biases["weight_decay"], biases["lr_factor"]) == (0.25, 0, 2)


def test_a_step_of_sgd_by_hand(demo: Path, tmp_path: Path):
    """One step at which biases start at 0 and weights do not: doubled rate for the one, decay for the other only."""
    base = ("training.epochs=1", "training.batch_size=16", "training.optimizer=sgd", "training.lr=0.1")
    base = (*base, "head.objectness=false")
    runs = {
        "start": ("training.lr=1e-20",),
        "plain": ("training.weight_decay=0",),
        "decay": ("training.weight_decay=0.5", "training.bias_lr_factor=2"),
        "null": ("training.weight_decay=0.5",),
    }
    found = {}
    for name, options in runs.items():
        train(demo, tmp_path / name, *base, *options)
        found[name] = weights(tmp_path / name)
    names = [name for name in found["start"] if name.startswith("model.") and name.endswith((".weight", ".bias"))]
    assert any(name.endswith(".bias") for name in names)
    for name in names:
        start, plain, decayed, null = (found[run][name] for run in runs)
        decay = -0.1 * 0.5 * start
        # Without decay a step is -lr * gradient.
        expected = start + 2 * (plain - start) if name.endswith(".bias") else plain + decay
        torch.testing.assert_close(decayed, expected, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(null, plain + decay, rtol=1e-4, atol=1e-7)


def test_a_run_with_two_groups_continues_with_the_same_bits(demo: Path, tmp_path: Path):
    options = ("training.bias_lr_factor=2", "training.warmup_steps=5")
    train(demo, tmp_path / "whole", *options)
    with pytest.raises(boxless.CancelledError):
        boxless.train(
            demo,
            tmp_path / "parts",
            method="cam",
            split="train",
            options=[*SMALL, *options],
            seed=1,
            on_epoch_end=lambda row: row["epoch"] < 2,
        )
    train(demo, tmp_path / "parts", *options)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


# Warm-up.


@pytest.mark.parametrize(
    ("accumulate", "expected"),
    [
        # 16 images make 4 steps an epoch; the history has the rate of an epoch's last step, here 3, 7 and 11. After 6
        # updates the rate has risen from a third to the whole.
        (1, [0.01 * (1 / 3 + 2 / 3 * 3 / 6), 0.01, 0.01]),
        # With two steps an update those of steps 3, 7 and 11 are number 1, 3 and 5.
        (2, [0.01 * (1 / 3 + 2 / 3 * number / 6) for number in (1, 3, 5)]),
        # The second update of an epoch is of one step.
        (3, [0.01 * (1 / 3 + 2 / 3 * number / 6) for number in (1, 3, 5)]),
    ],
)
def test_the_learning_rate_rises_from_a_third(demo: Path, tmp_path: Path, accumulate: int, expected: list[float]):
    options = ("training.lr=0.01", "training.drops=[0.99]", "training.warmup_steps=6")
    rows = train(demo, tmp_path / "run", *options, f"training.accumulate={accumulate}")
    assert [row["lr"] for row in rows] == pytest.approx(expected)


def test_the_history_has_the_rate_of_the_weights(demo: Path, tmp_path: Path):
    rows = train(demo, tmp_path / "run", "training.lr=0.01", "training.drops=[0.99]", "training.bias_lr_factor=2")
    assert [row["lr"] for row in rows] == pytest.approx([0.01] * 3)


def test_the_history_has_the_mean_over_processes(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    alone = train(demo, tmp_path / "alone")

    def reduced(accelerator: Accelerator, values: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "mean"
        return values * 3

    monkeypatch.setattr(Accelerator, "reduce", reduced)
    for row, other in zip(alone, train(demo, tmp_path / "others"), strict=True):
        assert other["image labels"] == pytest.approx(3 * row["image labels"], abs=2e-5)


# What is logged before the start.


def test_steps_time_and_memory_are_logged_before_the_start(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "boxless")
    monkeypatch.setattr("boxless.training.engine.estimate", lambda *words: Estimate(seconds=7.5, memory=2.34e9))
    train(demo, tmp_path / "run", "backbone.name=regnety_002", "backbone.weights=none", "head.objectness=false")
    # A linear classifier of 368 channels and 6 classes; twelve steps of 7.5 s.
    number = 6 * 368 + 6
    expected = (
        f"Training {number:,} weights of cam: 3 epochs of 4 steps of 4 images; about 1.5 min and 2.3 GB of memory"
    )
    messages = [record.getMessage() for record in caplog.records]
    assert messages.index(expected) < next(row for row, text in enumerate(messages) if text.startswith("epoch 1/3"))


# Reading ahead.


WORKERS = """
import sys
import boxless
data, folder, *options = sys.argv[1:]
for workers in (0, 2):
    own = [*options, f"training.workers={workers}"]
    boxless.train(data, f"{folder}/{workers}", method="wsddn", split="train", options=own, seed=1)
"""


@pytest.mark.slow
def test_workers_change_no_bit(demo: Path, tmp_path: Path):
    options = [*QUICK, *SMALL_BACKBONE, "views.scales=[96]", "backbone.freeze=none", "training.epochs=2"]
    # In a process of its own: workers are forked, and would share the event loop of the browser that other tests use.
    subprocess.run([sys.executable, "-c", WORKERS, demo, tmp_path, *options], check=True, timeout=300)
    assert_same_bits(tmp_path / "0", tmp_path / "2")


TORN = """
import sys
import boxless
from torch.utils.data import get_worker_info
from boxless.training.training_views import TrainingViews
data, folder, *options = sys.argv[1:]
read = TrainingViews.__getitem__
def torn(views, index):
    if get_worker_info():
        raise boxless.BoxlessError("a.npy: damaged")
    return read(views, index)
TrainingViews.__getitem__ = torn
try:
    boxless.train(data, folder, method="wsddn", split="train", options=[*options, "training.workers=2"])
except boxless.BoxlessError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_error_of_a_worker_is_raised_as_it_is(demo: Path, tmp_path: Path):
    options = [*QUICK, *SMALL_BACKBONE, "views.scales=[96]", "backbone.freeze=none", "training.epochs=1"]
    command = [sys.executable, "-c", TORN, str(demo), str(tmp_path / "run"), *options]
    ended = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    assert ended.stdout == "a.npy: damaged\n"


@pytest.mark.parametrize(
    ("workers", "averages_only", "device", "expected"),
    [
        (None, False, "cpu", 0),
        (None, False, "cuda", 2),
        (2, False, "cpu", 2),
        (0, False, "cuda", 0),
        (2, True, "cuda", 0),
    ],
)
def test_a_gpu_has_workers_unless_averages_are_kept(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, averages_only: bool, device: str, expected: int
):
    monkeypatch.setattr("boxless.training.engine.cores", lambda: 2)
    items = SimpleNamespace(averages_only=averages_only)
    loader = _loader(items, range(8), 2, workers, torch.device(device))  # type: ignore[arg-type]
    assert (loader.num_workers, loader.pin_memory, loader.persistent_workers) == (
        expected,
        device == "cuda",
        expected > 0,
    )
    if expected and sys.platform == "linux":
        assert loader.multiprocessing_context.get_start_method() == "fork"
