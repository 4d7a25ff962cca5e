"""The command line: one verb, one function; the work is done elsewhere."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boxless.errors import BoxlessError
from boxless.progress import announce, console, report_skipped

app = typer.Typer(
    help="Object detectors from image tags: class heatmaps, boxes and a detector, and nobody draws a box.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

# Results go to standard output, so that they can be piped; progress and remarks go to standard error.
results = Console()

Data = Annotated[
    Path, typer.Argument(help="VOC devkit year, COCO JSON, YOLO data.yaml, class folders, or a CSV/TSV table.")
]
Run = Annotated[Path, typer.Argument(help="Run folder of boxless train.")]
Images = Annotated[Path, typer.Argument(help="An image, or a folder of images.")]
Split = Annotated[str | None, typer.Option(help="Part of the data; by default trainval, else train, or all.")]
Classes = Annotated[str | None, typer.Option(help="Only these, separated by commas.")]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.epochs=8.")
]


class Voc(StrEnum):
    """Data sets that `boxless data` downloads."""

    voc2007 = "voc2007"
    voc2012 = "voc2012"


class Format(StrEnum):
    """Formats that `boxless predict` writes."""

    coco = "coco"
    voc = "voc"
    yolo = "yolo"
    csv = "csv"
    label_studio = "label-studio"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where data, run and images go.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Of the data and the training.")] = 0,
) -> None:
    """Draw a data set, train on its tags, print the scores, write images and a report: the whole way in minutes."""
    from boxless.demo.run import run_demo

    scores, page = run_demo(out, seed)
    _print_scores(scores)
    console.print(f"Look at {page}, and at the images beside it", highlight=False, soft_wrap=True)


@app.command()
def data(name: Voc, root: Annotated[Path, typer.Option(help="Folder that takes VOCdevkit/.")]) -> None:
    """Download a public data set, verified and ready to train on."""
    from boxless.datasets.download import download_voc

    console.print(f"Ready: {download_voc(name.removeprefix('voc'), root)}", highlight=False)  # type: ignore[arg-type]


@app.command()
def doctor(
    data: Data,
    split: Split = None,
    classes: Classes = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")] = None,
) -> None:
    """Say whether a detector can be learned from these tags at all, class by class, and what to mend."""
    from boxless.doctor import examine

    report = examine(data, split, _names(classes))
    if json_file:
        from boxless.run_folder import write_json  # It brings torch, which nothing else here needs.

        write_json(json_file, report)
    _print_examination(report, data)


@app.command()
def proposals(data: Data, settings: Settings = None, split: Split = None) -> None:
    """Compute region proposals and report their number, time and, where there are boxes, recall."""
    from boxless.config import parse_proposals
    from boxless.datasets import load_dataset
    from boxless.proposals.report import report_proposals

    report = report_proposals(announce(load_dataset(data, split)), parse_proposals(settings or []))
    table = Table("", "value")
    for name, value in report.items():
        table.add_row(name, f"{value:,.3f}".rstrip("0").rstrip("."))
    results.print(table)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder; the same command on an unfinished one resumes it.")],
    settings: Settings = None,
    method: Annotated[
        str | None, typer.Option(help="seeded (default), student, cam, oquab, wsddn, contextlocnet, oicr, pcl, mist.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="efficientnet_lite0, alexnet, vgg16, resnet50 or a timm name.")
    ] = None,
    split: Split = None,
    classes: Classes = None,
    config: Annotated[Path | None, typer.Option(help="YAML file laid over the method's preset.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and dropout.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb; may be given twice.")] = None,
) -> None:
    """Train a detector from image-level tags; boxes are not looked at, unless with supervision=boxes (the ceiling)."""
    from boxless.training.train import train

    train(
        data,
        out,
        method=method,
        split=split,
        classes=_names(classes),
        config=config,
        options=settings or [],
        seed=seed,
        backbone=backbone,
        trackers=track or [],
    )
    console.print(
        f"Trained: {out}. Next: boxless predict {out} IMAGES --out DIR; where there are boxes of other images, "
        f"boxless evaluate {out} DATA --split val",
        highlight=False,
    )


@app.command()
def evaluate(
    run: Run,
    data: Data,
    split: Split = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all scores to this file.")] = None,
) -> None:
    """Score a detector: VOC mAP, CorLoc, classification and pointing mAP."""
    from boxless.detector import Detector
    from boxless.evaluation import evaluate
    from boxless.run_folder import write_json

    detector = Detector.load(run)
    scores = evaluate(detector, data, split)
    write_json(run / f"metrics-{scores['data'].replace(' ', '-')}.json", scores)
    if json_file:
        write_json(json_file, scores)
    _print_scores(scores)


@app.command()
def diagnose(
    run: Run,
    data: Data,
    split: Split = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
) -> None:
    """Tell where a detector is right and wrong: kinds of errors, and which objects are found, as a chart and JSON."""
    from boxless.detector import Detector
    from boxless.evaluation import diagnose
    from boxless.images import write_image
    from boxless.run_folder import write_json
    from boxless.visualize import plot_diagnosis

    detector = Detector.load(run)
    diagnosis = diagnose(detector, data, split)
    chart = run / f"diagnosis-{diagnosis['data'].replace(' ', '-')}.png"
    write_json(chart.with_suffix(".json"), diagnosis)
    write_image(chart, plot_diagnosis(diagnosis))
    if json_file:
        write_json(json_file, diagnosis)
    _print_diagnosis(diagnosis)
    console.print(f"What each number means stands in {chart.with_suffix('.json')}", highlight=False, soft_wrap=True)
    console.print(f"Look at {chart}", highlight=False, soft_wrap=True)


@app.command()
def report(
    run: Run,
    out: Annotated[Path, typer.Option(help="HTML file, which holds all it shows.")],
    data: Annotated[
        Path | None, typer.Argument(help="What to evaluate on and show images of; else what the run folder holds.")
    ] = None,
    split: Split = None,
) -> None:
    """Tell a run on one page: scores, curves, kinds of errors, images with boxes and heatmaps, the data's health."""
    from boxless.report import write_report

    write_report(run, out, data, split)
    console.print(f"Look at {out}", highlight=False, soft_wrap=True)


