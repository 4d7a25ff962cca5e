"""YOLO: one text file of boxes an image, and a data.yaml with the class names.

Source: https://docs.ultralytics.com/datasets/detect/
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from boxless.cache import write_whole
from boxless.export.common import Names, rows
from boxless.structures import Detections


def write_yolo(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `labels/<image>.txt`, each whole or not at all, and `data.yaml` when all are there.

    A line is `class cx cy w h`: the class counted from 0, centre and size as shares of the image. Nothing
    found is an empty file. Images of the same name get their folder's name before it.

    Args:
        out: the folder of `labels` and `data.yaml`.
        predictions: images and what was found in them.
        classes: class names.
        model: the format has no place for it.

    Returns:
        The file `data.yaml`.

    Raises:
        BoxlessError: a file cannot be written.
    """
    names = Names()
    for image, found in predictions:
        width, height = found.size
        with write_whole(out / "labels" / f"{names.name(image)}.txt") as file:
            for label, _, (x1, y1, x2, y2) in rows(found):
                shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                file.write(f"{label} {' '.join(f'{share:.6f}' for share in shares)}\n".encode())
    path = out / "data.yaml"
    with write_whole(path) as file:
        file.write(yaml.safe_dump({"names": dict(enumerate(classes))}, allow_unicode=True).encode())
    return path
