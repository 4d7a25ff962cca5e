"""Many images in shards: images a second, the same bytes whatever is killed, and memory for many rows.

    python benchmarks/shards.py DETECTOR [--images 20000] [--shard-size 500] [--rows 200000] [--folder DIR] [--no-ray]

DETECTOR is a run folder or a file of `boxless export`. The images are those of the demo, 320 px on the longest side;
three of them are cut off. Each case is a command in processes of its own; parts are compared with those of the first,
byte for byte. The cluster has two nodes of one CPU on this machine. The second table has the peak memory of listing
files and of planning and reading shards, for a tenth of the rows and for all. Needs Linux.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import typer
from _shared import machine
from PIL import Image

from boxless.demo.data import draw_scene
from boxless.shards import read_parts, write_manifest

PER_FOLDER = 1000
LOCAL = """
import sys
from boxless.shards import predict_manifest
run, manifest, out, size, workers = sys.argv[1:]
if __name__ == "__main__":
    summary = predict_manifest(run, manifest, out, shard_size=int(size), workers=int(workers))
    print(summary.images, summary.there, summary.seconds)
"""
RAY = """
import sys
import ray
from ray.cluster_utils import Cluster
from boxless.shards import predict_manifest
run, manifest, out, size, workers = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
summary = predict_manifest(run, manifest, out, engine="ray", shard_size=int(size))
print(summary.images, summary.there, summary.seconds)
ray.shutdown()
cluster.shutdown()
"""
MEMORY = """
import sys
from boxless.memory import peak_memory
from boxless.shards import write_manifest
from boxless.shards.job import Job, plan
from boxless.shards.manifest import count_rows, manifest_digest, read_rows
from boxless.shards.storage import state
folder, manifest = sys.argv[1:]
before = peak_memory()
write_manifest(folder, manifest)
listed = peak_memory()
job = Job("", manifest, "/none", 500, None, count_rows(manifest), "", (), manifest_digest(manifest), state(manifest))
shards, _ = plan(job, (1, 1))
assert sum(len(read_rows(manifest, shard * 500, 500)) for shard in shards) == job.images
print(job.images, before / 1e6, (listed - before) / 1e6, (peak_memory() - listed) / 1e6)
"""


class Case(NamedTuple):
    """One way to make the parts.

    Args:
        script: `LOCAL` or `RAY`.
        workers: processes of the first.
        victim: part of the command line of a process to kill, `driver` for the one that was started; None kills none.
    """

    script: str
    workers: int
    victim: str | None = None


def main(
    detector: Path,
    images: Annotated[int, typer.Option(min=10, help="To draw and predict.")] = 20_000,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a part.")] = 500,
    rows: Annotated[int, typer.Option(min=10, help="Files to list for the second table.")] = 200_000,
    folder: Annotated[Path | None, typer.Option(help="Keeps the images for the next time.")] = None,
    ray: Annotated[bool, typer.Option(help="Whether to try Ray.")] = True,
) -> None:
    """Measure; print the tables."""
    cases = {
        "local, 1 worker": Case(LOCAL, 1),
        "local, 2 workers": Case(LOCAL, 2),
        "local, a worker killed": Case(LOCAL, 2, "spawn_main"),
        "local, the driver killed": Case(LOCAL, 2, "driver"),
    }
    if ray:
        cases |= {"Ray, two nodes": Case(RAY, 2), "Ray, an actor killed": Case(RAY, 2, "ray::")}
    with TemporaryDirectory() as name:
        photos = (folder or Path(name)) / f"drawn-{images}"
        draw(photos, images)
        manifest = str(Path(name) / "photos.parquet")
        write_manifest(str(photos), manifest)
        print(f"{machine()}, {images:,} images in shards of {shard_size}, {detector.name}\n")
        print("| case | images a second | parts | same bytes | unreadable | second run |\n|---|---|---|---|---|---|")
        expected: dict[str, bytes] = {}
        for number, (title, case) in enumerate(cases.items()):
            out = Path(name) / f"parts-{number}"
            rate, second = run(case, [str(detector), manifest, str(out), str(shard_size), str(case.workers)])
            parts = {file.name: file.read_bytes() for file in out.glob("part-*")}
            expected = expected or parts
            unread = sum(image.error is not None for image in read_parts(out))
            same = "yes" if parts == expected else "NO"
            print(f"| {title} | {rate} | {len(parts)} | {same} | {unread} | {second} |", flush=True)
        print(
            "\n| rows | at the start, MB | more to list, MB | more to plan and read all shards, MB |\n|---|---|---|---|"
        )
        for count in (rows // 10, rows):
            touch(Path(name) / f"empty-{count}", count)
            done = measure(MEMORY, [str(Path(name) / f"empty-{count}"), str(Path(name) / f"{count}.parquet")])
            print(f"| {int(done[0]):,} | {done[1]:.0f} | {done[2]:.0f} | {done[3]:.0f} |", flush=True)


def run(case: Case, words: list[str]) -> tuple[str, str]:
    """Images a second, and what a second run does: parts there, and images predicted again."""
    if case.victim:
        out = Path(words[2])
        process = subprocess.Popen(
            [sys.executable, "-c", case.script, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(out.glob("part-*"))) < 2:
            time.sleep(0.01)
        victims = [process.pid] if case.victim == "driver" else descendants(process.pid, case.victim.encode())
        if victims:
            os.kill(victims[0], signal.SIGKILL)
        process.communicate()
    images, there, seconds = measure(case.script, words)
    again, found, _ = measure(case.script, words)
    return ("" if there else f"{images / seconds:.1f}"), f"{int(found)} there, {int(again)} images again"


def measure(script: str, words: list[str]) -> list[float]:
    """The numbers that a script prints last."""
    done = subprocess.run([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def descendants(pid: int, mark: bytes) -> list[int]:
    """The processes that a process started, directly or not, whose command line has `mark`."""
    parents: dict[int, int] = {}
    marked: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if mark in (folder / "cmdline").read_bytes():
                marked.add(int(folder.name))
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found & marked)


def draw(folder: Path, images: int) -> None:
    """Draw the images that are not there, three of them cut off."""
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_draw, [folder] * images, range(images), chunksize=50):
            pass
    for number in (0, images // 2, images - 1):
        path = _path(folder, number)
        path.write_bytes(path.read_bytes()[:1000])


def _draw(folder: Path, number: int) -> None:
    path = _path(folder, number)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_scene(seed=7, index=number)[0]).save(path, quality=90)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number // PER_FOLDER:04d}" / f"{number:08d}.jpg"


def touch(folder: Path, files: int) -> None:
    """Make empty files."""
    for number in range(files):
        path = _path(folder, number)
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()


if __name__ == "__main__":
    typer.run(main)
