"""How much slower training is beside other busy processes, with threads that sleep or spin while they wait.

    python benchmarks/busy.py [--busy 2] [--repeats 3] [key=value ...]

`seeded` is trained on the drawn demo set, proposals and feature maps cached, alone and beside so many processes that do
nothing but compute; each with `OMP_WAIT_POLICY=PASSIVE`, which the command line sets, and with OpenMP's own default.
They take turns, repeat by repeat. A row has the seconds of the epochs of all networks, and their ratio; of two cores
that three busy processes share a training with two threads keeps two thirds at best.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from _shared import machine, spread

from boxless.demo.data import make_demo
from boxless.run_folder import read_history

POLICIES = {"asleep, ours": "PASSIVE", "spinning": None}
TRAIN = """
import sys, boxless
boxless.train(sys.argv[1], sys.argv[2], split="train", options=sys.argv[3:], progress=False)
"""
BUSY = "while True: pass"


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings, such as pseudo_labels.rounds=1.")] = None,
    busy: Annotated[int, typer.Option(help="Busy processes.")] = 2,
    repeats: Annotated[int, typer.Option(help="Of each training.")] = 3,
) -> None:
    """Measure; print the table."""
    options = settings or ["pseudo_labels.rounds=1", "pseudo_labels.mosaics=0", "training.steps=120"]
    print(f"{' '.join(options)}, {machine()}\n")
    with TemporaryDirectory() as name:
        folder = Path(name)
        data = make_demo(folder, seed=0)
        seconds = {(policy, number): list[float]() for policy in POLICIES for number in (0, busy)}
        # The first one fills the cache.
        for repeat in range(-1, repeats):
            for policy, number in seconds:
                with busy_processes(number):
                    spent = trained(data, folder / f"{repeat} {policy} {number}", policy, options)
                if repeat < 0:
                    break
                seconds[policy, number].append(spent)
    print(f"| threads wait | alone, s | beside {busy} busy processes, s | times as long |\n|---|---|---|---|")
    for policy in POLICIES:
        alone, beside = seconds[policy, 0], seconds[policy, busy]
        print(f"| {policy} | {spread(alone)} | {spread(beside)} | {spread(np.divide(beside, alone), 2)} |")


def trained(data: Path, run: Path, policy: str, options: list[str]) -> float:
    """Seconds of all epochs of a training."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"BOXLESS_CACHE": str(data.parent / "cache")}
    if (value := POLICIES[policy]) is not None:
        environment["OMP_WAIT_POLICY"] = value
    subprocess.run([sys.executable, "-c", TRAIN, data, run, *options], env=environment, check=True)
    return sum(float(row["seconds"]) for file in run.rglob("history.jsonl") for row in read_history(file.parent))


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes that compute until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    typer.run(main)
