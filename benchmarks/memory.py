"""What a training costs as the images become more: time by stage, peak of memory, disk of the caches.

    python benchmarks/memory.py VOCdevkit/VOC2012 --sizes 500,1000,2000,4000 [--classes cat,dog] [key=value ...]

The default method is trained from JPEG files with empty caches, a process of its own for each number of images. Every
image is written under a new name with a comment in the file that makes its content new too, so that nothing is
computed once for two; where there are too few, they come again. Images, caches and run lie in a folder in `--out`
while they are needed: about 1 MB an image.

`resident` is the kernel's high-water mark; it counts pages of memory-mapped feature maps, which the kernel takes back
when it needs them. `anonymous` is what cannot be taken back, sampled ten times a second. Elsewhere than on Linux the
first is that of the largest process so far, so sizes should ascend, and the second is not known. Sizes that were
measured into `--out` before, with the same data and settings, are not measured again.
"""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from _shared import machine

import boxless
from boxless.files import write_json
from boxless.run_folder import read_manifest
from boxless.structures import Dataset

MEMORY = ("resident", "anonymous")
TRAIN = "from boxless.cli import main; main()"


def main(
    data: Path,
    options: Annotated[list[str] | None, typer.Argument(help="key=value settings of the training.")] = None,
    split: str = "train",
    classes: Annotated[str | None, typer.Option(help="Separated by commas; all by default.")] = None,
    sizes: Annotated[str, typer.Option(help="Numbers of images, separated by commas.")] = "500,1000,2000,4000",
    out: Annotated[Path, typer.Option(help="Takes a result a size, and the chart.")] = Path("runs/memory"),
) -> None:
    """Measure; print the tables; draw the chart."""
    dataset = boxless.load_dataset(data, split, None if classes is None else classes.split(","))
    out.mkdir(parents=True, exist_ok=True)
    rows = [measured(dataset, int(size), options or [], out) for size in sizes.split(",")]
    stages = list(rows[0]["seconds"])
    print(f"{dataset.name}, {machine()}, settings: {' '.join(options or ['defaults'])}\n")
    print("| images | minutes | resident, MB | anonymous, MB | proposals, MB an image | maps, MB an image |")
    print("|---" * 6 + "|")
    for row in rows:
        disk = [f"{row['disk'][kind] / row['images'] / 1e6:.3f}" for kind in ("proposals", "features")]
        peaks = ["" if row[kind] is None else f"{row[kind]:.0f}" for kind in MEMORY]
        print(f"| {' | '.join([str(row['images']), f'{minutes(row):.1f}', *peaks, *disk])} |")
    print(f"\n| minutes (share) | {' | '.join(stages)} |\n{'|---' * (len(stages) + 1)}|")
    for row in rows:
        shares = [
            f"{row['seconds'][stage] / 60:.1f} ({row['seconds'][stage] / 60 / minutes(row):.0%})" for stage in stages
        ]
        print(f"| {row['images']} | {' | '.join(shares)} |")
    if len(rows) > 1:
        slope, start = line(rows, [minutes(row) for row in rows])
        print(f"\nStraight line: {start:.1f} minutes and {1000 * slope:.2f} for every 1,000 images.")
    draw(out / "memory.png", rows, stages)


def measured(dataset: Dataset, size: int, options: Sequence[str], out: Path) -> dict[str, Any]:
    """What a training on `size` images takes: seconds by stage, MB of memory, bytes on disk."""
    known = out / f"{size}.json"
    asked = {"data": dataset.name, "classes": list(dataset.classes), "options": list(options)}
    if known.exists():
        row: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
        if {key: row[key] for key in asked} == asked:
            return row
    with TemporaryDirectory(dir=out) as name:
        folder = Path(name)
        cache, run = folder / "cache", folder / "run"
        table = written(dataset, size, folder)
        words = [sys.executable, "-c", TRAIN, "train", str(table), "--out", str(run), *options]
        start = time.perf_counter()
        environment = os.environ | {"BOXLESS_CACHE": str(cache.resolve())}
        peaks = watched(subprocess.Popen(words, env=environment))
        took = time.perf_counter() - start
        seconds = dict(read_manifest(run)["seconds"])
        seconds["start and rest"] = took - sum(seconds.values())
        disk = {kind: bytes_in(cache / kind) for kind in ("proposals", "features")}
    row = {**asked, "images": size, "seconds": seconds, **dict(zip(MEMORY, peaks, strict=True)), "disk": disk}
    write_json(known, row)
    return row


