"""COCO: one JSON file per split, as COCO itself, CVAT, Label Studio and Roboflow write it.

Source: https://cocodataset.org/#format-data
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from boxless.datasets.coco_files import (
    coco_in,
    coco_unread,
    dataset_folder,
    find_coco,
    folders_without,
    image_folders,
)
from boxless.datasets.common import (
    Box,
    Object,
    choose_split,
    dataset_name,
    loaded,
    merge_names,
    to_floats,
    to_size,
)
from boxless.datasets.layouts import Source
from boxless.datasets.lookup import FileFinder, Finder, own_names, unnamed_images
from boxless.datasets.problems import Problems, printable
from boxless.datasets.sizes import AnnotatedImage, boxed_samples
from boxless.errors import BoxlessError
from boxless.structures import Dataset

_MISSING = "images whose file is missing, left out"


def coco(path: Path) -> Source | None:
    """A .json file, or a folder with annotations/*.json, <split>/_annotations.coco.json or another COCO file."""
    files = find_coco(path)
    return Source(files.keys, partial(load_coco, files, path)) if files else None


def load_coco(files: Mapping[str, Path], root: Path, split: str | None) -> Dataset:
    """Read one split.

    Classes are in the order of their category ids, without the empty root category of Roboflow; sample ids are the
    image ids. Boxes (x, y, width, height) become xyxy; `iscrowd` becomes `ignore`. Images are searched beside the JSON
    file, and below its folder, or that of `annotations`, in images/<split>, <split>, images, data, and itself.

    Args:
        files: the JSON file of each split, from `find_coco`.
        root: the path the user gave, a folder or a JSON file.
        split: None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split, the file is not COCO, or most of its images have no file.
    """
    split = choose_split(split, files, root)
    file = files[split]
    problems = Problems()
    found, classes, listed = read_coco(file, FileFinder(image_folders(file, split)), problems, _MISSING)
    problems.refuse_most(_MISSING, listed, file, "put them beside it, or list only those that there are")
    for path in unnamed_images((image.path for image in found), partial(_names_of_others, file)):
        problems.add_unmatched("image files that no COCO file lists, not used", path.name)
    for folder in folders_without(files.values(), root):
        problems.add_unmatched("folders of images without a COCO file, not read; give their path to read them", folder)
    for other in coco_unread(list(files.values()), root):
        name = other.relative_to(root).as_posix()
        problems.add_unmatched("other COCO files, not read; give their path to read them", name)
    samples = boxed_samples(found, classes, problems)
    return loaded("COCO", dataset_name(dataset_folder(file), split), classes, samples, problems)


def read_coco(
    file: Path, finder: Finder, problems: Problems, missing: str
) -> tuple[list[AnnotatedImage], tuple[str, ...], int]:
    """The images of a file that are found, the class names, and the number of images that it lists.

    Args:
        file: a COCO JSON.
        finder: finds the images.
        problems: receives what is wrong.
        missing: the kind of problem of an image that is not found.

    Raises:
        BoxlessError: the file is not COCO.
    """
    content = _read_json(file)
    names = _without_root(_categories(content["categories"], file), content, problems)
    images = _images(content["images"], finder, problems, missing)
    objects = _objects(content["annotations"], images, names, problems)
    found: dict[Path, AnnotatedImage] = {}
    for id_, (path, size) in images.items():
        if path in found and size and (found[path].size or size) != size:
            problems.add("images listed again with another size, their annotations left out", id_)
        elif path in found:
            problems.add("images listed under several ids, their annotations joined", id_)
            joined = [*found[path].objects, *objects[id_]]
            found[path] = found[path]._replace(objects=joined, size=found[path].size or size)
        elif path is not None:
            found[path] = AnnotatedImage(id_, path, objects[id_], size)
    return list(found.values()), merge_names(names), len(images)


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
    names: dict[int, str] = {}
    try:
        for item in items:
            number, name = int(item["id"]), printable(str(item["name"])).strip()
            if names.setdefault(number, name) != name:
                raise BoxlessError(
                    f"{file}: category {number} is both {names[number]!r} and {name!r}; give each category its own `id`"
                )
    except (TypeError, KeyError, ValueError, OverflowError):
        raise BoxlessError(f"{file}: each category needs an integer `id` and a `name`") from None
    return names


def _without_root(names: dict[int, str], content: Mapping[str, list[Any]], problems: Problems) -> dict[int, str]:
    """The categories without Roboflow's root: the supercategory of others, with the name of the project, unused."""
    ids = [to_floats((item.get("category_id"),)) for item in content["annotations"] if isinstance(item, dict)]
    used = {number for one in ids if one is not None for number in one}
    parents = {str(item.get("supercategory")) for item in content["categories"]}
    roots = {
        int(item["id"])
        for item in content["categories"]
        if item.get("supercategory") == "none" and str(item["name"]) in parents and int(item["id"]) not in used
    }
    for number in roots:
        problems.add("empty root categories of Roboflow, left out of the classes", names[number])
    return {number: name for number, name in names.items() if number not in roots}


_Image = tuple[Path | None, tuple[int, int] | None]
"""File of an image, None if it is missing; its width and height in pixels, None if unknown."""


def _images(items: list[Any], finder: Finder, problems: Problems, missing: str) -> dict[str, _Image]:
    images: dict[str, _Image] = {}
    names: dict[Path, dict[str, str]] = defaultdict(dict)
    for item in items:
        if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("file_name"), str):
            problems.add("images without `id` or `file_name`, left out", str(item)[:40])
            continue
        id_, name = str(item["id"]), item["file_name"]
        if id_ in images:
            problems.add("image ids given more than once, the first is taken", id_)
            continue
        path = finder.find(name, problems)
        if path is None:
            problems.add_unmatched(missing, name)
        else:
            names[path][id_] = name
        images[id_] = (path, to_size((item.get("width"), item.get("height"))))
    for file, own in own_names(names).items():
        for id_ in (one for one in names[file] if one not in own):
            problems.add_unmatched(missing, names[file][id_])
            images[id_] = (None, None)
    return images


def _names_of_others(file: Path) -> Iterator[str]:
    """The images of the other COCO files in the folder: splits may share a folder of images."""
    for other in coco_in(file.parent):
        try:
            items = [] if other == file else _read_json(other)["images"]
        except BoxlessError:
            continue
        yield from (str(item.get("file_name")) for item in items if isinstance(item, dict))


def _objects(
    items: list[Any], images: Mapping[str, _Image], names: Mapping[int, str], problems: Problems
) -> dict[str, list[Object]]:
    objects: dict[str, list[Object]] = {id_: [] for id_ in images}
    by_number, unlisted = _by_number(images), dict[str, None]()
    for item in items:
        image = str(item.get("image_id")) if isinstance(item, dict) else "?"
        if image not in objects:
            image = by_number.get(_integer(image), image)
        number = to_floats((item.get("category_id"),)) if isinstance(item, dict) else None
        if image not in objects:
            problems.add("annotations of an image that is not listed, left out", f"image {image}")
        elif number is None or number[0] not in names:
            problems.add("annotations of a category that is not listed, left out", f"image {image}")
            unlisted[image] = None
        else:
            box = _box(item.get("bbox"))
            objects[image].append(Object(names[int(number[0])], box, to_floats((item.get("iscrowd"),)) == [1]))
    for image in unlisted:
        if not objects[image]:
            problems.add("images whose annotations are all of categories that are not listed, kept as negatives", image)
    return objects


def _by_number(ids: Collection[str]) -> dict[int | None, str]:
    """The ids by what they are as integers; data frames write 1 as 1.0. Not those that would be the same."""
    numbers = Counter(map(_integer, ids))
    return {number: id_ for id_ in ids if (number := _integer(id_)) is not None and numbers[number] == 1}


def _integer(id_: str) -> int | None:
    digits = id_.removesuffix(".0")
    return int(digits) if re.fullmatch("[0-9]{1,30}", digits) else None


def _box(value: Any) -> Box | None:
    numbers = to_floats(value) if isinstance(value, list) and len(value) == 4 else None
    if numbers is None:
        return None
    x, y, width, height = numbers
    return (x, y, x + width, y + height)
