"""CSV: one row a detection, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from boxless.cache import write_whole
from boxless.export.common import rows
from boxless.structures import Detections


def write_csv(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `predictions.csv`, whole or not at all: image, class, score, xmin, ymin, xmax, ymax.

    Boxes are in pixels, right and bottom exclusive; `image` is the path as given. An image in which nothing was
    found has no row.

    Args:
        out: the folder of the file.
        predictions: images and what was found in them.
        classes: class names.
        model: the format has no place for it.

    Returns:
        The file.

    Raises:
        BoxlessError: the file cannot be written.
    """
    path = out / "predictions.csv"
    with write_whole(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("image", "class", "score", "xmin", "ymin", "xmax", "ymax"))
        for image, found in predictions:
            for label, score, box in rows(found):
                table.writerow((image.as_posix(), classes[label], score, *box))
        text.detach()
    return path
