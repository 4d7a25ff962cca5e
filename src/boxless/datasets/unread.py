"""What is not read: an error says what to do, before folders with annotations are taken for class folders."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from boxless.datasets.common import MOST_JSON
from boxless.datasets.image_records import TEXTS, ClassImages, RecordKind, read_text, record_kind
from boxless.datasets.label_lines import is_label_lines
from boxless.datasets.problems import Problems
from boxless.datasets.table_files import DELIMITERS, read_table
from boxless.datasets.voc_xml import is_annotation
from boxless.datasets.yolo_files import is_label_file, read_yolo
from boxless.errors import BoxlessError
from boxless.files import readable_bytes
from boxless.image_files import find_images, walk_files

_FORMATS = {
    "LabelMe": (b'"shapes"', b'"imagePath"'),
    "Label Studio's JSON-MIN": (b'"annotator"', b'"original_width"'),
    "VGG Image Annotator": (b'"regions"', b'"filename"', b'"shape_attributes"'),
    "Create ML": (b'"annotations"', b'"coordinates"'),
    "Supervisely": (b'"objects"', b'"exterior"'),
}
"""Formats of annotations by the keys in their JSON files."""
_YOLO = tuple(
    re.compile(rf"^({keys})[ \t]*:{value}", re.MULTILINE | re.IGNORECASE)
    for keys, value in (
        ("names|classes|nc", ""),
        ("train|val|test", r"[ \t]*(?!true|false|null)[\w\[\"'./~]*[a-z/\\]"),
    )
)
"""Lines of a description of a YOLO set, which may be damaged: of the classes, and of a path."""


def refuse_unread(root: Path) -> None:
    """Refuse a folder with annotations in a format that is not read.

    Raises:
        BoxlessError: it has some; the message names the format, a file, and what to do.
    """
    for file in _some(root, {".txt", ".xml", ".json"}):
        if file.suffix.lower() == ".txt" and is_label_file(file):
            raise BoxlessError(
                f"{root}: label files of YOLO such as {file.relative_to(root)}, but nothing names their classes; write "
                "a data.yaml with the lines `names: [first, second]` and `train: FOLDER_OF_IMAGES` there"
            )
        if file.suffix.lower() == ".xml" and b"<annotations" in readable_bytes(file):
            raise _unread(root, file, "CVAT")
        if file.suffix.lower() == ".xml" and is_annotation(file):
            below = (folder for folder in file.parents if folder.is_relative_to(root))
            nearer = next(filter(find_images, below), file.parent)
            raise BoxlessError(
                f"{root}: annotations of PASCAL VOC such as {file.relative_to(root)}, but too deep below it; give the "
                f"path of a folder nearer to them, such as {nearer}"
            )
        if file.suffix.lower() == ".json" and (name := unread_json(file)):
            raise _unread(root, file, name)


def unread_json(file: Path) -> str | None:
    """The name of the format of a JSON file, if it is one of annotations that are not read."""
    content = readable_bytes(file)
    return next((name for name, keys in _FORMATS.items() if all(key in content for key in keys)), None)


def refuse_disagreeing(root: Path, images: ClassImages) -> list[Path]:
    """Refuse class folders with a file that says what else is in their images than the names of the folders.

    Args:
        root: the folder of the class folders.
        images: in these.

    Returns:
        Files with other facts about the images, such as their sizes.

    Raises:
        BoxlessError: there is such a file, which the message names with what to do; or a table that names images, or a
            description of a YOLO set, cannot be read.
    """
    for file in _some(root, {".yaml", ".yml"}):
        if file.parent == root and all(line.search(read_text(file)) for line in _YOLO):
            read_yolo(file)
    others = []
    for file in _some(root, TEXTS):
        # What `boxless review` has written is read with `--labels`.
        if is_label_lines(file):
            continue
        is_table, at_top = file.suffix.lower() in DELIMITERS, file.parent == root
        kind = record_kind(file, images, at_top=at_top)
        if kind == RecordKind.SOMETHING:
            others.append(file)
        if kind == RecordKind.TAGS:
            if is_table and at_top:
                read_table(file, Problems())
            fix = (
                "write paths from there into it and give its path"
                if is_table
                else "convert it to a format that is read"
            )
            raise BoxlessError(
                f"{root}: {file.relative_to(root)} has boxes or other tags of the images than the names of their "
                f"folders, so these may be no classes; {fix}, or if they are the classes move it elsewhere"
            )
    return others


def _unread(root: Path, file: Path, name: str) -> BoxlessError:
    return BoxlessError(
        f"{root}: annotations of {name} such as {file.relative_to(root)}, which are not read; export or convert them "
        "to COCO, PASCAL VOC or YOLO"
    )


def _some(root: Path, kinds: Collection[str]) -> Iterator[Path]:
    """The first files of each folder that are not empty: its others are of the same kind."""
    counts = Counter[tuple[Path, str]]()
    for file in walk_files(root, kinds):
        kind = (file.parent, file.suffix.lower())
        if counts[kind] < MOST_JSON and file.stat().st_size:
            counts[kind] += 1
            yield file
