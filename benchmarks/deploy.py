"""A run folder beside its exported file: images a second, start-up and memory, on one core and on two.

    boxless export RUN --out detector.onnx
    python benchmarks/deploy.py RUN detector.onnx photos [--images 100] [--repeats 3]

From image files to boxes, without writing any. Each measurement is a process of its own that may use so many cores, in
turns, repeat by repeat. Start-up is from importing Boxless to the detector being ready. Needs Linux.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from _shared import machine, spread

from boxless.image_files import find_images

PROCESS = """
import json, os, sys, time
path, cores, *files = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
start = time.perf_counter()
from boxless.loading import load_predictor
predictor = load_predictor(path)
ready = time.perf_counter()
predictor.predict(files[:2], progress=False)
warm = time.perf_counter()
predictor.predict(files, progress=False)
end = time.perf_counter()
# Not `getrusage`, which counts what the process was before it became this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([len(files) / (end - warm), ready - start, int(peak.split()[1]) / 1024]))
"""


def main(
    run: Path,
    file: Path,
    data: Path,
    images: Annotated[int, typer.Option(help="The first of the folder.")] = 100,
    repeats: Annotated[int, typer.Option(help="For the spread.")] = 3,
) -> None:
    """Measure; print the table."""
    files = find_images(data)[:images]
    cores = [number for number in (1, 2) if number <= len(os.sched_getaffinity(0))]
    cases = [(form, number) for number in cores for form in (run, file)]
    measured: dict[tuple[Path, int], list[list[float]]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:
            measured[case].append(measure(*case, files))
    print(f"{machine()}, {len(files)} images, {repeats} repeats\n")
    print("| detector | cores | images a second | start-up, s | peak memory, MB |\n|---|---|---|---|---|")
    for (form, number), rows in measured.items():
        speed, start, memory = zip(*rows, strict=True)
        print(f"| {form.name} | {number} | {spread(speed)} | {spread(start)} | {spread(memory, 0)} |")


def measure(form: Path, cores: int, files: list[Path]) -> list[float]:
    """Images a second, seconds to start, and MB of memory at most."""
    words = [sys.executable, "-c", PROCESS, str(form), str(cores), *map(str, files)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    found: list[float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    typer.run(main)
