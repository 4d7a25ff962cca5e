"""PASCAL VOC: one XML file per image, with a score for every object.

Source: the annotations of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/
"""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from boxless.export.common import Names, rows
from boxless.files import write_whole
from boxless.structures import Detections

_UNFIT = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, or reads as another; surrogate escapes stand for bytes that are not UTF-8."""


def write_voc(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `Annotations/<image>.xml`, each atomically.

    Boxes follow VOC: integer pixels counted from 1, right and bottom inclusive, at least one pixel wide and high. Files
    of images with the same name are named `<folder>-<image>.xml`; <path> holds the image's absolute path. A text that
    XML cannot hold, such as a name that is not UTF-8, is percent-encoded by its bytes, and has `encoding="percent"`.

    Args:
        out: the folder of `Annotations`.
        predictions: image files and their detections.
        classes: class names.
        model: the source of the annotation.

    Returns:
        The folder `Annotations`.

    Raises:
        BoxlessError: a file cannot be written.
    """
    folder, names = out / "Annotations", Names()
    for image, detections in predictions:
        root = _annotation(image, detections, classes, model)
        with write_whole(folder / f"{names.name(image)}.xml") as file:
            file.write(ET.tostring(root, encoding="utf-8") + b"\n")
    return folder


def _annotation(image: Path, detections: Detections, classes: Sequence[str], model: str) -> ET.Element:
    width, height = detections.size
    root = ET.Element("annotation")
    add_children(root, folder=image.parent.name, filename=image.name, path=os.path.abspath(image))  # noqa: PTH100 (links stay)
    add_children(ET.SubElement(root, "source"), annotation=model)
    add_children(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    for label, score, (x1, y1, x2, y2) in rows(detections):
        node = ET.SubElement(root, "object")
        add_children(node, name=classes[label], truncated=0, difficult=0, score=score)
        xmin, ymin = min(round(x1), width - 1) + 1, min(round(y1), height - 1) + 1
        xmax, ymax = max(round(x2), xmin), max(round(y2), ymin)
        add_children(ET.SubElement(node, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    ET.indent(root)
    return root


def add_children(node: ET.Element, **values: object) -> None:
    """Add a child with a text for each value; text that XML cannot hold is percent-encoded."""
    for key, value in values.items():
        child, text = ET.SubElement(node, key), str(value)
        if _UNFIT.search(text):
            child.set("encoding", "percent")
            text = quote(os.fsencode(text))
        child.text = text
