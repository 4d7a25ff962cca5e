"""Choosing a method without boxes, and what that costs: the method whose boxes agree best with those of all others.

    python benchmarks/choosing.py VOCdevkit/VOC2012 runs/benchmark/VOC2012
    python benchmarks/choosing.py playing-cards runs/benchmark/playing-cards --report test

Takes the runs that `methods.py` left in a folder. All predict the boxes of the tags of the same training images; every
two are compared by the mean IoU of their boxes beyond that of random images. No box of the data is read; what the
choice costs is read from the results on the split that was reported on. The upper bound is left out.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from _shared import machine

from boxless import Detector, load_dataset
from boxless.cached_dataset import cache_dataset
from boxless.methods.box_ops import paired_iou
from boxless.pseudo_labels.consensus import chance_iou
from boxless.pseudo_labels.held_out import boxes_for_tags
from boxless.structures import Dataset, FloatArray
from boxless.training.cam_boxes import tagged_rows


def main(
    data: Path,
    runs: Annotated[Path, typer.Argument(help="One folder a method and seed, as methods.py names them.")],
    seed: Annotated[int, typer.Option(help="Of the runs, and of which images are drawn.")] = 0,
    train: Annotated[str, typer.Option(help="The split they were trained on.")] = "train",
    report: Annotated[str, typer.Option(help="The split they were reported on.")] = "val",
    images: Annotated[int, typer.Option(help="Number of images.")] = 200,
) -> None:
    """Compare; print the table and the choice."""
    folders = {run.name.rsplit("-", 1)[0]: run for run in sorted(runs.glob(f"*-{seed}"))}
    scores = {
        name: json.loads((run / f"benchmark-{report}.json").read_text(encoding="utf-8"))
        for name, run in folders.items()
        if name != "upper-bound"
    }
    detectors = {name: Detector.load(folders[name]) for name in scores}
    everything = load_dataset(data, train, next(iter(detectors.values())).classes).tags_only()
    rows = tagged_rows(everything, seed, images)
    dataset = replace(everything, samples=tuple(everything.samples[row] for row in rows))
    boxes = {name: tag_boxes(detector, dataset, name) for name, detector in detectors.items()}
    agreement = {
        name: float(np.mean([agree(own, other) for rival, other in boxes.items() if rival != name]))
        for name, own in boxes.items()
    }
    print(f"{data.name}, {machine()}, seed {seed}, {len(dataset)} images\n")
    print("| method | agreement with the others | mAP_11point | CorLoc |\n|---|---|---|---|")
    for name in sorted(agreement, key=agreement.__getitem__, reverse=True):
        print(
            f"| `{name}` | {agreement[name]:.3f} | {scores[name]['mAP_11point']:.3f} | {scores[name]['CorLoc']:.3f} |"
        )
    chosen, best = (
        max(agreement, key=agreement.__getitem__),
        max(scores, key=lambda name: float(scores[name]["mAP_11point"])),
    )
    cost = scores[best]["mAP_11point"] - scores[chosen]["mAP_11point"]
    print(f"\nChosen without boxes: {chosen}; with the boxes of {report}: {best}; that costs {cost:.3f} mAP")


def agree(boxes: FloatArray, others: FloatArray) -> float:
    """Mean IoU of boxes (N, 4) of the same objects beyond chance, relative to what is possible (as Cohen's kappa)."""
    one, other = torch.from_numpy(boxes), torch.from_numpy(others)
    same, chance = (float(values.double().mean()) for values in (paired_iou(one, other), chance_iou(one, other)))
    return (same - chance) / max(1 - chance, 1e-9)


def tag_boxes(detector: Detector, dataset: Dataset, name: str) -> FloatArray:
    """The best box of every tag of every image: (tags, 4), xyxy in fractions of the image."""
    cached = cache_dataset(dataset, detector.features, detector.views, detector.proposals)
    found = zip(boxes_for_tags(detector, cached, range(len(cached)), name), cached.sizes, strict=True)
    return np.concatenate([own.boxes / np.array([*size] * 2, np.float32) for own, size in found])


if __name__ == "__main__":
    typer.run(main)
