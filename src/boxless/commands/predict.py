"""`boxless predict`, and `boxless manifest`, which lists the images that it takes by the million."""

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from boxless.commands.options import Trained
from boxless.errors import BoxlessError
from boxless.image_files import VIDEOS
from boxless.logs import log_skipped, logger
from boxless.wording import counted

MANIFEST = ".parquet"
"""Suffix of manifests."""


def manifest(
    images: Annotated[str, typer.Argument(metavar="DIR_OR_URI", help="A folder, or such as s3://bucket/photos.")],
    out: Annotated[str, typer.Option(help="The file, such as photos.parquet; a path or URI.")],
) -> None:
    """List the images below a folder or URI into a Parquet file that boxless predict takes, however many there are."""
    _check_manifest(out)
    from boxless.shards import write_manifest

    listing = write_manifest(images, out)
    if listing.left_out:
        logger.warning("%s left out; the first: %s", counted(listing.left_out, "file"), listing.reason)
    number, name = counted(listing.images, "image"), quote(out)
    logger.info("Listed %s: %s. Next: boxless predict RUN %s --out DIR", number, out, name)


def predict(
    run: Trained,
    images: Annotated[
        list[str],
        typer.Argument(help="Images, folders of images, or patterns such as 'photos/*.jpg'; or one video or manifest."),
    ],
    out: Annotated[str, typer.Option(help="Folder for overlays and the machine-readable file, or URI for parts.")],
    format: Annotated[
        str | None,
        typer.Option(help="Format of the machine-readable file: coco (default), voc, yolo, csv, label-studio."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of a box; by default the confident boxes of each class."),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="For a manifest: local (default) or ray.")] = None,
    shard_size: Annotated[int | None, typer.Option(help="For a manifest: images in a part; by default 500.")] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="i/n", help="For a manifest: every n-th shard from the i-th on.")
    ] = None,
) -> None:
    """Detect objects in images; write overlays and a machine-readable file, or Parquet parts for a manifest."""
    options = {"engine": engine, "shard_size": shard_size, "shards": shards}
    given = {name: value for name, value in options.items() if value is not None}
    if any(image.lower().endswith(MANIFEST) for image in images):
        _predict_manifest(str(run), images, out, format, threshold, given)
        return
    if given:
        name = next(iter(given)).replace("_", "-")
        raise BoxlessError(f"--{name}: only with a manifest, which boxless manifest DIR --out photos.parquet makes")
    if "://" in out:
        raise BoxlessError(f"--out {out}: only the parts of a manifest are written to a URI; give a folder")
    if video := next((image for image in images if Path(image).suffix.lower() in VIDEOS), None):
        if len(images) > 1:
            raise BoxlessError(f"{video}: a video is given alone, without other videos or images")
        _predict_video(run, video, out, format, threshold)
        return
    from boxless.export import FORMATS
    from boxless.loading import load_predictor
    from boxless.results import predict

    format = format or "coco"
    FORMATS.find(format)
    log_skipped(predict(load_predictor(run), images, out, format, threshold))
    logger.info("Results: %s", out)


def _predict_video(run: Path, video: str, out: str, format: str | None, threshold: float | None) -> None:
    # FFmpeg's own lines would stand beside ours.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from boxless.loading import load_predictor
    from boxless.video import predict_video, writer

    writer(format or "coco")
    frames = predict_video(load_predictor(run), video, out, format or "coco", threshold)
    logger.info("Results of %s: %s", counted(frames, "frame"), out)


def _predict_manifest(
    run: str, images: Sequence[str], out: str, format: str | None, threshold: float | None, options: dict[str, Any]
) -> None:
    if len(images) > 1:
        raise BoxlessError(f"{len(images)} images given: a manifest is given alone")
    if format is not None:
        raise BoxlessError(
            "--format: of a manifest parts are written; boxless.shards.export_parts makes other formats of them"
        )
    from boxless.shards.predict import log_summary, predict_manifest

    log_summary(predict_manifest(run, images[0], out, threshold=threshold, **options), out)


def _check_manifest(out: str) -> None:
    if not out.lower().endswith(MANIFEST):
        raise BoxlessError(f"--out {out}: a manifest ends with {MANIFEST}")
