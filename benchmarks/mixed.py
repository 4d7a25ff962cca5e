"""What a few boxes add to tags: mAP against the number of images a class that a person has boxed.

    BOXLESS_DATA=shared/data python benchmarks/mixed.py --images 300
    BOXLESS_DATA=shared/data python benchmarks/mixed.py --sets steel,indoor --boxed 0,10 --seeds 0,1,2

The sets and their images are those of `benchmarks/sets.py`, whose runs are used where `--out` has them. A simulated
person draws so many images of each class at random, another draw for each seed, and boxes all objects in them: this is
the only place where boxes of the training images enter, and they pass through the file that `boxless review` writes.
A row gives area mAP on the split to report on for each number, the mean and range over the seeds, and its share of the
fully supervised upper bound. Given boxes may choose small proposals, which the upper bound has not: add
proposals.size=400 for the default everywhere. A finished run is not trained again.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _shared import machine, spread
from asking import answer
from sets import SETS, column, draw, load, measured, run_folder

import boxless
from boxless.files import write_json, write_text
from boxless.structures import Dataset


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings, such as pseudo_labels.rounds=1.")] = None,
    sets: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(SETS),
    boxed: Annotated[str, typer.Option(help="Images of each class with boxes, separated by commas.")] = "0,1,2,5,10,20",
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0",
    images: Annotated[int | None, typer.Option(help="Draw so many training images of each set.")] = None,
    method: Annotated[str, typer.Option(help="A method whose head is trained on boxes.")] = "seeded",
    out: Annotated[Path, typer.Option(help="Takes the runs.")] = Path("runs/sets"),
) -> None:
    """Train and evaluate; print the table."""
    numbers = [int(number) for number in boxed.split(",")]
    print(f"{method}, seeds {seeds}, {images or 'all'} images, {' '.join(settings or [])}, {machine()}\n")
    print(f"| set | {' | '.join(f'{number} a class' for number in numbers)} | upper bound |")
    print("|---" * (len(numbers) + 2) + "|")
    for name in sets.split(","):
        rows = [scored(name, int(seed), numbers, images, method, settings or [], out) for seed in seeds.split(",")]
        full = column([row["upper bound"] for row in rows], "mAP_area")
        cells = [
            f"{spread(values, 3)}, {np.mean(values) / np.mean(full):.2f}"
            for number in numbers
            for values in [column([row[str(number)] for row in rows], "mAP_area")]
        ]
        print(f"| {name} | {' | '.join(cells)} | {spread(full, 3)} |", flush=True)


def scored(
    name: str, seed: int, numbers: list[int], images: int | None, method: str, settings: list[str], out: Path
) -> dict[str, dict[str, Any]]:
    """Scores on the split to report on, by the number of boxed images of each class, and of the upper bound."""
    ends = measured(name, seed, images, method, settings, out)
    scores = {"upper bound": ends["boxes"], "0": ends["tags"]}
    train, report = load(name, out)
    train = draw(train, images)
    for number in (number for number in numbers if number):
        run = out / run_folder(name, method, f"boxed-{number}", images, settings, seed)
        labels, known = out / f"{run.name}.jsonl", run / "benchmark.json"
        write_text(labels, answers(train, number, seed))
        detector = boxless.train(train, run, labels=labels, method=method, options=settings, seed=seed)
        if not known.exists():
            write_json(known, boxless.evaluate(detector, report))
        scores[str(number)] = json.loads(known.read_text(encoding="utf-8"))
    return scores


def answers(dataset: Dataset, number: int, seed: int) -> str:
    """Labels in which a simulated person boxes all objects of so many images of each class, drawn at random."""
    random, rows = np.random.default_rng(seed), set[int]()
    for label in range(len(dataset.classes)):
        own = [row for row, sample in enumerate(dataset.samples) if label in sample.tags and sample.annotations]
        rows |= set(random.permutation(own)[:number].tolist())
    return "".join(json.dumps(answer(dataset.samples[row], dataset.classes)) + "\n" for row in sorted(rows))


if __name__ == "__main__":
    typer.run(main)
