"""Feature extraction beside a plain PyTorch loop: images a second, and the share of the machine's peak.

    python benchmarks/extract.py VOCdevkit/VOC2012 [--split train] [--images 128] [--repeats 3]

`library` is `FeatureStore.compute`: an image a thread, channels last. `plain` is what one would write instead: a
`DataLoader` with two workers, batches of eight images padded to the largest, the default memory format, the network
on all of torch's threads. Both read the same files, run the same network in float32 (that of the default method, at its
scale) and write the same maps into empty folders, `library` in 8 bits and compressed, `plain` in half precision; they
take turns, repeat by repeat. The peak is what a large float32 matrix product reaches in the same run; of the network's
operations only those on the images count, not those on the padding.
"""

import copy
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from _shared import machine, spread
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode

import boxless
from boxless.backbones import Backbone
from boxless.config import Config, resolve
from boxless.features import FeatureStore, Item, collate, to_pixels
from boxless.images import content_keys, image_size, read_image
from boxless.methods.presets import DEFAULT_METHOD, preset
from boxless.network import Network, build_network
from boxless.views import View, views_of

BATCH, WORKERS = 8, 2
SIDE = 4096
"""Of the matrices whose product gives the peak."""


def main(
    data: Path,
    split: str = "train",
    images: Annotated[int, typer.Option(help="The first of the split.")] = 128,
    repeats: Annotated[int, typer.Option(help="For the spread.")] = 3,
    classes: Annotated[str | None, typer.Option(help="Separated by commas; all by default.")] = None,
) -> None:
    """Measure; print the table."""
    dataset = boxless.load_dataset(data, split, None if classes is None else classes.split(","))
    keys = content_keys((sample.path for sample in dataset.samples[:images]), {})
    files = {key: path for path, key in keys.items()}
    config = resolve(preset(DEFAULT_METHOD))
    view = views_of(config.views)[0]
    network = build_network(config, len(dataset.classes))
    plain = copy.deepcopy(network.frozen)  # The store changes the memory format of its own.
    work = gflop(plain, [view.size(*image_size(path)) for path in files.values()])
    seconds: dict[str, list[float]] = {"library": [], "plain": []}
    peaks = []
    # What is only done once, such as compiling kernels, is done before the clock starts.
    by_library(dict(list(files.items())[:BATCH]), network, config, view)
    by_loop(list(files.values())[:BATCH], plain, network.backbone, view)
    for _ in range(repeats):
        peaks.append(max(peak() for _ in range(3)))
        seconds["library"].append(by_library(files, network, config, view))
        seconds["plain"].append(by_loop(list(files.values()), plain, network.backbone, view))
    print(f"{machine()}, {len(files)} images, {repeats} repeats\n")
    print(f"A float32 product of {SIDE} x {SIDE} matrices: {spread(peaks, 0)} GFLOP/s; ", end="")
    print(f"{config.backbone.name} at {view.scale} px: {work / len(files):.1f} GFLOP an image\n")
    print("| | images a second | GFLOP/s | share of the peak | times as fast (range) |\n|---|---|---|---|---|")
    for name, spent in seconds.items():
        rates, reached = [len(files) / each for each in spent], [work / each for each in spent]
        shares = [each / top for each, top in zip(reached, peaks, strict=True)]
        ratios = [loop / each for loop, each in zip(seconds["plain"], spent, strict=True)]
        print(f"| {name} | {spread(rates)} | {spread(reached)} | {spread(shares, 2)} | {spread(ratios, 2)} |")


def by_library(files: Mapping[str, Path], network: Network, config: Config, view: View) -> float:
    """Seconds it takes to decode, extract and store as the library does it."""
    with TemporaryDirectory() as folder:
        os.environ["BOXLESS_CACHE"] = folder
        store = FeatureStore(network.backbone, network.frozen, config.backbone, torch.device("cpu"))
        start = time.perf_counter()
        store.compute(files, [view])
        return time.perf_counter() - start


class Pixels(TorchDataset[Item]):
    """Images as the network takes them."""

    def __init__(self, paths: Sequence[Path], backbone: Backbone, view: View) -> None:
        self.paths, self.view, self.backbone = paths, view, backbone

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        pixels = to_pixels(read_image(self.paths[index]), self.view, self.backbone)
        return Item(pixels, (pixels.shape[1], pixels.shape[2]))


def by_loop(paths: Sequence[Path], frozen: nn.Sequential, backbone: Backbone, view: View) -> float:
    """Seconds it takes to do the same in the plain loop."""
    with TemporaryDirectory() as folder, torch.inference_mode():
        start = time.perf_counter()
        loader = DataLoader(Pixels(paths, backbone, view), BATCH, collate_fn=collate, num_workers=WORKERS)
        for number, batch in enumerate(loader):
            for row, own in enumerate(batch.unpadded(frozen(batch.maps))):
                np.save(Path(folder) / f"{number * BATCH + row}.npy", own.half().numpy())
        return time.perf_counter() - start


def gflop(frozen: nn.Sequential, sizes: Sequence[tuple[int, int]]) -> float:
    """Floating-point operations of the network on images of these sizes (width, height), in thousands of millions."""
    bare, total = copy.deepcopy(frozen).to("meta"), 0
    for (width, height), number in Counter(sizes).items():
        with FlopCounterMode(display=False) as counter:
            bare(torch.empty(1, 3, height, width, device="meta"))
        total += number * counter.get_total_flops()
    return total / 1e9


def peak() -> float:
    """GFLOP/s of a large matrix product."""
    matrix = torch.rand(SIDE, SIDE)
    start = time.perf_counter()
    matrix @ matrix
    return 2 * SIDE**3 / 1e9 / (time.perf_counter() - start)


if __name__ == "__main__":
    typer.run(main)
