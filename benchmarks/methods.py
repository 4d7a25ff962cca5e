"""Every method on the animals benchmark, tags only: trained on `train`, reported on `val`.

    python benchmarks/methods.py DATA --out runs/benchmark [--methods cam,oquab] [--seed 0]

DATA is the folder `VOCdevkit/VOC2012` of the animals benchmark: PASCAL VOC 2012 photographs of cat, cow, dog, horse and
sheep. Prints a Markdown table and the machine it ran on. Minutes are those of this call: what the caches hold costs
nothing; with an empty BOXLESS_CACHE they are those from raw pictures.
"""

import os
import platform
from pathlib import Path
from typing import Annotated

import torch
import typer

import boxless
from boxless.methods import PRESETS
from boxless.runs import read_manifest, write_json

CLASSES = ("cat", "cow", "dog", "horse", "sheep")
COLUMNS = ("mAP_11point", "mAP_area", "CorLoc", "classification_mAP", "pointing_mAP")


def main(
    data: Path,
    out: Annotated[Path, typer.Option(help="Takes a run folder a method.")] = Path("runs/benchmark"),
    methods: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(PRESETS),
    seed: int = 0,
) -> None:
    """Train and evaluate; print the table."""
    rows = []
    for method in methods.split(","):
        run = out / f"{method}-{seed}"
        detector = boxless.train(data, run, method=method, split="train", classes=CLASSES, seed=seed)
        scores = {split: boxless.evaluate(detector, boxless.load_dataset(data, split)) for split in ("val", "train")}
        for split, result in scores.items():
            write_json(run / f"metrics-{split}.json", result)
        cells = [f"{scores['val'][column]:.3f}" for column in COLUMNS] + [f"{scores['train']['CorLoc']:.3f}"]
        seconds = read_manifest(run)["seconds"]
        training = seconds["training"] + seconds.get("localizer", 0)
        stages = seconds.get("proposals", 0), seconds["features"], training
        cells += [f"{stage / 60:.1f}" for stage in stages]
        rows.append(f"| `{method}` | {' | '.join(cells)} |")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, seed {seed}\n")
    print(f"| method | {' | '.join(COLUMNS)} | CorLoc (train) | min proposals | min features | min training |")
    print("|---" * 10 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    typer.run(main)
