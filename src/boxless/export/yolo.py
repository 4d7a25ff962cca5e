"""YOLO: one text file of boxes per image, and a data.yaml with the class names.

Source: https://docs.ultralytics.com/datasets/detect/
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from boxless.export.common import Names, rows
from boxless.files import write_text, write_whole
from boxless.structures import Detections

LABELS = "boxless_labels"
"""Key of data.yaml: the list of label files, in the order of the list of images."""


def write_yolo(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `labels/<image>.txt`, each atomically, and then `images.txt`, `labels.txt` and `data.yaml`.

    A line is `class cx cy w h`: the class counted from 0, centre and size as fractions of the image. The file of an
    image without detections is empty. Files of images with the same name are named `<folder>-<image>.txt`. `images.txt`
    has the absolute paths of the images, `labels.txt` those of their labels relative to `out`, for
    `datasets.load_dataset`; other programs search labels beside an image, or with `labels` for `images` in its path.

    Args:
        out: the folder of all these.
        predictions: image files and their detections.
        classes: class names.
        model: unused; the format has no field for it.

    Returns:
        The file `data.yaml`.

    Raises:
        BoxlessError: a file cannot be written.
    """
    names, images, labels = Names(), [], []
    for image, detections in predictions:
        width, height = detections.size
        images.append(os.path.abspath(image))  # noqa: PTH100 (links stay)
        labels.append(f"labels/{names.name(image)}.txt")
        with write_whole(out / labels[-1]) as file:
            for label, _, (x1, y1, x2, y2) in rows(detections):
                numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                file.write(f"{label} {' '.join(f'{number:.6f}' for number in numbers)}\n".encode())
    for name, paths in (("images.txt", images), ("labels.txt", labels)):
        write_text(out / name, "".join(f"{path}\n" for path in paths))
    content = {"names": dict(enumerate(classes)), "train": "images.txt", LABELS: "labels.txt"}
    write_text(out / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return out / "data.yaml"
