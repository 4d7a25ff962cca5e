"""The chart of the README, docs/benchmarks.png, from the numbers in benchmarks/results.csv.

    python benchmarks/chart.py [--out docs/benchmarks.png]

`results.csv` has mean, minimum and maximum over three seeds of every score that `methods.py` prints.
"""

import csv
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib.pyplot as plt
import typer

RESULTS = Path(__file__).with_name("results.csv")
BENCHMARKS = ("animals", "playing cards")
UPPER_BOUND = "upper-bound"
BLUE, GREY, INK = "#0072b2", "#b0b7be", "#333333"


class Score(NamedTuple):
    """Mean and range of a score over the seeds."""

    mean: float
    low: float
    high: float


def main(out: Annotated[Path, typer.Option(help="Image file.")] = Path("docs/benchmarks.png")) -> None:
    """Draw mAP and CorLoc of every method on each benchmark."""
    figure, axes = plt.subplots(1, len(BENCHMARKS), figsize=(11, 4.2), layout="constrained")
    for axis, benchmark in zip(axes, BENCHMARKS, strict=True):
        _draw(axis, benchmark, _read(benchmark, "mAP_area"), _read(benchmark, "CorLoc"))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside lower center", ncols=len(labels), frameon=False, fontsize=10
    )
    figure.savefig(out, dpi=110)


def _read(benchmark: str, score: str) -> dict[str, Score]:
    """Method -> its score."""
    with RESULTS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["benchmark"], row["score"]) == (benchmark, score)]
    return {row["method"]: Score(float(row["mean"]), float(row["min"]), float(row["max"])) for row in rows}


def _draw(axis: Any, benchmark: str, maps: dict[str, Score], corlocs: dict[str, Score]) -> None:
    """A bar of mAP and a mark of CorLoc for every method, the best on top."""
    methods = sorted(maps, key=lambda name: maps[name].mean)
    for row, method in enumerate(methods):
        score, corloc = maps[method], corlocs[method]
        full = method == UPPER_BOUND
        label = None if row else "mAP50, with its range over three seeds"
        axis.barh(row, score.mean, 0.62, color=GREY if full else BLUE, label=None if full else label)
        axis.plot([score.low, score.high], [row, row], color=INK, linewidth=1.6)
        axis.plot(corloc.mean, row, "D", color="white", markeredgecolor=INK, label=None if row else "CorLoc")
    bound = maps[UPPER_BOUND].mean
    axis.axvline(bound, color=GREY, linestyle="--", linewidth=1, zorder=0)
    axis.set_yticks(range(len(methods)), [name.replace(UPPER_BOUND, "upper bound") for name in methods], fontsize=10)
    axis.set_xlim(0, 1)
    axis.set_title(benchmark, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


if __name__ == "__main__":
    typer.run(main)
