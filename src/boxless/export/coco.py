"""COCO: one JSON file of images, categories and annotations, the annotations with scores.

Source: https://cocodataset.org/#format-data
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boxless.cache import write_whole
from boxless.export.common import rows
from boxless.structures import Detections


def write_coco(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `predictions.json`, whole or not at all.

    Ids of images, annotations and categories count from 1, categories in the order of `classes`; bbox is x, y, width,
    height in pixels; segmentations are empty, as CVAT's importer takes none without. `file_name` is the path as given,
    since names alone may repeat. Of the images only names and sizes are held in memory.

    Args:
        out: the folder of the file.
        predictions: images and what was found in them.
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
        for image_id, (source, found) in enumerate(predictions, 1):
            width, height = found.size
            images.append({"id": image_id, "file_name": source.as_posix(), "width": width, "height": height})
            for label, score, (x1, y1, x2, y2) in rows(found):
                count += 1
                w, h = round(x2 - x1, 2), round(y2 - y1, 2)
                annotation = {
                    "id": count,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x1, y1, w, h],
                    "area": round(w * h, 2),
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": score,
                }
                file.write((b",\n" if count > 1 else b"\n") + json.dumps(annotation).encode())
        file.write(b'],\n"images": ' + json.dumps(images).encode() + b"}\n")
    return path
