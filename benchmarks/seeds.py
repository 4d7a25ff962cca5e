"""What the seeds of the default method give on every development set, before any network is trained on boxes.

    BOXLESS_DATA=shared/data python benchmarks/seeds.py --images 300

The CAM of the default method is trained on the tags of the training images. A row gives, over these images, the share
of right boxes of every seed (the mean over classes). Boxes are read to count which are right, on training images only.
Trained CAMs in `--out` are not trained again.
"""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from _shared import machine
from sets import SETS, draw
from torchvision.ops import box_iou

import boxless
from boxless.cached_dataset import cache_dataset
from boxless.config import resolve
from boxless.demo.data import make_demo
from boxless.methods import preset
from boxless.pseudo_labels.seeds import SEEDS
from boxless.pseudo_labels.snapping import snap_all
from boxless.structures import Annotations, Dataset


def main(
    sets: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(SETS),
    seed: Annotated[int, typer.Option(help="Of the CAM.")] = 0,
    images: Annotated[int | None, typer.Option(help="Draw so many training images of each set.")] = None,
    out: Annotated[Path, typer.Option(help="Takes the runs.")] = Path("runs/seeds"),
) -> None:
    """Train the CAMs; print the table."""
    config = resolve(preset("seeded"))
    print(f"seed {seed}, {images or 'all'} images, {machine()}\n")
    print(f"| set | {' | '.join(SEEDS)} |\n|---|{'---|' * len(SEEDS)}")
    for name in sets.split(","):
        which = SETS[name]
        root = make_demo(out, seed=0) if name == "demo" else Path(os.environ["BOXLESS_DATA"]) / which.path
        train = draw(boxless.load_dataset(root, which.train, which.classes), images)
        cam = boxless.train(train, out / f"{name}-{images or 'all'}-{seed}", method="cam", seed=seed)
        data = cache_dataset(train.tags_only(), cam.features, cam.views, config.proposals)
        scores = [share_right(train, snap_all(find(data, cam), data)) for find in SEEDS.values()]
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in scores)} |", flush=True)


def share_right(dataset: Dataset, boxes: list[Annotations]) -> float:
    """Share of the boxes whose IoU with an object of their class is at least 0.5: the mean over classes."""
    right: list[list[bool]] = [[] for _ in dataset.classes]
    for sample, own in zip(dataset.samples, boxes, strict=True):
        assert sample.annotations is not None
        for box, label in zip(own.boxes, own.labels.tolist(), strict=True):
            objects = sample.annotations.boxes[sample.annotations.labels == label]
            overlaps = box_iou(torch.from_numpy(box[None]), torch.from_numpy(objects))
            right[label].append(bool((overlaps >= 0.5).any()))
    return float(np.mean([np.mean(of_class) for of_class in right if of_class]))


if __name__ == "__main__":
    typer.run(main)
