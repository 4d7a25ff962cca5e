"""`boxless predict` from image files, proposals included: images a second, and where the time goes.

    python benchmarks/predict.py RUN VOCdevkit/VOC2012 [--split val] [--images 100] [--repeats 3]

RUN is the folder of a training. The same detector is measured with its own proposals and with those of OpenCV's
Selective Search (fast mode, 500 px), in turns, repeat by repeat. Overlays and the file for programs are written, as the
command does. The second table has what each part of the work costs an image on one thread.
"""

import copy
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from _shared import machine, spread

import boxless
from boxless.detector import CachedImage, Detector
from boxless.images import read_image, write_image
from boxless.proposals import propose
from boxless.results import predict
from boxless.visualize import draw_boxes

OWN, OPENCV = "of the run", "Selective Search, fast, 500 px"
PARTS = ("decode", "proposals", "features", "heads", "overlay")


def main(
    run: Path,
    data: Path,
    split: str = "val",
    images: Annotated[int, typer.Option(help="The first of the split.")] = 100,
    repeats: Annotated[int, typer.Option(help="For the spread.")] = 3,
) -> None:
    """Measure; print the tables."""
    detector = Detector.load(run, "cpu")
    if detector.proposals is None:
        raise typer.BadParameter(f"{run}: {detector.config.method} has no proposals to compare")
    other = copy.copy(detector)
    changes = {"generator": "selective_search", "size": 500}
    other.proposals = detector.proposals.model_copy(update=changes)
    files = [sample.path for sample in boxless.load_dataset(data, split).samples[:images]]
    seconds: dict[str, list[float]] = {OWN: [], OPENCV: []}
    with TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        for number, file in enumerate(files):
            (folder / f"{number:06d}{file.suffix}").symlink_to(file.resolve())
        out = Path(name) / "found"
        predict(detector, next(folder.iterdir()), out, "coco")  # Compiles, or loads what was compiled.
        for _ in range(repeats):
            for proposals, measured in ((OWN, detector), (OPENCV, other)):
                start = time.perf_counter()
                predict(measured, folder, out, "coco")
                seconds[proposals].append(time.perf_counter() - start)
        shares = parts(detector, files, out / "overlay.jpg")
    print(f"{machine()}, {len(files)} images, {repeats} repeats, method {detector.config.method}\n")
    print("| proposals | images a second | times as fast (range) |\n|---|---|---|")
    for proposals, spent in seconds.items():
        ratios = [slow / own for slow, own in zip(seconds[OPENCV], spent, strict=True)]
        print(f"| {proposals} | {spread(len(files) / each for each in spent)} | {spread(ratios)} |")
    print("\n| part, on one thread | ms an image | share |\n|---|---|---|")
    for part, milliseconds in shares.items():
        print(f"| {part} | {milliseconds:.1f} | {milliseconds / sum(shares.values()):.0%} |")


def parts(detector: Detector, files: list[Path], overlay: Path) -> dict[str, float]:
    """Milliseconds an image of every part of the work, one image after another on one thread."""
    settings, marks = detector.proposals, []
    assert settings is not None
    with detector.in_parallel():
        for file in files:
            times = [time.perf_counter()]
            pixels = read_image(file)
            times.append(time.perf_counter())
            boxes = propose(pixels, settings)
            times.append(time.perf_counter())
            maps = [detector.features.extract(pixels, view) for view in detector.views]
            times.append(time.perf_counter())
            found = detector.postprocess(CachedImage(maps, boxes, (pixels.shape[1], pixels.shape[0])))
            times.append(time.perf_counter())
            write_image(overlay, draw_boxes(pixels, found.confident()))
            times.append(time.perf_counter())
            marks.append(times)
    means = 1000 * np.diff(marks).mean(axis=0)
    return dict(zip(PARTS, means.tolist(), strict=True))


if __name__ == "__main__":
    typer.run(main)
