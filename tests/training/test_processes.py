"""A training by several processes, as `torchrun` and `accelerate launch` start them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from running import SEEDED

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
from accelerate import PartialState

from boxless import training
from boxless.cli import main
from boxless.detector import Detector

# Of processors accelerate makes several processes only when it is asked to.
here = PartialState(cpu=True).process_index
locate, teaching = Detector.locate, training.teaching


def shifted(*words):
    # As far as processors round differently, and farther.
    return locate(*words) + here


def noted(ready):
    boxes = [sample.annotations.boxes for sample in ready.dataset.samples]
    with Path(sys.argv[-1]).with_name(f"boxes-{here}").open("ab") as file:
        file.write(np.concatenate(boxes).tobytes())
    return teaching(ready)


Detector.locate, training.teaching = shifted, noted
main()
"""


def test_all_processes_are_taught_the_same_pseudo_boxes(demo: Path, tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    train = ["train", demo, "--split", "train", *SEEDED, "training.epochs=1", "--out", tmp_path / "run"]
    environment = os.environ | {
        "BOXLESS_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, *launch, script, *train]
    done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (np.fromfile(tmp_path / f"boxes-{process}", np.float32) for process in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert len(first) > 16 * 4
    assert (tmp_path / "run" / "weights.safetensors").exists()
