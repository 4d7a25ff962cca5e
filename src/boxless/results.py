"""What `predict` and `heatmap` leave behind: overlays to look at, beside files for programs."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.cache import save_array, write_text
from boxless.detector import Detector, confident
from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.export.common import Names
from boxless.images import find_images, write_image
from boxless.structures import Detections
from boxless.visualize import contact_sheet, draw_boxes, draw_heatmap, heatmap_panel

OVERLAYS, OVERVIEW = "overlays", "overview.jpg"
SHEET = 24
"""Most images on an overview."""
TILE = 600
"""Longest side of an image kept for the overview, in pixels."""


def predict(
    detector: Detector, images: Path, out: Path, format: str, min_score: float | None = None
) -> dict[Path, str]:
    """Find objects in images and write their boxes: overlays, an overview, and a machine-readable file.

    Args:
        detector: the detector.
        images: an image or a folder of them.
        out: takes `overlays/`, `overview.jpg` and what the format writes.
        format: a key of `exports.FORMATS`.
        min_score: write the boxes that score at least this; None writes those that `confident` chooses.

    Returns:
        Images that could not be read -> reason.

    Raises:
        BoxlessError: there is no image, or `out` cannot be written.
    """
    files, names = _files(images, out), Names()
    skipped: dict[Path, str] = {}
    overlays: list[NDArray[np.uint8]] = []

    def found() -> Iterator[tuple[Path, Detections]]:
        for path, pixels, detections, _ in detector.look_all(files, skipped):
            shown = confident(detections) if min_score is None else detections.above(min_score)
            overlay = draw_boxes(pixels, shown)
            write_image(out / OVERLAYS / f"{names.name(path)}.jpg", overlay)
            overlays.extend([_small(overlay)] if len(overlays) < SHEET else [])
            yield path, shown

    FORMATS[format](out, found(), detector.classes, detector.name)
    _overview(out, overlays)
    return skipped


def heatmaps(
    detector: Detector, images: Path, out: Path, class_name: str | None = None, colormap: str = "jet"
) -> dict[Path, str]:
    """Write class heatmaps of images: overlays, an overview, and the maps as arrays.

    Args:
        detector: the detector.
        images: an image or a folder of them.
        out: takes `overlays/`, `overview.jpg` and `maps/`, for each image a float32 array (classes, h, w), and
            `maps/classes.txt`.
        class_name: show this class only; None lays the likeliest classes side by side.
        colormap: any of matplotlib's.

    Returns:
        Images that could not be read -> reason.

    Raises:
        BoxlessError: there is no image, no such class or colormap, or `out` cannot be written.
    """
    if class_name is not None and class_name not in detector.classes:
        raise BoxlessError(f"the detector has no class '{class_name}'; it has: {', '.join(detector.classes)}")
    files, names = _files(images, out), Names()
    skipped: dict[Path, str] = {}
    overlays: list[NDArray[np.uint8]] = []
    for path, pixels, detections, maps in detector.look_all(files, skipped):
        if class_name is None:
            overlay = heatmap_panel(pixels, maps, detections.image_scores, colormap=colormap)
        else:
            overlay = draw_heatmap(pixels, maps.maps[detector.classes.index(class_name)], colormap)
        name = names.name(path)
        write_image(out / OVERLAYS / f"{name}.jpg", overlay)
        save_array(out / "maps" / f"{name}.npy", maps.maps)
        overlays.extend([_small(overlay)] if len(overlays) < SHEET else [])
    write_text(out / "maps" / "classes.txt", "\n".join(detector.classes) + "\n")
    _overview(out, overlays, columns=2 if class_name is None else 4)
    return skipped


def _files(images: Path, out: Path) -> list[Path]:
    # Results may lie among the images; they are not images to look at again.
    own = [(out / OVERLAYS).resolve(), (out / OVERVIEW).resolve()]
    files = [file for file in find_images(images) if not any(map(file.resolve().is_relative_to, own))]
    if not files:
        raise BoxlessError(f"{images}: there is no image" if images.exists() else f"{images}: does not exist")
    return files


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = min(1.0, TILE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _overview(out: Path, overlays: list[NDArray[np.uint8]], columns: int = 4) -> None:
    if overlays:
        write_image(out / OVERVIEW, contact_sheet(overlays, columns=min(columns, len(overlays))))
