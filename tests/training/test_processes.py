"""A training by several processes, as `torchrun` and `accelerate launch` start them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import SEEDED

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
from accelerate import PartialState

from boxless.cli import main
from boxless.detector import Detector
from boxless.training.engine import TrainingViews

# On processors accelerate uses several processes only when it is told to.
rank = PartialState(cpu=True).process_index
boxes_for_labels, create = Detector.boxes_for_labels, TrainingViews.__init__


def shifted(*words):
    # Processes round differently; here by whole pixels.
    return boxes_for_labels(*words) + rank


def recorded(self, data, *rest):
    create(self, data, *rest)
    boxes = [sample.annotations.boxes for sample in data.dataset.samples if sample.annotations is not None]
    if boxes:
        with Path(sys.argv[-1]).with_name(f"boxes-{rank}").open("ab") as file:
            file.write(np.concatenate(boxes).tobytes())


Detector.boxes_for_labels, TrainingViews.__init__ = shifted, recorded
main()
"""


def test_all_processes_train_on_the_same_pseudo_labels(demo: Path, tmp_path: Path):
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
    # Four networks and the final one, on boxes of more than sixteen tags together.
    assert len(first) > 16 * 4
    assert (tmp_path / "run" / "weights.safetensors").exists()
