"""What a run's exported files find: mAP of the run, of its file, and of the file in 8-bit integers, on a data set.

    python benchmarks/exported.py RUN VOCdevkit/VOC2012 --split val --calibrate train --out runs/exported

Exports RUN to `detector.onnx` and `int8.onnx` in `--out`; the second is calibrated on images of the split `--calibrate`
as `boxless export --int8` chooses them, and written whatever it loses. All three predict the image files of `--split`;
the last row is of the run on maps of the cache, which are rounded to 8 bits, as `boxless evaluate` reads them. The last
column is the area mAP of the run less that of the row.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from _shared import machine

from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.evaluation import matched, predict_dataset
from boxless.export.onnx import export_onnx
from boxless.metrics import evaluate_detections
from boxless.runtime import Runtime
from boxless.structures import Detections, Sample

SCORES = ("mAP_11point", "mAP_area", "CorLoc")


def main(
    run: Path,
    data: Path,
    split: Annotated[str, typer.Option(help="Of the data, to measure on.")] = "val",
    calibrate: Annotated[str, typer.Option(help="Of the data, to calibrate 8-bit integers on.")] = "train",
    out: Annotated[Path, typer.Option(help="Takes the files.")] = Path("runs/exported"),
) -> None:
    """Export and measure; print the table."""
    detector, files = Detector.load(run), (out / "detector.onnx", out / "int8.onnx")
    with TemporaryDirectory() as folder:
        link([sample.path for sample in load_dataset(data, calibrate).samples], Path(folder))
        export_onnx(run, files[0])
        said = export_onnx(run, files[1], int8=folder, max_loss=1)["int8"]
    predictions = predict_dataset(detector, matched(detector, data, split), "Evaluate")
    samples = predictions.dataset.samples
    images = [sample.path for sample in samples]
    found = {f"the run, {detector.method}": detector.predict(images, 0)}
    for file in files:
        found[f"`{file.name}`, {file.stat().st_size / 1e6:.1f} MB"] = Runtime(file).predict(images, 0)
    found["the run, on maps of the cache"] = predictions.detections
    print(f"{machine()}, {predictions.dataset.name}, {len(samples)} images")
    print(f"8-bit integers calibrated on {said['calibrated']} images of {calibrate}\n")
    print("| detector | mAP, 11-point | mAP, area | CorLoc | less than the run |\n|---|---|---|---|---|")
    rows = {name: scores(detections, samples, detector.classes) for name, detections in found.items()}
    whole = next(iter(rows.values()))
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in row)} | {whole[1] - row[1]:+.4f} |")


def link(files: Sequence[Path], folder: Path) -> None:
    """Name files in a folder, in their order."""
    for row, file in enumerate(files):
        (folder / f"{row:06}{file.suffix}").symlink_to(file.resolve())


def scores(detections: Sequence[Detections], samples: Sequence[Sample], classes: Sequence[str]) -> list[float]:
    """`SCORES`."""
    found = evaluate_detections(detections, None, samples, classes)
    return [found[name] for name in SCORES]


if __name__ == "__main__":
    typer.run(main)