def written(dataset: Dataset, size: int, folder: Path) -> Path:
    """Write `size` images of the dataset, and a table of their tags."""
    table = folder / "tags.csv"
    (folder / "images").mkdir()
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "tags"])
        for number in range(size):
            sample = dataset.samples[number % len(dataset)]
            image = folder / "images" / f"{number:06d}.jpg"
            image.write_bytes(commented(sample.path, f"image {number}"))
            rows.writerow([f"images/{image.name}", ";".join(dataset.classes[tag] for tag in sorted(sample.tags))])
    return table


def commented(path: Path, comment: str) -> bytes:
    """A JPEG file with a comment segment after its first marker: the same pixels, another content."""
    content, text = path.read_bytes(), comment.encode()
    if content[:2] != b"\xff\xd8":
        raise typer.BadParameter(f"{path}: no JPEG; images of other formats cannot be made new here")
    return content[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + content[2:]


def watched(process: subprocess.Popen[bytes]) -> tuple[float, float | None]:
    """Wait for a process; the peaks of its resident and anonymous memory in MB."""
    resident, anonymous = 0.0, 0.0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        # At its end a process has no memory to tell of, then no file.
        with suppress(OSError, KeyError):
            told = dict(row.split(":", 1) for row in status.read_text().splitlines())
            resident, now = (int(told[key].split()[0]) * 1024 / 1e6 for key in ("VmHWM", "RssAnon"))
            anonymous = max(anonymous, now)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit("The training failed: see above.")
    if resident:
        return resident, anonymous
    import resource  # Windows has none.

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6, None


def bytes_in(folder: Path) -> int:
    """Of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def minutes(row: dict[str, Any]) -> float:
    """Of all stages."""
    return float(sum(row["seconds"].values())) / 60


def line(rows: Sequence[dict[str, Any]], values: Sequence[float]) -> tuple[float, float]:
    """Slope and start of the straight line through values of every size, by least squares."""
    slope, start = np.polyfit([row["images"] for row in rows], values, 1)
    return float(slope), float(start)


def draw(file: Path, rows: Sequence[dict[str, Any]], stages: Sequence[str]) -> None:
    """Minutes by stage on the left, peak memory on the right, against images, with straight lines through them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    images = [row["images"] for row in rows]
    width = min([0.08 * max(images), *(0.8 * np.diff(sorted(images)))])
    below = np.zeros(len(rows))
    for stage in stages:
        heights = np.array([row["seconds"][stage] / 60 for row in rows])
        left.bar(images, heights, width, below, label=stage)
        below += heights
    left.set(xlabel="images", ylabel="minutes", xlim=(0, None), ylim=(0, None))
    curves = [(left, below.tolist(), "black")]
    for kind, colour in zip(MEMORY, ("tab:blue", "tab:red"), strict=True):
        values = [row[kind] for row in rows]
        if None not in values:
            right.plot(images, values, "o", color=colour, label=kind)
            curves.append((right, values, colour))
    right.set(xlabel="images", ylabel="peak memory, MB", xlim=(0, None), ylim=(0, None))
    for axes, values, colour in curves if len(rows) > 1 else []:
        slope, start = line(rows, values)
        axes.axline((0, start), slope=slope, color=colour, linewidth=1, linestyle="--")
    left.legend()
    right.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    typer.run(main)
