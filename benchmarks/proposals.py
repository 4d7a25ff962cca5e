"""Proposals of `grouping` and of OpenCV's Selective Search: recall, number of boxes, and time on one core.

    python benchmarks/proposals.py DATA [--split train] [--images 200] [--repeats 3]

DATA is a dataset with boxes, such as the folder `VOCdevkit/VOC2012` of the animals benchmark. All generators process
the same image one after another, repeat by repeat, so that other load on the machine slows all of them equally. Prints
two Markdown tables, with the default filters of `ProposalConfig` and without: recall over all boxes that are not
ignored, milliseconds of processor time per image, and the time of `--baseline` divided by that of the row, mean and
range over the repeats. The last rows compare at an equal number of boxes: `grouping` truncated to the baseline's mean
number. The curves are written to `--chart`.
"""

import os
import platform
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import typer
from _shared import spread
from numpy.typing import NDArray

import boxless
from boxless.config import ProposalConfig
from boxless.images import read_image
from boxless.np_box_ops import iou
from boxless.progress import track
from boxless.proposals.generate import select
from boxless.proposals.grouping import grouping
from boxless.proposals.selective_search import selective_search
from boxless.structures import FloatArray

Mode = Literal["grouping", "fast", "quality"]
SIZES: dict[Mode, tuple[int, ...]] = {
    "grouping": (200, 256, 400, 500),
    "fast": (256, 320, 400, 500),
    "quality": (256, 400),
}
LIMITS = (10, 20, 50, 100, 200, 300, 400, 500, 600, 800, 1000, 1300)
TICKS = (10, 20, 50, 100, 200, 500, 1000, 2000)
FILTERS = {"default filters": ProposalConfig(), "no filters": ProposalConfig(min_side=1, min_area=0)}


def main(
    data: Path,
    split: str = "train",
    images: Annotated[int, typer.Option(help="Number of images, the first of the split.")] = 200,
    repeats: Annotated[int, typer.Option(help="For the spread of the times; recall is the same in each.")] = 3,
    quality: Annotated[bool, typer.Option(help="Whether to measure OpenCV's slow mode.")] = True,
    baseline: Annotated[str, typer.Option(help="The row that all times are compared with.")] = "fast 500",
    chart: Annotated[Path, typer.Option(help="PNG file.")] = Path("runs/proposals.png"),
) -> None:
    """Measure, print the tables and draw the curves."""
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    samples = [sample for sample in boxless.load_dataset(data, split).samples if sample.annotations is not None]
    rows = [(mode, size) for mode, sizes in SIZES.items() if quality or mode != "quality" for size in sizes]
    for mode, _ in rows:
        proposals(np.zeros((32, 32, 3), np.uint8), mode, 32)  # Compiles the loops of `grouping`, or loads them.
    found: dict[str, list[FloatArray]] = {f"{mode} {size}": [] for mode, size in rows}
    seconds = np.zeros((repeats, len(rows)))
    targets, shapes = [], []
    for sample in track(samples[:images], "Images", min(images, len(samples))):
        assert sample.annotations is not None
        image = read_image(sample.path)
        targets.append(sample.annotations.boxes[~sample.annotations.ignore])
        shapes.append(image.shape[:2])
        for repeat in range(repeats):
            for column, (mode, size) in enumerate(rows):
                start = time.process_time()
                boxes = proposals(image, mode, size)
                seconds[repeat, column] += time.process_time() - start
                if repeat == 0:
                    found[f"{mode} {size}"].append(boxes)
    milliseconds = dict(zip(found, 1000 * seconds.T / len(targets), strict=True))
    print(f"{platform.machine()}, one core, OpenCV {cv2.__version__}, {len(targets)} images, {repeats} repeats\n")
    curves: dict[str, dict[str, NDArray[np.float64]]] = {}
    for title, config in FILTERS.items():
        kept = {name: filtered(boxes, shapes, config) for name, boxes in found.items()}
        print_table(title, kept, targets, milliseconds, baseline)
        curves = curves or {name: curve(boxes, targets) for name, boxes in kept.items()}
    chart.parent.mkdir(parents=True, exist_ok=True)
    draw(chart, curves, milliseconds)


