"""YOLO: a data.yaml that names classes and folders of images, and a text file of boxes an image.

Source: https://docs.ultralytics.com/datasets/detect/ and /segment/
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boxless.datasets._shared import (
    Box,
    Object,
    Problems,
    boxed_sample,
    choose_split,
    dataset_name,
    first_path,
    merge_names,
    read_lines,
    to_floats,
)
from boxless.errors import BoxlessError, ImageError
from boxless.images import find_images, image_size
from boxless.structures import Dataset, Sample


def find_yolo(path: Path) -> Path | None:
    """The data.yaml: `path` itself, or the one in it."""
    candidates = [path, path / "data.yaml", path / "data.yml"]
    return first_path(file for file in candidates if file.suffix.lower() in (".yaml", ".yml"))


def yolo_splits(file: Path) -> list[str]:
    """Which of train, val and test a data.yaml has.

    Raises:
        BoxlessError: the YAML does not fit.
    """
    return _splits(_read_yaml(file))


def load_yolo(file: Path, split: str | None) -> Dataset:
    """Read one split.

    Classes stand in the order of their numbers; sample ids are paths relative to the folder of `file`. An image's
    labels lie where the last folder `images` of its path is replaced by `labels`, or beside it; lines are
    `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`, as shares of the displayed image. Of a polygon, the
    bounding box is taken. An image without labels has no tags.

    Args:
        file: the data.yaml.
        split: one of its train, val, test; None for train, else the only one.

    Raises:
        BoxlessError: the YAML does not fit, there is no such split, or its images are not where it says.
    """
    content = _read_yaml(file)
    names = _names(content.get("names"), file)
    split = choose_split(split, _splits(content), file)
    problems = Problems()
    classes = merge_names(names)
    samples = (
        _sample(image, file.parent, names, classes, problems) for image in _images(content, split, file, problems)
    )
    kept = tuple(sample for sample in samples if sample is not None)
    return Dataset(dataset_name(file.parent, split), classes, kept, problems.lines())


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise BoxlessError(f"{file}: cannot be read as YAML ({error})") from error
    if not isinstance(content, dict) or "names" not in content:
        raise BoxlessError(f"{file}: a YOLO data file needs `names` (the classes) and `train`, `val` or `test`")
    return content


def _splits(content: Mapping[str, Any]) -> list[str]:
    return [key for key in ("train", "val", "test") if content.get(key)]


def _names(value: Any, file: Path) -> dict[int, str]:
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    try:
        names = {int(number): str(name).strip() for number, name in pairs}
    except (TypeError, ValueError, OverflowError):
        names = {}
    if not names:
        raise BoxlessError(f"{file}: `names` must list the classes, or map their numbers to names")
    return names


def _images(content: Mapping[str, Any], split: str, file: Path, problems: Problems) -> list[Path]:
    base = file.parent / str(content.get("path") or "")
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    images: list[Path] = []
    for entry in map(str, entries):
        source = _existing(entry, (base, file.parent))
        if source is None:
            raise BoxlessError(f"{file}: `{split}: {entry}` is neither at {base / entry} nor at {file.parent / entry}")
        images += _listed(source, base, problems) if source.suffix.lower() == ".txt" else find_images(source)
    counts = Counter(images)
    for image, count in counts.items():
        if count > 1:
            problems.add("images listed more than once, taken once", str(image))
    return list(counts)


def _existing(entry: str, bases: tuple[Path, ...]) -> Path | None:
    # Roboflow writes `../train/images` for a folder that lies beside its data.yaml.
    entries = (entry, entry.removeprefix("../"))
    return first_path((base / one for one in entries for base in bases), Path.exists)


def _listed(file: Path, base: Path, problems: Problems) -> list[Path]:
    images = []
    for line in read_lines(file):
        image = first_path(folder / line for folder in (file.parent, base))
        if image is None:
            problems.add("images that are listed but missing, left out", line)
        else:
            images.append(image)
    return images


def _sample(
    image: Path, root: Path, names: Mapping[int, str], classes: tuple[str, ...], problems: Problems
) -> Sample | None:
    """None where the tags stay unknown, which is not the same as none."""
    id_ = image.relative_to(root).as_posix() if image.is_relative_to(root) else image.as_posix()
    labels = _label_file(image)
    try:
        lines = [] if labels is None else read_lines(labels)
    except BoxlessError:
        problems.add("label files that cannot be read, their images left out", str(labels))
        return None
    shares = [found for line in lines if (found := _parse(line, names, id_, problems)) is not None]
    if not shares:
        return boxed_sample(id_, image, [], classes, None, problems)
    try:
        size = image_size(image)
    except ImageError as error:
        problems.add("images whose size cannot be read, their boxes dropped (the tags stay)", str(error))
        return boxed_sample(id_, image, [Object(name, None) for name, _ in shares], classes, None, Problems())
    objects = [Object(name, _to_pixels(box, size)) for name, box in shares]
    return boxed_sample(id_, image, objects, classes, size, problems)


def _label_file(image: Path) -> Path | None:
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return first_path((Path(*parts).with_suffix(".txt"), image.with_suffix(".txt")))


def _parse(line: str, names: Mapping[int, str], id_: str, problems: Problems) -> tuple[str, Box | None] | None:
    """The class and the box in shares of the image."""
    number, *rest = line.split()
    key = to_floats([number])
    if key is None or key[0] not in names:
        problems.add("labels whose class number data.yaml does not name, left out", id_)
        return None
    return names[int(key[0])], _box(to_floats(rest))


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
