"""An export format: the files of the annotation tool LabelMe, one JSON file per image.

Source: https://github.com/wkentaro/labelme

Run the command line with it:

    python export_format.py predict runs/dents photos/ --out labelled/ --format labelme
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boxless.export import export_format
from boxless.export.common import Names, rows
from boxless.files import write_json
from boxless.structures import Detections


@export_format("labelme", files=("labelme",))
def write_labelme(
    out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str
) -> Path:
    """Write `labelme/<image>.json`; the scores are in the descriptions of the boxes.

    Args:
        out: the folder of `labelme`.
        predictions: image files and their detections.
        classes: class names.
        model: unused; the format has no field for it.

    Returns:
        The folder `labelme`.
    """
    folder, names = out / "labelme", Names()
    for image, detections in predictions:
        width, height = detections.size
        shapes: list[dict[str, Any]] = [
            {
                "label": classes[label],
                "points": [[x1, y1], [x2, y2]],
                "group_id": None,
                "description": f"score {score}",
                "shape_type": "rectangle",
                "flags": {},
            }
            for label, score, (x1, y1, x2, y2) in rows(detections)
        ]
        content: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(image, folder)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(folder / f"{names.name(image)}.json", content)
    return folder


if __name__ == "__main__":
    from boxless.cli import main

    main()
