"""Every method on a benchmark, trained on tags, beside the fully supervised upper bound.

    python benchmarks/methods.py VOCdevkit/VOC2012 --classes cat,cow,dog,horse,sheep --seeds 0,1,2
    python benchmarks/methods.py playing-cards --report test --seeds 0,1,2

Prints a Markdown table, mean and range over the seeds, and the machine it ran on. `upper-bound` is `seeded` trained on
ground truth (`supervision=boxes`); `weak/full` is mAP (11-point) over that of the upper bound. Minutes are those of
training with proposals and feature maps in the caches. A finished run in `--out` is not trained again, so methods and
seeds can be added call by call.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _shared import machine, spread

import boxless
from boxless.evaluation import matched, predict_dataset
from boxless.files import write_json
from boxless.methods import PRESETS
from boxless.run_folder import read_manifest

UPPER_BOUND = "upper-bound"
SCORES = ("mAP_11point", "mAP_area", "CorLoc", "classification_mAP", "pointing_mAP")
DIAGNOSIS = ("part_rate", "group_rate", "background_rate", "recall_small", "recall_first", "recall_further")
COLUMNS = (*SCORES, *DIAGNOSIS, "minutes")


def main(
    data: Path,
    classes: Annotated[str | None, typer.Option(help="Separated by commas; all by default.")] = None,
    methods: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join((*PRESETS, UPPER_BOUND)),
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0",
    train: Annotated[str, typer.Option(help="The split to train on.")] = "train",
    report: Annotated[str, typer.Option(help="The split to report on.")] = "val",
    out: Annotated[Path, typer.Option(help="Takes a run folder a method and seed.")] = Path("runs/benchmark"),
) -> None:
    """Train and evaluate; print the table."""
    names = None if classes is None else classes.split(",")
    results = {
        method: [measured(data, names, method, int(seed), train, report, out) for seed in seeds.split(",")]
        for method in methods.split(",")
    }
    print(f"{data.name}, {machine()}, seeds {seeds}\n")
    print(f"| method | {' | '.join(COLUMNS)} | weak/full |\n{'|---' * (len(COLUMNS) + 2)}|")
    full = results.get(UPPER_BOUND)
    for method, rows in results.items():
        cells = [spread((row[column] for row in rows), 3) for column in COLUMNS]
        ratio = "" if full is None else f"{mean(rows, 'mAP_11point') / mean(full, 'mAP_11point'):.2f}"
        print(f"| `{method}` | {' | '.join(cells)} | {ratio} |")


def measured(
    data: Path, classes: list[str] | None, method: str, seed: int, train: str, report: str, out: Path
) -> dict[str, Any]:
    """One run's scores and diagnosis on the split to report on."""
    run = out / data.name / f"{method}-{seed}"
    # A finished run is only loaded, or refused if it is of other images, tags or classes.
    detector = boxless.train(
        data,
        run,
        method="seeded" if method == UPPER_BOUND else method,
        split=train,
        classes=classes,
        seed=seed,
        options=["supervision=boxes"] if method == UPPER_BOUND else [],
    )
    known = run / f"benchmark-{report}.json"
    if not known.exists():
        predictions = predict_dataset(detector, matched(detector, data, report), "Evaluate")
        scores, diagnosis = predictions.scores(), predictions.diagnosis()
        seconds = read_manifest(run)["seconds"]
        training = sum(spent for stage, spent in seconds.items() if stage not in ("proposals", "features"))
        row = {name: scores[name] for name in SCORES} | {name: diagnosis[name] for name in DIAGNOSIS}
        write_json(known, row | {"minutes": training / 60})
    return dict(json.loads(known.read_text(encoding="utf-8")))


def mean(rows: list[dict[str, Any]], column: str) -> float:
    """Over the seeds."""
    return float(np.mean([row[column] for row in rows]))


if __name__ == "__main__":
    typer.run(main)
