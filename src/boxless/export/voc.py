"""PASCAL VOC: one XML file an image, with a score for every object.

Source: the annotations of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

from boxless.cache import write_whole
from boxless.export.common import Names, rows
from boxless.structures import Detections


def write_voc(out: Path, predictions: Iterable[tuple[Path, Detections]], classes: Sequence[str], model: str) -> Path:
    """Write `Annotations/<image>.xml`, each whole or not at all.

    Boxes are VOC's: whole pixels counted from 1, the last included; at least one pixel wide and high. Images of the
    same name get their folder's name before it; <path> tells which is meant.

    Args:
        out: the folder of `Annotations`.
        predictions: images and what was found in them.
        classes: class names.
        model: the source of the annotation.

    Returns:
        The folder `Annotations`.

    Raises:
        BoxlessError: a file cannot be written.
    """
    folder, names = out / "Annotations", Names()
    for image, found in predictions:
        root = _annotation(image, found, classes, model)
        with write_whole(folder / f"{names.name(image)}.xml") as file:
            file.write(ET.tostring(root, encoding="utf-8") + b"\n")
    return folder


def _annotation(image: Path, found: Detections, classes: Sequence[str], model: str) -> ET.Element:
    width, height = found.size
    root = ET.Element("annotation")
    _fill(root, folder=image.parent.name, filename=image.name, path=image.as_posix())
    _fill(ET.SubElement(root, "source"), annotation=model)
    _fill(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    for label, score, (x1, y1, x2, y2) in rows(found):
        node = ET.SubElement(root, "object")
        _fill(node, name=classes[label], truncated=0, difficult=0, score=score)
        xmin, ymin = min(round(x1), width - 1) + 1, min(round(y1), height - 1) + 1
        xmax, ymax = max(round(x2), xmin), max(round(y2), ymin)
        _fill(ET.SubElement(node, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    ET.indent(root)
    return root


def _fill(node: ET.Element, **values: object) -> None:
    for key, value in values.items():
        ET.SubElement(node, key).text = str(value)
