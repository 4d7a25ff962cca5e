"""Every development set in one table: trained on tags, beside the fully supervised upper bound.

    BOXLESS_DATA=shared/data python benchmarks/sets.py --images 300
    BOXLESS_DATA=shared/data python benchmarks/sets.py --sets steel,leaf --seeds 0,1,2 pseudo_labels.rounds=1

The sets are the folders of `BOXLESS_DATA` and the drawn demo set. `--images` draws so many images of each training
split, the same at every call; without it all are used. Settings given as key=value apply to tags and upper bound alike.
A row gives area mAP of both, their ratio, CorLoc, and minutes of training with proposals and feature maps cached, each
the mean and range over the seeds; the last two rows are the mean over the sets and the lowest ratio. A second table has
for every class the agreement that training warns by, the mean chance-corrected IoU of its seeds and out-of-fold
predictions, beside its CorLoc. A finished run in `--out` is not trained again.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from _shared import machine, spread

import boxless
from boxless.demo.data import make_demo
from boxless.files import write_json
from boxless.run_folder import read_manifest
from boxless.structures import Dataset


class DevelopmentSet(NamedTuple):
    """Where a set lies below `BOXLESS_DATA`, its splits, and its classes (None: all)."""

    path: str
    train: str
    report: str
    classes: tuple[str, ...] | None = None


SETS = {
    "animals": DevelopmentSet(
        "voc2012-animals/VOCdevkit/VOC2012", "train", "val", ("cat", "cow", "dog", "horse", "sheep")
    ),
    "cards": DevelopmentSet("playing-cards", "train", "test"),
    "steel": DevelopmentSet("steel-defects", "train", "test"),
    "indoor": DevelopmentSet("indoor5", "train", "val"),
    "leaf": DevelopmentSet("leaf-disease", "train", "test", ("Bacterial_Blight", "Brown_Spot", "Rice_Blast")),
    "demo": DevelopmentSet("", "train", "val"),
}


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings, such as pseudo_labels.rounds=1.")] = None,
    sets: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(SETS),
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0",
    images: Annotated[int | None, typer.Option(help="Draw so many training images of each set.")] = None,
    method: Annotated[str, typer.Option(help="A method whose head is trained on boxes.")] = "seeded",
    out: Annotated[Path, typer.Option(help="Takes the runs.")] = Path("runs/sets"),
) -> None:
    """Train and evaluate; print the table."""
    print(f"{method}, seeds {seeds}, {images or 'all'} images, {' '.join(settings or [])}, {machine()}\n")
    print("| set | mAP, area | upper bound | ratio | CorLoc | upper bound | minutes |\n|---|---|---|---|---|---|---|")
    ratios, classes = [], []
    for name in sets.split(","):
        rows = [measured(name, int(seed), images, method, settings or [], out) for seed in seeds.split(",")]
        weak, full = ([row[kind] for row in rows] for kind in ("tags", "boxes"))
        ratios.append(float(np.mean(column(weak, "mAP_area")) / np.mean(column(full, "mAP_area"))))
        cells = [spread(column(side, key), 3) for key in ("mAP_area", "CorLoc") for side in (weak, full)]
        minutes = spread(column(weak, "minutes"))
        print(
            f"| {name} | {cells[0]} | {cells[1]} | {ratios[-1]:.3f} | {cells[2]} | {cells[3]} | {minutes} |", flush=True
        )
        classes += [line for row in weak for line in class_rows(name, row)]
    print(f"| mean | | | {np.mean(ratios):.3f} | | | |\n| lowest | | | {min(ratios):.3f} | | | |")
    print("\n| set | class | agreement | CorLoc |\n|---|---|---|---|", *classes, sep="\n")


def measured(
    name: str, seed: int, images: int | None, method: str, settings: list[str], out: Path
) -> dict[str, dict[str, Any]]:
    """Scores on the split to report on, trained on tags and on boxes."""
    train, report = load(name, out)
    scores = {}
    for supervision in ("tags", "boxes"):
        run = out / run_folder(name, method, supervision, images, settings, seed)
        options = [*settings, f"supervision={supervision}"]
        detector = boxless.train(draw(train, images), run, method=method, options=options, seed=seed)
        known = run / "benchmark.json"
        if not known.exists():
            seconds = read_manifest(run)["seconds"]
            minutes = sum(spent for stage, spent in seconds.items() if stage not in ("proposals", "features")) / 60
            labels = read_manifest(run).get("pseudo_labels", {})
            agreement = {kind: own["agreement"] for kind, own in labels.items()}
            write_json(known, {**boxless.evaluate(detector, report), "minutes": minutes, "agreement": agreement})
        scores[supervision] = json.loads(known.read_text(encoding="utf-8"))
    return scores


def run_folder(name: str, method: str, supervision: str, images: int | None, settings: list[str], seed: int) -> str:
    """The name of a run's folder."""
    return "-".join([name, method, supervision, str(images or "all"), *settings, str(seed)])


def load(name: str, out: Path) -> tuple[Dataset, Dataset]:
    """The images to train on and those to report on; the demo set is drawn into `out`."""
    which = SETS[name]
    root = make_demo(out, seed=0) if name == "demo" else Path(os.environ["BOXLESS_DATA"]) / which.path
    train, report = (boxless.load_dataset(root, split, which.classes) for split in (which.train, which.report))
    return train, report


def class_rows(name: str, scores: dict[str, Any]) -> list[str]:
    """A row for each class of a run that was trained on tags."""
    return [
        f"| {name} | {kind} | {value:.2f} | {scores['classes'][kind]['CorLoc']:.2f} |"
        for kind, value in scores["agreement"].items()
        if value is not None and scores["classes"][kind]["CorLoc"] is not None
    ]


def draw(dataset: Dataset, images: int | None) -> Dataset:
    """So many of the images, the same at every call."""
    rows = np.random.default_rng(0).permutation(len(dataset))[:images]
    return replace(dataset, samples=tuple(dataset.samples[row] for row in sorted(rows.tolist())))


def column(rows: list[dict[str, Any]], key: str) -> list[float]:
    """One score of every seed."""
    return [row[key] for row in rows]


if __name__ == "__main__":
    typer.run(main)
