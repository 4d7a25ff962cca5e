"""The command line: one function a command; it holds no logic."""

import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shlex import join, quote
from typing import Annotated, Any, NoReturn

import typer
from rich.text import Text

from boxless.commands.cache import cache
from boxless.commands.hub import card, push
from boxless.commands.options import (
    Backbone,
    Classes,
    ConfigFile,
    Data,
    Labels,
    Method,
    Run,
    Settings,
    Split,
    Trained,
    class_names,
)
from boxless.commands.predict import manifest, predict
from boxless.commands.prepare import prepare
from boxless.errors import BoxlessError
from boxless.files import DISK_ERRORS, STDOUT, check_writable, expand_user, write_json
from boxless.logs import log_skipped, log_to_console, log_warnings, logger, warn_if_not_written
from boxless.process import wait_passively
from boxless.progress import console
from boxless.run_path import on_hub
from boxless.tables import print_diagnosis, print_examination, print_proposals, print_scores, results
from boxless.wording import counted

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)

Images = Annotated[list[Path], typer.Argument(help="Images, folders of images, or patterns such as 'photos/*.jpg'.")]
HostName = Annotated[
    str | None, typer.Option("--name", help="Host name by which others reach it, such as host.docker.internal.")
]


def _writable(file: Path | None) -> Path | None:
    if file is not None:
        check_writable(file)
    return file


Json = Annotated[
    Path | None, typer.Option("--json", callback=_writable, help="Write all of it to this file; - is standard output.")
]


class Voc(StrEnum):
    """Data sets that `boxless data` downloads."""

    voc2007 = "voc2007"
    voc2012 = "voc2012"


def _version(asked: bool) -> None:
    if asked:
        results.print(f"boxless {version('boxless')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Object detectors from image tags: class heatmaps, boxes and a detector, and nobody draws a box."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where data, run and images go.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the data and the training.")] = 0,
) -> None:
    """Draw a data set, train on its tags, print the scores, and write images and a report, in minutes."""
    from boxless.demo.run import run_demo

    scores, page = run_demo(out, seed)
    print_scores(scores)
    logger.info("Report: %s; images of the results are beside it", page)


@app.command()
def data(
    name: Annotated[Voc, typer.Argument(help="voc2007 or voc2012.")],
    root: Annotated[Path, typer.Option(help="Folder that takes VOCdevkit/.")],
) -> None:
    """Download a public data set, verified and ready to train on."""
    from boxless.datasets.download import download_voc

    logger.info("Ready: %s", download_voc(name.removeprefix("voc"), root))  # type: ignore[arg-type]


