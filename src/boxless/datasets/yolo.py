"""YOLO: a description that names classes and image folders, and a text file of boxes per image.

Source: https://docs.ultralytics.com/datasets/detect/ and /segment/; https://github.com/AlexeyAB/darknet for obj.data
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from boxless.datasets.common import (
    Box,
    Object,
    boxed_sample,
    choose_split,
    dataset_name,
    first_path,
    loaded,
    merge_names,
    read_lines,
    refuse_split,
    to_floats,
)
from boxless.datasets.layouts import Source
from boxless.datasets.lookup import FileFinder
from boxless.datasets.problems import Problems
from boxless.datasets.yolo_files import YoloData, find_yolo, read_yolo
from boxless.datasets.yolo_images import MISSING, add_unlisted, name_of_image, split_images
from boxless.datasets.yolo_labels import LabelFinder
from boxless.errors import BoxlessError, ImageError
from boxless.images import image_size
from boxless.structures import Dataset, Sample


def yolo(path: Path) -> Source | None:
    """A .yaml with `names`, darknet's obj.data, or the folder of either; or labels beside a classes.txt."""
    file = find_yolo(path)
    return None if file is None else Source(partial(yolo_splits, file), partial(load_yolo, file))


def yolo_splits(file: Path) -> list[str]:
    """Those of train, val (or valid) and test that the set has.

    Raises:
        BoxlessError: the description does not fit.
    """
    return [split for split in read_yolo(file).splits if split]


def load_yolo(file: Path, split: str | None) -> Dataset:
    """Read one split.

    Classes are in the order of their numbers; sample ids are paths relative to the folder of the set. The label file of
    an image is at its path with the last folder `images` replaced by `labels`, or beside it. Its lines are
    `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`, in fractions of the displayed image; polygons become their
    bounding boxes. A sixth number is a score and not used, as are keypoints where `kpt_shape` says that there are, or
    where they are marked as visible. An image without labels has no tags.

    Args:
        file: from `find_yolo`.
        split: one of its train, val, test; None for train, else the only one.

    Raises:
        BoxlessError: the description cannot be used, there is no such split, its image folder does not exist, or more
            than half of the label files or of the listed images have no counterpart.
    """
    data = read_yolo(file)
    if "" in data.splits:
        refuse_split(split, file)
    else:
        split = choose_split(split, data.splits, file)
    problems = Problems()
    classes = merge_names(data.names)
    if data.labels is None:
        labels = LabelFinder(data.root, problems)
        found = {image: labels.find(image) for image in split_images(data, split or "", problems)}
        labels.check(found)
        add_unlisted(data, split or "", found, problems)
        found = _without_sharing(found, data.root, problems)
    else:
        found = _exported(data, data.labels, split or "", problems)
    samples = (_sample(image, label, data, classes, problems) for image, label in found.items())
    kept = [sample for sample in samples if sample is not None]
    return loaded("YOLO", dataset_name(data.root, split), classes, kept, problems)


def _without_sharing(found: Mapping[Path, Path | None], root: Path, problems: Problems) -> dict[Path, Path | None]:
    """The images of which no other has the label file, as `0.jpg` and `0.png` have.

    The first of several stays, or the first that is spelled as the label file.
    """
    first: dict[Path, Path] = {}
    for image, labels in found.items():
        if labels is not None and labels.stem == image.stem:
            first.setdefault(labels, image)
    kept: dict[Path, Path | None] = {}
    for image, labels in found.items():
        if labels is None or first.setdefault(labels, image) == image:
            kept[image] = labels
        else:
            problems.add("images with the label file of another, left out", name_of_image(image, root))
    return kept


def _exported(data: YoloData, labels: Path, split: str, problems: Problems) -> dict[Path, Path | None]:
    """The images of the lists that `boxless predict` wrote, and their label files."""
    root = data.file.parent
    images = [line for entry in data.splits[split] for line in read_lines(root / entry)]
    finder = FileFinder([root])
    found: dict[Path, Path | None] = {}
    for line, label in zip(images, read_lines(labels), strict=False):
        if image := finder.find(line, problems):
            found[image] = first_path([root / label])
        else:
            problems.add_unmatched(MISSING, line)
    problems.refuse_most(MISSING, len(images), data.file, "put them where they were")
    return found


def _sample(
    image: Path, labels: Path | None, data: YoloData, classes: tuple[str, ...], problems: Problems
) -> Sample | None:
    """None if the tags are unknown, which is not the same as no tags."""
    id_ = name_of_image(image, data.root)
    try:
        lines = [] if labels is None else read_lines(labels)
    except BoxlessError:
        problems.add("label files that cannot be read, their images left out", str(labels))
        return None
    objects, size = _objects(lines, image, data, id_, problems)
    # Of an image without a size the boxes are gone, which was said.
    return boxed_sample(id_, image, objects, classes, size, problems if size or not objects else Problems())


def read_label_file(labels: Path, image: Path, data: YoloData, id_: str, problems: Problems) -> list[Object]:
    """The objects of a label file, boxes in pixels of the image.

    Raises:
        BoxlessError: the file cannot be read.
    """
    return _objects(read_lines(labels), image, data, id_, problems)[0]


def _objects(
    lines: Sequence[str], image: Path, data: YoloData, id_: str, problems: Problems
) -> tuple[list[Object], tuple[int, int] | None]:
    """The objects of an image, and its size; None where it is not needed or cannot be read, and there are no boxes."""
    entries = [found for line in lines if (found := _parse(line, data, id_, problems)) is not None]
    if not entries:
        return [], None
    try:
        size = image_size(image)
    except ImageError as error:
        problems.add("images whose size cannot be read, their boxes dropped (the tags stay)", str(error))
        return [Object(name, None) for name, _ in entries], None
    return [Object(name, _to_pixels(box, size)) for name, box in entries], size


def _parse(line: str, data: YoloData, id_: str, problems: Problems) -> tuple[str, Box | None] | None:
    """The class, and the box in fractions of the image."""
    cells = line.split()
    number, *rest = [cell.rstrip(",;") for cell in cells] if len(cells) > 1 else re.split("[,;]", line)
    key, numbers = to_floats([number]), to_floats(rest)
    if key is not None and key[0] in data.names:
        name = data.names[int(key[0])]
    elif number in data.names.values() and _box(numbers):
        problems.add("labels that begin with the name of a class, not with its number, read", id_)
        name = number
    else:
        problems.add(f"labels whose class number {data.file.name} does not name, left out", id_)
        return None
    if numbers is not None and len(numbers) == 5:
        problems.add("labels with a sixth number, taken as a score and not used", id_)
    if numbers is not None and not data.keypoints and _has_visibilities(numbers):
        problems.add("labels with keypoints (a third of the numbers behind the box are 0, 1 or 2), not used", id_)
        numbers = numbers[:4]
    if numbers is not None and (data.keypoints or len(numbers) == 5):
        numbers = numbers[:4]
    return name, _box(numbers)


def _has_visibilities(numbers: Sequence[float]) -> bool:
    """Whether keypoints follow the box, each with its visibility: no polygon leaves the image to exactly 2."""
    seen = set(numbers[6::3])
    return len(numbers) % 3 == 1 and 2 in seen and seen <= {0, 1, 2}


def _box(numbers: list[float] | None) -> Box | None:
    if numbers is None:
        return None
    if len(numbers) == 4:
        cx, cy, width, height = numbers
        return (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        return (min(xs), min(ys), max(xs), max(ys))
    return None


def _to_pixels(box: Box | None, size: tuple[int, int]) -> Box | None:
    width, height = size
    return None if box is None else (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