@app.command()
def predict(
    run: Run,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder for overlays and the machine-readable file.")],
    format: Annotated[Format, typer.Option(help="Of the machine-readable file.")] = Format.coco,
    min_score: Annotated[
        float | None, typer.Option(help="All boxes from this score on, not the confident ones.")
    ] = None,
) -> None:
    """Find objects in images: overlays to look at, beside a file for programs."""
    from boxless.detector import Detector
    from boxless.results import predict

    report_skipped(predict(Detector.load(run), images, out, format, min_score))
    console.print(f"Look at {out}", highlight=False)


@app.command()
def heatmap(
    run: Run,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder for overlays and arrays.")],
    class_name: Annotated[str | None, typer.Option("--class", help="This class only, else the four likeliest.")] = None,
    colormap: Annotated[str, typer.Option(help="Any matplotlib colormap.")] = "jet",
) -> None:
    """Show where each class is: overlays to look at, beside the maps as .npy arrays."""
    from boxless.detector import Detector
    from boxless.results import heatmaps

    report_skipped(heatmaps(Detector.load(run), images, out, class_name, colormap))
    console.print(f"Look at {out}", highlight=False)


@app.command()
def serve(
    run: Run,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
) -> None:
    """Serve a page that shows boxes and heatmaps of images dropped on it, and a JSON API beside it."""
    from boxless.server import serve

    serve(run, host, port)


def _names(classes: str | None) -> list[str] | None:
    return None if classes is None else [name.strip() for name in classes.split(",") if name.strip()]


def _print_scores(scores: dict[str, Any]) -> None:
    from boxless.metrics.summary import CONVENTIONS, upper_bound

    title = f"{scores['data']}: {scores['images']} images{upper_bound(scores)}"
    # Names of classes and data are no markup.
    table = Table("class", "images", "objects", title=Text(title))
    for key in CONVENTIONS:
        table.add_column(key.replace("_", " "), overflow="fold")
    for name, row in {**scores["classes"], "mean": scores}.items():
        cells = ["" if row[key] is None else f"{row[key]:.3f}" for key in CONVENTIONS]
        counts = ["" if row is scores or row[key] is None else str(row[key]) for key in ("images", "objects")]
        table.add_row(Text(name), *counts, *cells, style="bold" if row is scores else None)
    results.print(table)
    for key, convention in CONVENTIONS.items():
        results.print(f"[bold]{key}[/]  {convention}", highlight=False)


def _print_diagnosis(diagnosis: dict[str, Any]) -> None:
    from boxless.metrics.errors import OUTCOMES
    from boxless.metrics.summary import upper_bound

    # Ten columns fit into eighty letters without padding only.
    title = f"{diagnosis['data']}: the confident detections, in %{upper_bound(diagnosis)}"
    judged = Table("class", "judged", title=Text(title), padding=0)
    objects = Table("class", "objects", title=Text(f"{diagnosis['data']}: the objects found, in %"), padding=0)
    recalls = ("recall", "recall_small", "recall_first", "recall_further")
    for table, names in ((judged, OUTCOMES), (objects, recalls)):
        for name in names:
            table.add_column(name.replace("_", "\n"), overflow="fold")
    for name, row in {**diagnosis["classes"], "all": diagnosis}.items():
        style = "bold" if row is diagnosis else None
        rates = [f"{outcome}_rate" for outcome in OUTCOMES]
        judged.add_row(Text(name), str(row["detections"]), *_percents(row, rates), style=style)
        objects.add_row(Text(name), str(row["objects"]), *_percents(row, recalls), style=style)
    results.print(judged, objects)


def _percents(row: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return ["" if row[key] is None else f"{100 * row[key]:.1f}" for key in keys]


_LEVELS = {"hopeless": "bold red", "weak": "yellow", "note": "cyan", "fine": "green"}


def _print_examination(report: dict[str, Any], data: Path) -> None:
    from boxless.doctor.finding import name_files

    title = f"{report['data']} ({', '.join(report['judged'])}): {report['images']:,} images"
    table = Table("class", "images", "without it", "most often with", "one object", "verdict", "why", title=Text(title))
    for name, row in report["classes"].items():
        company, single = row["company"], row["single_object"]
        beside = "" if company is None else f"{company['class']} {company['share']:.0%}"
        cells = (f"{row['images']:,}", f"{row['negatives']:,}", beside, "" if single is None else f"{single:.0%}")
        verdict = Text(row["verdict"], _LEVELS[row["verdict"]])
        table.add_row(*map(Text, (name, *cells)), verdict, ", ".join(row["reasons"]))
    results.print(table)
    grid = Table.grid(padding=(0, 2))
    for finding in report["findings"]:
        files = "".join(f"\n  {line}" for line in name_files(finding["images"], data))
        grid.add_row(
            Text(finding["level"], _LEVELS[finding["level"]]), Text(f"{finding['fault']}: {finding['what']}{files}")
        )
        grid.add_row("", Text(f"mend: {finding['mend']}", "dim"))
    results.print(grid if report["findings"] else "Nothing stands in the way.")


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error, not a traceback."""
    try:
        app()
    except BoxlessError as error:
        console.print("[bold red]Error:[/] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
