"""What several tests of training share: runs compared to the bit, runs that are killed, and the command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from boxless.cli import main

SMALL = ("views.scales=[160]", "training.epochs=3", "training.batch_size=4")
GRID = (*SMALL, "proposals.generator=grid", "proposals.min_area=0.05", "head.hidden=[32]")
QUICK = (*GRID, "head.reduce=8")
SEEDED = (*GRID, "head.components=[12, 6]", "backbone.name=regnety_002", "backbone.weights=none")
"""A small network: the principal components of a large one take longer than all the rest."""
STUDENT = (*(option for option in SEEDED if "hidden" not in option), "head.channels=8")


def boxless(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line in this process; returns its exit status."""
    monkeypatch.setattr("sys.argv", ["boxless", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights.safetensors")


def assert_same_bits(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


TRAIN = """
import sys, boxless, boxless.training.fitting, boxless.training.engine, boxless.pseudo_labels.mosaic
boxless.training.engine.EPOCHS, boxless.training.fitting.SCALED, boxless.pseudo_labels.mosaic.SHARE = 2, 2, 1
boxless.train(sys.argv[1], sys.argv[2], method=sys.argv[3], split="train", options=sys.argv[4:], seed=1)
"""


def train_and_kill(demo: Path, run: Path, method: str, options: tuple[str, ...], sign: Path) -> None:
    """Train in a process of its own, and kill it as soon as a file is there."""
    words = [sys.executable, "-c", TRAIN, str(demo), str(run), method, *options]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "weights.safetensors").exists()
