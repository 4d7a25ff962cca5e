"""COCO: one JSON file of images, categories and annotations, the annotations with scores.

Source: https://cocodataset.org/#format-data
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boxless.export.common import rows
from boxless.files import write_whole
from boxless.structures import Detections


def write_coco(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `predictions.json` atomically.

    Ids of images, annotations and categories start at 1; categories are in the order of `classes`. `bbox` is x, y,
    width, height in pixels. `segmentation` is empty, because CVAT's importer requires the key. `file_name` is the path
    as given, since file names alone may repeat; bytes that are not UTF-8 become `\\udcXX`. Only names and sizes of the
    images are held in memory.

    Args:
        out: the folder of the file.
        predictions: image files and their detections.
        classes: class names.
        model: the description in `info`.

    Returns:
        The file.

    Raises:
        BoxlessError: the file cannot be written.
    """
    path = out / "predictions.json"
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    images: list[dict[str, Any]] = []
    count = 0
    with write_whole(path) as file:
        file.write(b'{"info": ' + json.dumps({"description": model}).encode() + b",\n")
        file.write(b'"categories": ' + json.dumps(categories).encode() + b',\n"annotations": [')
        for image_id, (source, detections) in enumerate(predictions, 1):
            width, height = detections.size
            images.append({"id": image_id, "file_name": source.as_posix(), "width": width, "height": height})
            for label, score, box in rows(detections):
                count += 1
                annotation = coco_annotation(count, image_id, label, score, box)
                file.write((b",\n" if count > 1 else b"\n") + json.dumps(annotation).encode())
        file.write(b'],\n"images": ' + json.dumps(images).encode() + b"}\n")
    return path


def coco_annotation(
    number: int, image_id: int, label: int, score: float, box: tuple[float, float, float, float]
) -> dict[str, Any]:
    """One entry of `annotations`: its id, that of its image, the index of its class, and what `common.rows` gives."""
    x1, y1, x2, y2 = box
    w, h = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": [x1, y1, w, h],
        "area": round(w * h, 2),
        "segmentation": [],
        "iscrowd": 0,
        "score": score,
    }
