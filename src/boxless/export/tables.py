"""CSV: one row per detection, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from boxless.export.common import rows
from boxless.files import write_whole
from boxless.structures import Detections


def write_csv(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `predictions.csv` atomically: image, class, score, xmin, ymin, xmax, ymax.

    Boxes are in pixels, right and bottom exclusive; `image` is the path as given, in the bytes of the file system where
    they are not UTF-8. An image without detections has no row.

    Args:
        out: the folder of the file.
        predictions: image files and their detections.
        classes: class names.
        model: unused; the format has no field for it.

    Returns:
        The file.

    Raises:
        BoxlessError: the file cannot be written.
    """
    path = out / "predictions.csv"
    with write_whole(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("image", "class", "score", "xmin", "ymin", "xmax", "ymax"))
        for image, detections in predictions:
            for label, score, box in rows(detections):
                table.writerow((image.as_posix(), classes[label], score, *box))
        text.detach()
    return path
