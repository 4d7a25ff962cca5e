"""Detections as files for other programs.

A writer takes a folder, (image file, detections) pairs, the class names that `Detections.labels` index, and the
detector's name, for formats with a field for it. It returns the file or folder it wrote. It must consume the pairs one
at a time, since their images may not fit into memory together, and write each file atomically
(`boxless.files.write_whole`). `docs/examples/export_format.py` adds a format.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from boxless.export.coco import write_coco
from boxless.export.label_studio import write_label_studio
from boxless.export.tables import write_csv
from boxless.export.voc import write_voc
from boxless.export.yolo import write_yolo
from boxless.registry import Registry
from boxless.structures import Detections

__all__ = ["FORMATS", "Format", "Writer", "export_format"]

Writer = Callable[[Path, Iterable[tuple[Path, Detections]], Sequence[str], str], Path]


class Format(NamedTuple):
    """An export format.

    Args:
        write: the writer.
        files: names of the files and folders that it writes, so that files of a person are not overwritten, and
            those of Boxless not read as data.
        absolute_paths: whether these hold the absolute paths of images.
    """

    write: Writer
    files: tuple[str, ...]
    absolute_paths: bool = False


FORMATS: Registry[Format] = Registry("export format")


def export_format(name: str, files: tuple[str, ...], *, absolute_paths: bool = False) -> Callable[[Writer], Writer]:
    """A decorator that adds a writer to the export formats; the command line takes its name as `--format`.

    Args:
        name: of the format.
        files, absolute_paths: see `Format`.

    Raises:
        BoxlessError: the name is taken.
    """

    def add(write: Writer) -> Writer:
        FORMATS.register(name)(Format(write, files, absolute_paths))
        return write

    return add


FORMATS.update(
    {
        "coco": Format(write_coco, ("predictions.json",)),
        "voc": Format(write_voc, ("Annotations",), absolute_paths=True),
        "yolo": Format(write_yolo, ("data.yaml", "images.txt", "labels.txt", "labels"), absolute_paths=True),
        "csv": Format(write_csv, ("predictions.csv",)),
        "label-studio": Format(write_label_studio, ("tasks.json", "labeling-config.xml"), absolute_paths=True),
    }
)
