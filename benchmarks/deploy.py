"""A run folder beside its exported files: images a second, start-up and memory, on one core and on two.

    boxless export RUN --out detector.onnx
    boxless export RUN --out int8.onnx --int8 photos
    python benchmarks/deploy.py photos --run RUN --file detector.onnx --int8 int8.onnx

From image files to boxes, without writing any. Each measurement is a process of its own that may use so many cores, in
turns, repeat by repeat. Start-up is from starting Python to the detector being ready. Where OpenVINO is installed it
reads the same files. The last row of a size is `yardstick.py`: what a small detector that is widely known takes without
its suppression. Needs Linux.
"""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import typer
from _shared import machine, spread
from yardstick import export

from boxless.image_files import find_images

PROCESS = """
import json, os, sys, time
engine, path, size, cores, *files = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
if engine == "OpenVINO":
    from openvino_runtime import OpenVINORuntime as load_predictor
elif engine == "yardstick":
    from yardstick import Yardstick as load_predictor
else:
    from boxless.loading import load_predictor
predictor = load_predictor(path)
print(json.dumps(time.clock_gettime(time.CLOCK_MONOTONIC)), flush=True)
from boxless.views import View
predictor.views = tuple(View(int(size), view.flipped) for view in predictor.views)
# OpenVINO compiles kernels for each size of image.
predictor.predict(files[:10], progress=False)
start = time.perf_counter()
predictor.predict(files, progress=False)
seconds = time.perf_counter() - start
# Not `getrusage`, which counts what the process was before it became this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([len(files) / seconds, int(peak.split()[1]) / 1024]))
"""


class Case(NamedTuple):
    """What is measured.

    Args:
        engine: that computes the network.
        path: run folder or exported file.
        size: longest side in pixels.
        cores: that the process may use.
    """

    engine: str
    path: Path
    size: int
    cores: int


def main(
    data: Path,
    run: Annotated[Path | None, typer.Option(help="Run folder.")] = None,
    file: Annotated[Path | None, typer.Option(help="Its file in floating point.")] = None,
    int8: Annotated[Path | None, typer.Option(help="Its file in 8-bit integers.")] = None,
    size: Annotated[list[int], typer.Option(help="Longest side; may be given again.")] = [320, 512, 768],  # noqa: B006
    images: Annotated[int, typer.Option(help="The first of the folder.")] = 100,
    repeats: Annotated[int, typer.Option(help="For the spread.")] = 3,
) -> None:
    """Measure; print the table."""
    files = find_images(data)[:images]
    given = [("PyTorch", run), ("ONNX Runtime", file), ("ONNX Runtime", int8)]
    if find_spec("openvino") is not None:
        given += [("OpenVINO", file), ("OpenVINO", int8)]
    cores = [number for number in (1, 2) if number <= len(os.sched_getaffinity(0))]
    with TemporaryDirectory() as folder:
        yardstick = Path(folder) / "SSDlite.onnx"
        export(yardstick)
        given.append(("yardstick", yardstick))
        cases = [
            Case(engine, path, side, number)
            for side in size
            for number in cores
            for engine, path in given
            if path is not None
        ]
        measured: dict[Case, list[list[float]]] = {case: [] for case in cases}
        for _ in range(repeats):
            for case in cases:
                measured[case].append(measure(case, files))
    print(f"{machine()}, {len(files)} images, {repeats} repeats\n")
    print("| detector | engine | px | cores | images a second | start-up, s | peak memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for case, rows in measured.items():
        speed, start, memory = zip(*rows, strict=True)
        numbers = f"{spread(speed)} | {spread(start)} | {spread(memory, 0)}"
        print(f"| {case.path.name} | {case.engine} | {case.size} | {case.cores} | {numbers} |", flush=True)


def measure(case: Case, files: list[Path]) -> list[float]:
    """Images a second, seconds to start, and MB of memory at most."""
    words = [sys.executable, "-c", PROCESS, *map(str, case._replace(path=case.path.resolve())), *map(str, files)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.cores), "PYTHONPATH": str(Path(__file__).parent)}
    start = time.clock_gettime(time.CLOCK_MONOTONIC)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    ready, (speed, memory) = map(json.loads, done.stdout.splitlines())
    return [speed, ready - start, memory]


if __name__ == "__main__":
    typer.run(main)
