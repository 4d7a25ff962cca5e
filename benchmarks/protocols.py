"""Each file of configs/voc2007/ for a few steps from image files: what training estimates, and what it takes.

    python benchmarks/protocols.py VOCdevkit/VOC2012 [--split trainval] [--steps 20] [--configs wsddn_vgg16,mist_vgg16]

The networks have random weights, which take the same time. Every configuration runs in two processes of its own, one
that only estimates and one that only trains, so that the memory of either is not that of the other. Seconds are of the
processor, as other programs may be running; memory is the largest resident size of the process. What was measured is
not measured again: delete its file in `--out`. On a CPU give VGG16 fewer `--steps`.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest.mock import patch

import typer
from _shared import machine

import boxless
from boxless.files import write_json
from boxless.run_folder import read_history
from boxless.training import engine
from boxless.training.estimate import Estimate, estimate, trained_weights

FOLDER = Path(__file__).parent.parent / "configs" / "voc2007"
SETTINGS = ("backbone.weights=none", "training.epochs=1")


def main(
    data: Path,
    split: str = "trainval",
    steps: Annotated[int, typer.Option(help="Steps to train, one image each.")] = 20,
    classes: Annotated[str | None, typer.Option(help="Separated by commas; all by default.")] = None,
    configs: Annotated[str | None, typer.Option(help="Separated by commas; all by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the numbers.")] = Path("runs/protocols"),
) -> None:
    """Measure; print the table."""
    names = configs.split(",") if configs else sorted(file.stem for file in FOLDER.glob("*.yaml"))
    print(f"{machine()}\n")
    print("| configuration | weights trained | steps | s a step: estimated | taken | GB: estimated | taken |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        file = out / f"{name}.json"
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"steps": steps}
        for part in ("estimate", "train"):
            if part not in row:
                row[part] = measured([str(data), split, classes or "", str(row["steps"]), name], part)
                write_json(file, row)
        estimated, taken = row["estimate"], row["train"]
        seconds = f"{estimated['seconds']:.2f} | {taken['seconds']:.2f}"
        memory = f"{estimated['memory'] / 1e9:.1f} | {taken['memory'] / 1e9:.1f}"
        print(f"| `{name}.yaml` | {estimated['weights']:,} | {row['steps']} | {seconds} | {memory} |", flush=True)


def measured(words: list[str], part: str) -> dict[str, float]:
    """What a process of its own prints, and its largest resident size where it trains."""
    child = subprocess.Popen([sys.executable, __file__, part, *words], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{words[-1]}: the process that should {part} failed")
    found: dict[str, float] = json.loads(printed)
    return found if part == "estimate" else found | {"memory": usage.ru_maxrss * 1024}


def run(part: str, data: str, split: str, classes: str, steps: str, name: str) -> None:
    """Estimate or train, and print the result."""
    time.perf_counter = time.process_time
    dataset = boxless.load_dataset(data, split, classes.split(",") if classes else None)
    dataset = replace(dataset, samples=tuple(sample for sample in dataset.samples if sample.tags)[: int(steps)])

    def estimate_only(*arguments: Any) -> None:
        found = estimate(*arguments)
        weights = trained_weights(arguments[1])
        print(json.dumps({"seconds": found.seconds, "memory": found.memory, "weights": weights}))
        raise SystemExit

    own: Any = estimate_only if part == "estimate" else lambda *arguments: Estimate(0, 0)
    with TemporaryDirectory() as folder, patch.object(engine, "estimate", own):
        boxless.train(dataset, Path(folder) / "run", config=FOLDER / f"{name}.yaml", options=SETTINGS)
        (row,) = read_history(Path(folder) / "run")
    print(json.dumps({"seconds": row["seconds"] / int(steps)}))


if __name__ == "__main__":
    if sys.argv[1:2] in (["estimate"], ["train"]):
        run(*sys.argv[1:])
    else:
        typer.run(main)
