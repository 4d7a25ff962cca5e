"""Label Studio: tasks with pre-annotations to correct, and the labeling config they belong to.

Source: https://labelstud.io/guide/predictions
"""

import json
import logging
import os
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from defusedxml.ElementTree import fromstring

from boxless.errors import BoxlessError
from boxless.export.common import rows
from boxless.files import write_whole
from boxless.structures import Detections
from boxless.wording import counted

logger = logging.getLogger(__name__)

_ROOT = "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"


@dataclass(frozen=True)
class Control:
    """The part of a labeling config that takes boxes: a RectangleLabels and the Image it draws on.

    Args:
        name: of the RectangleLabels.
        image: name of the Image.
        key: of the image in the `data` of a task.
        labels: class names the control offers.
    """

    name: str
    image: str
    key: str
    labels: Collection[str]


def write_label_studio(
    out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str
) -> Path:
    """Write `tasks.json`, and `labeling-config.xml` for the project, atomically.

    A task's image is `/data/local-files/?d=<path>`, percent-encoded by its bytes. Label Studio serves files below its
    document root only: paths are relative to $LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, by default the current folder,
    and images elsewhere are counted in a warning. `path` is the absolute path, for `datasets.load_dataset`. Boxes are
    in percent of the image's width and height. A task's score is the highest image-level score, so that the Data
    Manager can sort by it.

    Args:
        out: the folder of both files.
        predictions: image files and their detections.
        classes: class names.
        model: `model_version` of the predictions.

    Returns:
        The file `tasks.json`.

    Raises:
        BoxlessError: a file cannot be written.
    """
    control = own_control(classes)
    path, root, outside = out / "tasks.json", Path(os.path.abspath(os.environ.get(_ROOT) or ".")), 0  # noqa: PTH100
    with write_whole(path) as file:
        file.write(b"[")
        for number, (source, detections) in enumerate(predictions):
            image = Path(os.path.abspath(source))  # noqa: PTH100 (links stay)
            outside += not image.is_relative_to(root)
            served = image.relative_to(root if image.is_relative_to(root) else image.anchor).as_posix()
            data = {control.key: f"/data/local-files/?d={quote(os.fsencode(served))}", "path": image.as_posix()}
            task = {"data": data, "predictions": [prediction(detections, control, model)]}
            file.write((b",\n" if number else b"\n") + json.dumps(task).encode())
        file.write(b"]\n")
    if outside:
        logger.warning(
            "%s not below %s, and Label Studio will not show them: set %s to a folder above all images, here and for "
            "Label Studio",
            counted(outside, "image is", "images are"),
            root,
            _ROOT,
        )
    with write_whole(out / "labeling-config.xml") as file:
        file.write(labeling_config(control).encode())
    return path


def own_control(classes: Collection[str]) -> Control:
    """The control of the labeling config that `write_label_studio` writes."""
    return Control("label", "image", "image", classes)


def read_labeling_config(config: str, classes: Collection[str]) -> Control:
    """The first control of a labeling config that takes boxes of at least one of these classes.

    Args:
        config: XML.
        classes: of the detector.

    Raises:
        BoxlessError: it is not XML, or has no such control.
    """
    try:
        view = fromstring(config)
    except (ET.ParseError, ValueError) as error:
        raise BoxlessError(f"the labeling config is not XML ({error}); fix it in the project's settings") from None
    keys = {image.get("name", ""): image.get("value", "").removeprefix("$") for image in view.iter("Image")}
    for control in view.iter("RectangleLabels"):
        image, labels = control.get("toName", ""), {label.get("value", "") for label in control.iter("Label")}
        if image in keys and not labels.isdisjoint(classes):
            return Control(control.get("name", ""), image, keys[image], labels)
    raise BoxlessError(
        f"the labeling config has no RectangleLabels on an Image with one of the labels {', '.join(classes)}; "
        "use the one that boxless predict --format label-studio writes"
    )


def labeling_config(control: Control) -> str:
    """The smallest labeling config with this control, as XML."""
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=control.image, value=f"${control.key}")
    rectangles = ET.SubElement(view, "RectangleLabels", name=control.name, toName=control.image)
    for label in control.labels:
        ET.SubElement(rectangles, "Label", value=label)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def prediction(detections: Detections, control: Control, model: str) -> dict[str, Any]:
    """An image's boxes as a Label Studio prediction, without those of classes that the control does not offer.

    Args:
        detections: boxes in pixels.
        control: the part of the labeling config that takes them.
        model: `model_version`.
    """
    width, height = detections.size
    result = [
        {
            "id": f"box-{number}",
            "from_name": control.name,
            "to_name": control.image,
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": _percent(x1, width),
                "y": _percent(y1, height),
                "width": _percent(x2 - x1, width),
                "height": _percent(y2 - y1, height),
                "rotation": 0,
                "rectanglelabels": [detections.classes[label]],
            },
            "score": score,
        }
        for number, (label, score, (x1, y1, x2, y2)) in enumerate(rows(detections), 1)
        if detections.classes[label] in control.labels
    ]
    return {"model_version": model, "score": round(float(detections.image_scores.max()), 6), "result": result}


def _percent(pixels: float, side: int) -> float:
    # Six digits resolve the 0.01 pixels of `rows` in the largest image that can be decoded.
    return round(100 * pixels / side, 6)