@app.command()
def doctor(
    data: Data,
    split: Split = None,
    classes: Classes = None,
    labels: Labels = None,
    missing_tags: Annotated[
        bool, typer.Option("--missing-tags", help="Name images that look like a class they are not tagged with.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Check whether a detector can be trained on these tags, class by class, and what to fix."""
    from boxless.doctor import examine

    report = examine(data, split, class_names(classes), labels, missing_tags)
    _write(json_file, report, partial(print_examination, data=data))


@app.command()
def proposals(data: Data, settings: Settings = None, split: Split = None) -> None:
    """Compute region proposals and report their number, time and, where there are boxes, recall."""
    from boxless.config import parse_proposals
    from boxless.datasets import load_dataset
    from boxless.proposals.report import report_proposals

    report = report_proposals(log_warnings(load_dataset(data, split)), parse_proposals(settings or []))
    print_proposals(report)


app.command()(prepare)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder; the same command on an unfinished one resumes it.")],
    settings: Settings = None,
    labels: Labels = None,
    method: Method = None,
    backbone: Backbone = None,
    split: Split = None,
    classes: Classes = None,
    config: ConfigFile = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initial weights, image order and dropout.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb; may be given twice.")] = None,
) -> None:
    """Train a detector on image-level tags; boxes are read of --labels, and with supervision=boxes, the upper bound."""
    from boxless.pipeline import train

    try:
        train(
            data,
            out,
            labels=labels,
            method=method,
            split=split,
            classes=class_names(classes),
            config=config,
            options=settings or [],
            seed=seed,
            backbone=backbone,
            trackers=track or [],
        )
    except KeyboardInterrupt:
        logger.info("Stopped: the same command continues %s", out)
        raise
    logger.info(
        "Trained: %s. Next: boxless predict %s IMAGES --out DIR; where there are boxes of other images, "
        "boxless evaluate %s DATA --split val",
        out,
        *[quote(str(out))] * 2,
    )


@app.command()
def evaluate(
    run: Run,
    data: Data,
    split: Split = None,
    json_file: Json = None,
) -> None:
    """Score a detector: VOC and COCO mAP, CorLoc, classification and pointing mAP."""
    from boxless.detector import Detector
    from boxless.evaluation import evaluate
    from boxless.run_folder import result_file

    detector = Detector.load(run)
    scores = evaluate(detector, data, split)
    _write(json_file, scores, print_scores)
    if on_hub(run):
        return
    with warn_if_not_written():
        write_json(result_file(run, "metrics", scores["data"]), scores)


@app.command()
def diagnose(
    run: Run,
    data: Data,
    split: Split = None,
    json_file: Json = None,
) -> None:
    """Diagnose a detector: kinds of errors, and which objects are found, as a chart and JSON."""
    from boxless.detector import Detector
    from boxless.evaluation import diagnose
    from boxless.images import write_image
    from boxless.run_folder import result_file
    from boxless.visualize import plot_diagnosis

    detector = Detector.load(run)
    diagnosis = diagnose(detector, data, split)
    _write(json_file, diagnosis, print_diagnosis)
    if on_hub(run):
        return
    file = result_file(run, "diagnosis", diagnosis["data"])
    chart = file.with_suffix(".png")
    with warn_if_not_written():
        write_json(file, diagnosis)
        logger.info("Numbers and their conventions: %s", file)
        write_image(chart, plot_diagnosis(diagnosis))
        logger.info("Chart: %s", chart)


@app.command()
def report(
    run: Run,
    out: Annotated[Path, typer.Option(help="HTML file, which holds all it shows.")],
    data: Annotated[
        Path | None, typer.Argument(help="What to evaluate on and show images of; else what the run folder holds.")
    ] = None,
    split: Split = None,
) -> None:
    """Write a report on one page: scores, curves, errors, images with boxes and heatmaps, and the doctor's verdicts."""
    from boxless.report import write_report

    write_report(run, out, data, split)
    logger.info("Results: %s", out)


app.command()(manifest)
app.command()(predict)
app.command()(cache)


@app.command()
def heatmap(
    run: Trained,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder for overlays and arrays.")],
    class_name: Annotated[str | None, typer.Option("--class", help="This class only, else the four likeliest.")] = None,
    colormap: Annotated[str, typer.Option(help="Any matplotlib colormap.")] = "jet",
) -> None:
    """Write class heatmaps of images as overlays and .npy arrays."""
    from boxless.loading import load_predictor
    from boxless.results import heatmaps

    log_skipped(heatmaps(load_predictor(run), images, out, class_name, colormap))
    logger.info("Results: %s", out)


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Option(callback=_writable, help="The file, such as detector.onnx.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="To compare the file and the run on; by default images of the training set."),
    ] = None,
    int8: Annotated[
        Path | None, typer.Option(help="Images or a data set: 8-bit integers, calibrated and measured on them.")
    ] = None,
    max_loss: Annotated[float, typer.Option(min=0, max=1, help="Share of mAP that 8-bit integers may lose.")] = 0.02,
) -> None:
    """Write a detector as one ONNX file that predicts without torch; checked against the run on real images."""
    from boxless.export.onnx import export_onnx

    metadata = export_onnx(run, out, images or [], int8=int8, max_loss=max_loss)
    measured, lost = metadata["parity"], metadata.get("int8")
    if lost is not None:
        logger.info(
            "8-bit integers: mAP %.3f, in floating point %.3f, against the %s of %s",
            lost["map_int8"],
            lost["map_float"],
            lost["against"],
            counted(lost["measured"], "image"),
        )
    logger.info(
        "Exported: %s, %.1f MB. On %s its boxes differ from the run's by at most %.2g px, its scores by %.2g. "
        "Next: boxless predict %s IMAGES --out DIR",
        out,
        expand_user(out).stat().st_size / 1e6,
        counted(measured["images"], "image"),
        measured["boxes_px"],
        measured["scores"],
        quote(str(out)),
    )


app.command()(card)
app.command()(push)


@app.command()
def ask(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the queue, and for the same as Label Studio tasks and COCO.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Images to choose.")] = 40,
    split: Split = None,
    labels: Annotated[Path | None, typer.Option(help="Earlier reviews; images done there are left out.")] = None,
    random: Annotated[
        bool, typer.Option("--random", help="A random sample, to estimate the precision of boxes.")
    ] = False,
) -> None:
    """Choose the images whose boxes a person should look at, and write them with proposed boxes."""
    from boxless.review.queue import QUEUE, ask

    chosen = ask(run, data, out, number, split=split, labels=labels, random=random)
    queue = out / QUEUE
    words = join([str(run), str(data), "--queue", str(queue), *(["--split", split] if split else [])])
    logger.info("Chose %s: %s. Next: boxless review %s --out labels.jsonl", counted(chosen, "image"), queue, words)


@app.command()
def review(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(help="JSON Lines of what you say; the same command continues them.")],
    queue: Annotated[Path | None, typer.Option(help="File of boxless ask, or lines of it; else all images.")] = None,
    split: Split = None,
    reviewer: Annotated[str | None, typer.Option(help="Your name, written into every line.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can open the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    name: HostName = None,
) -> None:
    """Serve a page on which proposed boxes are accepted, corrected and drawn, image by image."""
    from boxless.review.app import review

    for line in review(run, data, out, queue=queue, split=split, reviewer=reviewer, host=host, port=port, name=name):
        results.print(Text(line))
    words = join([str(data), "--labels", str(out), *(["--split", split] if split else [])])
    logger.info("Next: boxless train %s --out RUN2", words)


@app.command()
def serve(
    run: Trained,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default only this machine can ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    name: HostName = None,
) -> None:
    """Serve a page that shows boxes and heatmaps of dropped images, and a JSON API."""
    from boxless.server import serve

    serve(run, host, port, name)


def _write(json_file: Path | None, result: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    """Print a result and write it to the file that was asked for; JSON on standard output is there alone."""
    if str(json_file) not in STDOUT:
        show(result)
    if json_file:
        write_json(json_file, result)


def main() -> None:
    """Run the command line; an error that a user can fix is one line on standard error, not a traceback."""
    wait_passively()
    log_to_console()
    try:
        app()
    except BoxlessError as error:
        _fail(str(error))
    except PermissionError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror}; get access to it, or give another path")
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _fail(f"{error.filename or 'a file'}: {error.strerror}; run the same command again once the disk works")
    except RuntimeError as error:
        # PyTorch's own class, without importing it for commands that do not need it.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _fail("the memory of the GPU is full: end other programs on it; in training, lower views.scales")


def _fail(message: str) -> NoReturn:
    console().print("[bold red]Error:[/] ", end="")
    console().print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)
    sys.exit(1)
