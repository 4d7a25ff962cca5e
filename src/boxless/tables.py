"""Results as tables on standard output."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxless.wording import counted, supervision_note


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads on, as in `boxless evaluate ... | head -1`; the files are written all the same."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Results go to standard output, so that they can be piped; progress and messages go to standard error.
results = _Results()

_LEVELS = {"hopeless": "bold red", "weak": "yellow", "note": "cyan", "fine": "green"}


def print_proposals(report: dict[str, Any]) -> None:
    """What `proposals.report.report_proposals` gives."""
    table = Table("", "value")
    for name, value in report.items():
        table.add_row(name, f"{value:,.3f}".rstrip("0").rstrip("."))
    results.print(table)


def print_scores(scores: dict[str, Any]) -> None:
    """What `evaluate` gives, class by class, and how each number is measured."""
    from boxless.metrics.summary import CONVENTIONS, mean_name

    title = f"{scores['data']}: {counted(scores['images'], 'image')}{supervision_note(scores)}"
    # Text, as names of classes and data may look like markup.
    table = Table("class", "images", "objects", title=Text(title), padding=0)
    # Without boxes there is image classification alone.
    known = [key for key in CONVENTIONS if scores[key] is not None] or list(CONVENTIONS)
    for key in known:
        table.add_column(key.replace("_", "\n"), overflow="fold")
    for name, row in (*scores["classes"].items(), (mean_name(scores), scores)):
        cells = ["" if row[key] is None else f"{row[key]:.3f}" for key in known]
        counts = ["" if row is scores or row[key] is None else str(row[key]) for key in ("images", "objects")]
        table.add_row(Text(name), *counts, *cells, style="bold" if row is scores else None)
    results.print(table)
    for key in known:
        results.print(f"[bold]{key}[/]  {CONVENTIONS[key]}", highlight=False)
    if len(known) < len(CONVENTIONS):
        results.print("Other scores need boxes, which this data does not have.", highlight=False)


def print_diagnosis(diagnosis: dict[str, Any]) -> None:
    """What `diagnose` gives: the kinds of detections, and the objects found."""
    from boxless.metrics.errors import OUTCOMES

    # Ten columns fit into eighty letters without padding only.
    title = f"{diagnosis['data']}: the top-scored detections, in %{supervision_note(diagnosis)}"
    outcomes = Table("class", "detections", title=Text(title), padding=0)
    objects = Table("class", "objects", title=Text(f"{diagnosis['data']}: the objects found, in %"), padding=0)
    recalls = ("recall", "recall_small", "recall_first", "recall_further")
    for table, names in ((outcomes, OUTCOMES), (objects, recalls)):
        for name in names:
            table.add_column(name.replace("_", "\n"), overflow="fold")
    for name, row in (*diagnosis["classes"].items(), ("all", diagnosis)):
        style = "bold" if row is diagnosis else None
        rates = [f"{outcome}_rate" for outcome in OUTCOMES]
        outcomes.add_row(Text(name), str(row["detections"]), *_percents(row, rates), style=style)
        objects.add_row(Text(name), str(row["objects"]), *_percents(row, recalls), style=style)
    results.print(outcomes, objects)


def _percents(row: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return ["" if row[key] is None else f"{100 * row[key]:.1f}" for key in keys]


def print_examination(report: dict[str, Any], data: Path) -> None:
    """What `boxless.doctor.examine` gives: a verdict for each class, and the problems found."""
    from boxless.doctor.finding import name_files

    title = f"{report['data']} ({', '.join(report['splits'])}): {counted(report['images'], 'image')}"
    rows = report["classes"].values()
    kinds = {"unknown": "unsure", "with boxes": "given", "counted": "counted"}
    more = {head: key for head, key in kinds.items() if any(row[key] for row in rows)}
    heads = ("class", "images", "without it", *more, "most often with", "one object", "verdict", "why")
    # Nine columns fit into eighty letters without padding only.
    table = Table(*heads, title=Text(title), padding=0 if more else (0, 1))
    for name, row in report["classes"].items():
        other, single = row["co_occurrence"], row["single_object"]
        beside = "" if other is None else f"{other['class']} {other['share']:.0%}"
        counts = (f"{row[key]:,}" for key in ("images", "negatives", *more.values()))
        cells = (*counts, beside, "" if single is None else f"{single:.0%}")
        verdict = Text(row["verdict"], _LEVELS[row["verdict"]])
        table.add_row(*map(Text, (name, *cells)), verdict, ", ".join(row["reasons"]))
    results.print(table)
    grid = Table.grid(padding=(0, 2))
    for finding in report["findings"]:
        files = "".join(f"\n  {line}" for line in name_files(finding["images"], data))
        grid.add_row(
            Text(finding["level"], _LEVELS[finding["level"]]), Text(f"{finding['fault']}: {finding['what']}{files}")
        )
        grid.add_row("", Text(f"fix: {finding['fix']}", "dim"))
    results.print(grid if report["findings"] else "No problems found.")
