"""A training step on cached maps beside one of end-to-end training: milliseconds an image.

    python benchmarks/train.py VOCdevkit/VOC2012 [--split train] [--images 16] [--repeats 3]

DATA is a dataset with boxes, which stand in for the pseudo labels of `seeded`. The other side is what the papers do:
WSDDN on VGG16 trained end to end (`configs/voc2007/wsddn_vgg16.yaml`, batches of one), here at a single scale of 512 px
and with random weights, which take the same time. Proposals and feature maps are computed before the clock starts;
reading them, or the image, is part of a step, as are the loss, the gradients and the optimizer. All take turns, repeat
by repeat.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from _shared import machine, spread

import boxless
from boxless.cached_dataset import cache_dataset
from boxless.config import Config, resolve
from boxless.features import Batch, FeatureStore, collate
from boxless.methods.presets import preset
from boxless.network import build_network
from boxless.structures import Dataset
from boxless.training.engine import optimizer_for
from boxless.training.training_views import training_views
from boxless.views import views_of

VGG16 = Path(__file__).parent.parent / "configs" / "voc2007" / "wsddn_vgg16.yaml"
SINGLE_SCALE = ("views.scales=[512]", "views.flips=false", "inference.views=null", "backbone.weights=none")
END_TO_END = "`wsddn` on VGG16, end to end"


def main(
    data: Path,
    split: str = "train",
    images: Annotated[int, typer.Option(help="Number of images, the first of the split with boxes.")] = 16,
    end_to_end: Annotated[int, typer.Option(help="Number of them for the end-to-end side.")] = 2,
    repeats: Annotated[int, typer.Option(help="For the spread.")] = 3,
    classes: Annotated[str | None, typer.Option(help="Separated by commas; all by default.")] = None,
) -> None:
    """Measure; print the table."""
    whole = boxless.load_dataset(data, split, None if classes is None else classes.split(","))
    samples = tuple(sample for sample in whole.samples if sample.annotations is not None and sample.tags)
    configs = {f"`{method}`": resolve(preset(method)) for method in ("seeded", "contextlocnet", "wsddn")}
    configs[END_TO_END] = resolve(preset("wsddn"), VGG16, SINGLE_SCALE)
    with TemporaryDirectory() as folder:
        os.environ["BOXLESS_CACHE"] = folder
        passes = {}
        for name, config in configs.items():
            most = end_to_end if name == END_TO_END else images
            passes[name] = train_passes(Dataset(whole.name, whole.classes, samples[:most]), config, Path(folder))
            next(passes[name])  # The first pass is not timed.
        milliseconds: dict[str, list[float]] = {name: [] for name in configs}
        for _ in range(repeats):
            for name, times in milliseconds.items():
                times.append(next(passes[name]))
    print(f"{machine()}, {min(images, len(samples))} images, {repeats} repeats\n")
    print("| | images a step | ms an image | times as fast (range) |\n|---|---|---|---|")
    for name, times in milliseconds.items():
        ratios = [other / own for own, other in zip(times, milliseconds[END_TO_END], strict=True)]
        print(f"| {name} | {configs[name].training.batch_size} | {spread(times)} | {spread(ratios, 0)} |")


def train_passes(dataset: Dataset, config: Config, folder: Path) -> Iterator[float]:
    """Train on all images of a dataset each time; yields milliseconds an image. Maps lie in the folder."""
    network = build_network(config, len(dataset.classes))
    features = FeatureStore(network.backbone, network.frozen, config.backbone, torch.device("cpu"))
    views = views_of(config.views)
    data = cache_dataset(dataset, features, views, config.proposals)
    items = training_views(network.model, data, views, folder)
    rows = [(row, row % len(views)) for row in range(len(dataset))]
    size = config.training.batch_size
    steps = [rows[first : first + size] for first in range(0, len(rows), size)]
    model, optimizer = network.model.train(), optimizer_for(network.model, config.training)
    model.tail.eval()
    while True:
        start = time.perf_counter()
        for step in steps:
            train_step(model, optimizer, collate([items[row] for row in step]))
        yield 1000 * (time.perf_counter() - start) / len(rows)


def train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """One step."""
    torch.stack(list(model(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    typer.run(main)