def proposals(image: NDArray[np.uint8], mode: Mode, size: int) -> FloatArray:
    """A generator's boxes in its own order; OpenCV's is random, so they are shuffled with a fixed seed."""
    if mode == "grouping":
        return grouping(image, size)
    return np.random.default_rng(0).permutation(selective_search(image, size, mode))


def filtered(found: list[FloatArray], shapes: list[tuple[int, ...]], config: ProposalConfig) -> list[FloatArray]:
    """The boxes of `propose`, with the whole image first and the others in the generator's order."""
    kept = []
    for boxes, (height, width) in zip(found, shapes, strict=True):
        whole = np.array([[0, 0, width, height]], np.float32)
        others = boxes[(boxes != whole).any(axis=1)]
        kept.append(select(np.concatenate([whole, others]), config))
    return kept


def scores(found: list[FloatArray], targets: list[FloatArray], most: int | None = None) -> NDArray[np.float64]:
    """Mean number of boxes, recall@0.5, recall@0.7, mean best overlap, of the first `most` boxes of every image."""
    pairs = [(boxes[:most], target) for boxes, target in zip(found, targets, strict=True)]
    best = np.concatenate([iou(target, boxes).max(axis=1) for boxes, target in pairs if len(target)])
    number = np.mean([len(boxes) for boxes, _ in pairs])
    return np.array([number, (best >= 0.5).mean(), (best >= 0.7).mean(), best.mean()])


def limit_for(found: list[FloatArray], number: float) -> int:
    """The highest limit per image at which the mean number of boxes is at most `number`."""
    lengths = np.array([len(boxes) for boxes in found])
    limits = np.arange(1, lengths.max() + 1)
    means = np.minimum(lengths, limits[:, None]).mean(axis=1)
    return int(limits[means <= number][-1])


def curve(found: list[FloatArray], targets: list[FloatArray]) -> dict[str, NDArray[np.float64]]:
    """Scores at every limit, one array per column."""
    table = np.stack([scores(found, targets, most) for most in (*LIMITS, None)])
    return dict(zip(("boxes", "recall@0.5", "recall@0.7", "mean best overlap"), table.T, strict=True))


def print_table(
    title: str,
    kept: dict[str, list[FloatArray]],
    targets: list[FloatArray],
    milliseconds: dict[str, NDArray[np.float64]],
    baseline: str,
) -> None:
    """A row per generator and size; then `grouping` truncated to the baseline's number of boxes."""
    print(f"**{title}**\n\n| | boxes | recall@0.5 | recall@0.7 | mean best overlap | ms | times as fast (range) |")
    print("|---" * 7 + "|")
    limit = scores(kept[baseline], targets)[0]
    limits = {name: limit_for(kept[name], limit) for name in kept if name.startswith("grouping")}
    for name, most in [(name, None) for name in kept] + list(limits.items()):
        number, *quality = scores(kept[name], targets, most)
        ratios = milliseconds[baseline] / milliseconds[name]
        cells = [name if most is None else f"{name}, first {most}", f"{number:.0f}", *(f"{s:.3f}" for s in quality)]
        cells += [f"{milliseconds[name].mean():.1f}", spread(ratios)]
        print(f"| {' | '.join(cells)} |")
    print()


def draw(
    file: Path, curves: dict[str, dict[str, NDArray[np.float64]]], milliseconds: dict[str, NDArray[np.float64]]
) -> None:
    """Plot recall over boxes in the upper row, over milliseconds in the lower."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(2, 3)
    colours = {"grouping": "tab:red", "fast": "tab:blue", "quality": "tab:green"}
    for column, measure in enumerate(("recall@0.5", "recall@0.7", "mean best overlap")):
        above, below = grid[:, column]
        for name in ("grouping 400", "fast 500", "fast 400", "quality 400"):
            if name in curves:
                above.plot(curves[name]["boxes"], curves[name][measure], ".-", label=name)
        for mode, colour in colours.items():
            names = [name for name in curves if name.startswith(mode)]
            if names:
                x, y = [milliseconds[name].mean() for name in names], [curves[name][measure][-1] for name in names]
                below.plot(x, y, "o-", color=colour, label=mode)
        above.set(xlabel="boxes per image", ylabel=measure)
        below.set(xlabel="ms per image, one core", ylabel=measure, xscale="log")
        below.set_xticks(TICKS, [str(tick) for tick in TICKS])
        below.set_xticks([], minor=True)
        above.legend()
        below.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    typer.run(main)
