"""Detections as files for other programs.

A writer of an export format takes a folder, (image file, detections) pairs, the class names that `Detections.labels`
index, and the detector's name, for formats with a field for it. It returns the file or folder it wrote. It must consume
the pairs one at a time, since their images may not fit into memory together, and write each file atomically
(`boxless.files.write_whole`). Add one with `@FORMATS.register(name)`; `docs/examples/export_format.py` is an example.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from boxless.export.coco import write_coco
from boxless.export.label_studio import write_label_studio
from boxless.export.tables import write_csv
from boxless.export.voc import write_voc
from boxless.export.yolo import write_yolo
from boxless.registry import Registry
from boxless.structures import Detections

__all__ = ["FORMATS", "Writer"]

Writer = Callable[[Path, Iterable[tuple[Path, Detections]], Sequence[str], str], Path]

FORMATS: Registry[Writer] = Registry("export format")
FORMATS.update(
    {
        "coco": write_coco,
        "voc": write_voc,
        "yolo": write_yolo,
        "csv": write_csv,
        "label-studio": write_label_studio,
    }
)
