"""The files that `boxless predict` and `boxless heatmap` write: overlays for people, annotations for programs."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.export.common import Names
from boxless.files import expand_user, write_text, write_whole
from boxless.image_files import scan_images
from boxless.images import write_image
from boxless.predictor import Predictor
from boxless.proposals.scaling import shrink
from boxless.result_record import check_results, record_results, written_here
from boxless.structures import Detections
from boxless.trust import trust_warning
from boxless.visualize import contact_sheet, draw_boxes, draw_heatmap, heatmap_panel
from boxless.wording import counted

logger = logging.getLogger(__name__)

OVERLAYS, OVERVIEW, VIDEO = "overlays", "overview.jpg", "overlay.mp4"
SHEET = 24
"""The maximum number of images on an overview."""
TILE = 600
"""Longest side of an image kept for the overview, in pixels."""

Images = str | PathLike[str] | Sequence[str | PathLike[str]]
"""Images, folders of images and patterns such as `shots/*.jpg`, one or several; `~` is the user's home."""


def predict(
    detector: Predictor, images: Images, out: str | PathLike[str], format: str, threshold: float | None = None
) -> dict[Path, str]:
    """Detect objects in images and write their boxes: overlays, an overview, and a machine-readable file.

    Args:
        detector: the detector.
        images: see `Images`.
        out: takes `overlays/`, `overview.jpg` and what the format writes.
        format: a key of `export.FORMATS`.
        threshold: write the boxes that score at least this; None writes the confident ones, see
            `Detections.confident`.

    Returns:
        Images that could not be read -> reason.

    Raises:
        BoxlessError: there is no such format, no image, none can be read, or `out` cannot be written or has files of
            these names that are not results.
    """
    out, form = expand_user(out), FORMATS.find(format)
    written = (OVERLAYS, OVERVIEW, *form.files)
    check_results(out, written)
    files, skipped = _find(images, out)
    names, overlays, boxes = Names(), list[NDArray[np.uint8]](), Counter[str]()
    seen = with_boxes = 0

    def found() -> Iterator[tuple[Path, Detections]]:
        nonlocal seen, with_boxes
        for path, pixels, detections in detector.predict_files(files, skipped):
            if not overlays:
                record_results(out, written)
            shown = detections.confident() if threshold is None else detections.above(threshold)
            overlay = draw_boxes(pixels, shown)
            write_image(out / OVERLAYS / f"{names.name(path)}.jpg", overlay)
            overlays.extend([shrink(overlay, TILE)] if len(overlays) < SHEET else [])
            boxes.update(shown.names)
            seen, with_boxes = seen + 1, with_boxes + bool(len(shown))
            yield path, shown
        # Raised here, so that no file without any image is written.
        _check_any(files, skipped)

    form.write(out, found(), detector.classes, detector.name)
    _overview(out, overlays)
    logger.info("Found %s in %d of %s", counted(boxes.total(), "box"), with_boxes, counted(seen, "image"))
    if untrusted := {name: value for name, value in detector.untrusted.items() if name in boxes}:
        logger.warning(trust_warning(untrusted))
    return skipped


def heatmaps(
    detector: Predictor, images: Images, out: str | PathLike[str], class_name: str | None = None, colormap: str = "jet"
) -> dict[Path, str]:
    """Write class heatmaps of images: overlays, an overview, and the maps as arrays.

    Args:
        detector: the detector.
        images: see `Images`.
        out: takes `overlays/`, `overview.jpg` and `maps/`, for each image a float32 array (classes, h, w), and
            `maps/classes.txt`.
        class_name: show this class only; None shows the most likely classes side by side.
        colormap: any of matplotlib's.

    Returns:
        Images that could not be read -> reason.

    Raises:
        BoxlessError: there is no image, none can be read, there is no such class or colormap, or `out` cannot be
            written or has files of these names that are not results.
    """
    if class_name is not None and class_name not in detector.classes:
        raise BoxlessError(f"the detector has no class '{class_name}'; it has: {', '.join(detector.classes)}")
    out = expand_user(out)
    written = (OVERLAYS, OVERVIEW, "maps")
    check_results(out, written)
    files, skipped = _find(images, out)
    names, overlays = Names(), list[NDArray[np.uint8]]()
    for path, pixels, detections, maps in detector.heatmap_files(files, skipped):
        if not overlays:
            record_results(out, written)
        if class_name is None:
            overlay = heatmap_panel(pixels, maps, detections.image_scores, colormap=colormap)
        else:
            overlay = draw_heatmap(pixels, maps.maps[detector.classes.index(class_name)], colormap)
        name = names.name(path)
        write_image(out / OVERLAYS / f"{name}.jpg", overlay)
        content = BytesIO()
        np.save(content, maps.maps)
        with write_whole(out / "maps" / f"{name}.npy") as file:
            # NumPy would turn the error of a full disk into one of its own.
            file.write(content.getbuffer())
        overlays.extend([shrink(overlay, TILE)] if len(overlays) < SHEET else [])
    _check_any(files, skipped)
    write_text(out / "maps" / "classes.txt", "\n".join(detector.classes) + "\n")
    _overview(out, overlays, columns=2 if class_name is None else 4)
    return skipped


def _find(images: Images, out: Path) -> tuple[list[Path], dict[Path, str]]:
    """The image files, each once; those in formats that are not read, and videos in folders -> reason."""
    files: dict[Path, None] = {}
    skipped: dict[Path, str] = {}
    given = [images] if isinstance(images, str | PathLike) else list(images)
    for path in (path for image in given for path in _expand(expand_user(image))):
        found = scan_images(path)
        files |= dict.fromkeys(found.images)
        skipped |= {file: f"{file}: {reason}" for file, reason in found.unread.items()}
        skipped |= {file: f"{file}: a video; give it alone to boxless predict" for file in found.videos}
    # Results of an earlier call may lie among the images.
    own = [(out / OVERLAYS).resolve(), (out / OVERVIEW).resolve()]
    kept = [file for file in files if not any(map(file.resolve().is_relative_to, own))]
    if not kept:
        reason = f" that is read; the first left out: {next(iter(skipped.values()))}" if skipped else ""
        raise BoxlessError(f"{', '.join(map(str, given))}: there is no image{reason}")
    return kept, skipped


def _expand(path: Path) -> list[Path]:
    """The path, or those that a pattern matches, which not every shell expands."""
    # A text that is too long for a path raises an error in `Path.exists`.
    if os.path.exists(path):  # noqa: PTH110
        return [path]
    found = map(Path, glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    matches = sorted(match for match in found if match.name not in written_here(match.parent))
    if not matches:
        raise BoxlessError(f"{path}: {'matches nothing' if has_magic(str(path)) else 'does not exist'}")
    return matches


def _check_any(files: Sequence[Path], skipped: dict[Path, str]) -> None:
    if all(file in skipped for file in files):
        raise BoxlessError(f"none of the {counted(len(files), 'image')} can be read; the first: {skipped[files[0]]}")


def _overview(out: Path, overlays: list[NDArray[np.uint8]], columns: int = 4) -> None:
    if overlays:
        write_image(out / OVERVIEW, contact_sheet(overlays, columns=min(columns, len(overlays))))
