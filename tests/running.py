"""What several tests of training share: small settings, weights compared to the bit, killed runs, the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import boxless as boxless
from safetensors.torch import load_file

from boxless.methods import PRESETS

SMALL = ("views.scales=[160]", "training.epochs=3", "training.batch_size=4")
QUICK = (*SMALL, "proposals.generator=grid", "proposals.min_area=0.05", "head.hidden=[32]")
SMALL_BACKBONE = ("backbone.name=regnety_002", "backbone.weights=none")
"""The principal components of a large one take longer than all the rest."""
SEEDED = (*QUICK, "head.pca_dims=[12, 6]", *SMALL_BACKBONE)
STUDENT = tuple(option for option in SEEDED if "hidden" not in option)

_BY_HEAD = {
    "cam": SMALL,
    "oquab": (*SMALL, "inference.views.scales=[160]", "head.hidden=[32]"),
    "mil": QUICK,
    "fast_rcnn": SEEDED,
    "fcos": STUDENT,
}


def small_settings(method: str) -> tuple[str, ...]:
    """Settings with which a method trains in a few seconds: two epochs for each network, and one round of them."""
    own = _BY_HEAD.get(PRESETS[method]["head"]["kind"], SMALL)
    return (*own, *SMALL_BACKBONE, "training.epochs=2", "pseudo_labels.rounds=1")


def as_stored(features: torch.Tensor) -> torch.Tensor:
    """What is read back of cached maps: half precision rounded to the upper byte, ties to even."""
    bits = features.half().numpy().view(np.uint16).astype(np.uint32)
    upper = (bits + 0x7F + (bits >> 8 & 1)) & 0xFF00
    return torch.from_numpy(upper.astype(np.uint16).view(np.float16))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All weights of a run, those that it shares with other networks too."""
    files = json.loads((run / "manifest.json").read_text())["files"]
    parts = {part: load_file(run / file) for part, file in files.items()}
    return {f"{part}.{name}": tensor for part, own in parts.items() for name, tensor in own.items()}


def assert_same_bits(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    calibrations = [json.loads((run / "manifest.json").read_text()).get("calibration") for run in (first, second)]
    assert calibrations[0] == calibrations[1]
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def shorten_training(patch: pytest.MonkeyPatch) -> None:
    """Train the CAMs of a run for moments, and compose mosaics of few images."""
    patch.setattr("boxless.training.engine.MAX_EPOCHS", 2)
    patch.setattr("boxless.methods.local_cam.STEPS", 4)
    patch.setattr("boxless.pseudo_labels.mosaic.IMAGES_PER_MOSAIC", 1)


TRAIN = """
import sys
import boxless
import pytest
from running import shorten_training
with pytest.MonkeyPatch.context() as patch:
    shorten_training(patch)
    boxless.train(sys.argv[1], sys.argv[2], method=sys.argv[3], split="train", options=sys.argv[4:], seed=1)
"""


def train_and_kill(data: Path, run: Path, method: str, options: tuple[str, ...], sign: Path) -> None:
    """Train in a process of its own, and kill it as soon as the file `sign` is there."""
    words = [sys.executable, "-c", TRAIN, str(data), str(run), method, *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "weights.safetensors").exists()
