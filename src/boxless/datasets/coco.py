"""COCO: one JSON file a split, as COCO itself, CVAT, Label Studio and Roboflow write it.

Source: https://cocodataset.org/#format-data
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxless.datasets._shared import (
    Box,
    Object,
    Problems,
    boxed_sample,
    choose_split,
    dataset_name,
    first_path,
    merge_names,
    to_floats,
    to_size,
)
from boxless.errors import BoxlessError
from boxless.structures import Dataset

_ROBOFLOW = "_annotations.coco.json"


def find_coco(path: Path) -> dict[str, Path]:
    """The JSON file of each split: `path` itself, else those in its folder annotations, else Roboflow's.

    In annotations, instances_<split>.json are taken where there are any, else <split>.json; the others that COCO
    itself puts there hold captions and keypoints. Roboflow writes <split>/_annotations.coco.json.
    """
    if path.suffix.lower() == ".json" and path.is_file():
        name = path.parent.resolve().name if path.name == _ROBOFLOW else path.stem
        return {name.removeprefix("instances_"): path}
    if (path / _ROBOFLOW).is_file():
        return find_coco(path / _ROBOFLOW)
    files = sorted((path / "annotations").glob("instances_*.json")) or sorted((path / "annotations").glob("*.json"))
    files = files or sorted(path.glob(f"*/{_ROBOFLOW}"))
    return {split: file for one in files for split, file in find_coco(one).items()}


def load_coco(files: Mapping[str, Path], split: str | None, root: Path) -> Dataset:
    """Read one split.

    Classes stand in the order of their category ids, sample ids are the image ids. Boxes (x, y, width, height) become
    xyxy; `iscrowd` counts as difficult. Images are looked for beside the JSON file, and below `root` in
    images/<split>, <split>, images, and `root` itself.

    Args:
        files: the JSON file of each split, from `find_coco`.
        split: None for trainval, else train, else the only one.
        root: what the user gave: a folder, or a JSON file.

    Raises:
        BoxlessError: there is no such split, or the file is not COCO.
    """
    split = choose_split(split, files, root)
    file = files[split]
    content = _read_json(file)
    names = _categories(content["categories"], file)
    top = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = (file.parent, top / "images" / split, top / split, top / "images", top)
    problems = Problems()
    images = _images(content["images"], folders, problems)
    objects = _objects(content["annotations"], images, names, problems)
    classes = merge_names(names)
    samples = [
        boxed_sample(id_, path, objects[id_], classes, size, problems)
        for id_, (path, size) in images.items()
        if path is not None
    ]
    return Dataset(dataset_name(top, split), classes, tuple(samples), problems.lines())


def _read_json(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BoxlessError(f"{file}: cannot be read as JSON ({error}); export it again") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise BoxlessError(f"{file}: COCO needs the lists images, annotations and categories; export it as COCO JSON")
    return content


def _categories(items: list[Any], file: Path) -> dict[int, str]:
    try:
        return {int(item["id"]): str(item["name"]).strip() for item in items}
    except (TypeError, KeyError, ValueError, OverflowError):
        raise BoxlessError(f"{file}: each category needs a whole number `id` and a `name`") from None


_Image = tuple[Path | None, tuple[int, int] | None]
"""The file of an image, None if it is missing, and its width and height, None if unknown."""


def _images(items: list[Any], folders: tuple[Path, ...], problems: Problems) -> dict[str, _Image]:
    images: dict[str, _Image] = {}
    for item in items:
        if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("file_name"), str):
            problems.add("images without `id` or `file_name`, left out", str(item)[:40])
            continue
        id_, name = str(item["id"]), item["file_name"]
        if id_ in images:
            problems.add("image ids given more than once, the first is taken", id_)
            continue
        path = first_path(folder / name for folder in folders)
        if path is None:
            problems.add("images whose file is missing, left out", name)
        images[id_] = (path, to_size((item.get("width"), item.get("height"))))
    return images


def _objects(
    items: list[Any], images: Mapping[str, _Image], names: Mapping[int, str], problems: Problems
) -> dict[str, list[Object]]:
    objects: dict[str, list[Object]] = {id_: [] for id_ in images}
    for item in items:
        image = str(item.get("image_id")) if isinstance(item, dict) else "?"
        number = to_floats((item.get("category_id"),)) if isinstance(item, dict) else None
        if image not in objects:
            problems.add("annotations of an image that is not listed, left out", f"image {image}")
        elif number is None or number[0] not in names:
            problems.add("annotations of a category that is not listed, left out", f"image {image}")
        else:
            box = _box(item.get("bbox"))
            objects[image].append(Object(names[int(number[0])], box, item.get("iscrowd") == 1))
    return objects


def _box(value: Any) -> Box | None:
    numbers = to_floats(value) if isinstance(value, list) and len(value) == 4 else None
    if numbers is None:
        return None
    x, y, width, height = numbers
    return (x, y, x + width, y + height)
