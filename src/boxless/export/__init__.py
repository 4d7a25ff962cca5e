"""Detections as files that other programs read.

Every writer has the same signature: a folder, a stream of (image, its detections), the class names, the detector's
name for formats that keep it; it returns what it wrote. Images are taken one by one, so the stream may be longer than
memory. `Detections.labels` index the class names.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from boxless.export.coco import write_coco
from boxless.export.label_studio import write_label_studio
from boxless.export.tables import write_csv
from boxless.export.voc import write_voc
from boxless.export.yolo import write_yolo
from boxless.structures import Detections

Writer = Callable[[Path, Iterable[tuple[Path, Detections]], Sequence[str], str], Path]

FORMATS: dict[str, Writer] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "csv": write_csv,
    "label-studio": write_label_studio,
}
