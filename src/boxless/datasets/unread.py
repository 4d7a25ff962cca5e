"""Layouts that are recognised, but not read: an error says what to do, before they are taken for class folders."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from boxless.datasets.voc_xml import is_annotation
from boxless.datasets.yolo_files import is_label_file
from boxless.errors import BoxlessError
from boxless.image_files import walk_files

_FORMATS = {
    "LabelMe": (b'"shapes"', b'"imagePath"'),
    "Label Studio's JSON-MIN": (b'"annotator"', b'"original_width"'),
    "VGG Image Annotator": (b'"regions"', b'"filename"', b'"shape_attributes"'),
    "Create ML": (b'"annotations"', b'"coordinates"'),
    "Supervisely": (b'"objects"', b'"exterior"'),
}
"""Formats of annotations by the keys in their JSON files."""
_EACH = 3
"""Files of a folder that are opened: its others are of the same kind."""


def refuse_unread(root: Path) -> None:
    """Refuse a folder with annotations in a format that is not read.

    Raises:
        BoxlessError: it has some; the message names the format, a file, and what to do.
    """
    for file in _some(root):
        if file.suffix.lower() == ".txt" and is_label_file(file):
            raise BoxlessError(
                f"{root}: label files of YOLO such as {file.relative_to(root)}, but nothing names their classes; write "
                "a data.yaml with the lines `names: [first, second]` and `train: FOLDER_OF_IMAGES` there"
            )
        if file.suffix.lower() == ".xml" and b"<annotations" in _content(file):
            raise _unread(root, file, "CVAT")
        if file.suffix.lower() == ".xml" and is_annotation(file):
            raise BoxlessError(
                f"{root}: annotations of PASCAL VOC such as {file.relative_to(root)}, but too deep below it; give the "
                f"path of a folder nearer to them, such as {file.parent}"
            )
        if file.suffix.lower() == ".json":
            content = _content(file)
            for name, keys in _FORMATS.items():
                if all(key in content for key in keys):
                    raise _unread(root, file, name)


def _unread(root: Path, file: Path, name: str) -> BoxlessError:
    return BoxlessError(
        f"{root}: annotations of {name} such as {file.relative_to(root)}, which are not read; export or convert them "
        "to COCO, PASCAL VOC or YOLO"
    )


def _some(root: Path) -> Iterator[Path]:
    """The first files of each folder."""
    counts = Counter[tuple[Path, str]]()
    for file in walk_files(root, {".txt", ".xml", ".json"}):
        kind = (file.parent, file.suffix.lower())
        counts[kind] += 1
        if counts[kind] <= _EACH:
            yield file


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
