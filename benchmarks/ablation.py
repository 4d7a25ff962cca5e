"""What each part of inference brings: finished runs of `seeded`, evaluated with all parts and with each left out.

    python benchmarks/ablation.py VOCdevkit/VOC2012 runs/benchmark/VOC2012/seeded-* --report val
    python benchmarks/ablation.py playing-cards runs/benchmark/playing-cards/upper-bound-* --report test

Nothing is trained, so rows differ by that part alone. A row gives area mAP and CorLoc, the mean over the runs, and
their mean difference from the first row with its range.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import numpy as np
import typer
from _shared import machine, spread

import boxless
from boxless.methods import fast_rcnn
from boxless.structures import Dataset

SCORES = ("mAP_area", "CorLoc")


def without_voting(detector: boxless.Detector) -> AbstractContextManager[object]:
    """Leave out box voting."""
    return patch.object(detector, "selection", replace(detector.selection, vote=False))


PARTS: dict[str, Callable[[boxless.Detector], AbstractContextManager[object]]] = {
    "all parts": lambda detector: nullcontext(),
    "scores not multiplied by the image-level score": lambda detector: patch.object(fast_rcnn, "IMAGE_SCORE_POWER", 0),
    "no box voting": without_voting,
}
"""What is left out -> the context in which it is."""


def main(
    data: Path,
    runs: list[Path],
    report: Annotated[str, typer.Option(help="The split to report on.")] = "val",
) -> None:
    """Evaluate; print the table."""
    detectors = [boxless.Detector.load(run) for run in runs]
    dataset = boxless.load_dataset(data, report, detectors[0].classes)
    print(f"{data.name}, {', '.join(run.name for run in runs)}, {machine()}\n")
    differing = (f"{score}, difference" for score in SCORES)
    print(f"| | {' | '.join([*SCORES, *differing])} |\n|---|---|---|---|---|")
    every = np.zeros((len(runs), len(SCORES)))
    for part, left_out in PARTS.items():
        values = np.array([scores(detector, dataset, left_out) for detector in detectors])
        if part == "all parts":
            every = values
        means = " | ".join(f"{value:.3f}" for value in values.mean(axis=0))
        differences = " | ".join(spread(column, 3) for column in (values - every).T.tolist())
        print(f"| {part} | {means} | {differences} |", flush=True)


def scores(
    detector: boxless.Detector,
    dataset: Dataset,
    left_out: Callable[[boxless.Detector], AbstractContextManager[object]],
) -> list[float]:
    """Of a detector without a part."""
    with left_out(detector):
        found = boxless.evaluate(detector, dataset)
    return [found[name] for name in SCORES]


if __name__ == "__main__":
    typer.run(main)
