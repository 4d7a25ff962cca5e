"""Label Studio: tasks with annotations or predictions as JSON, and the cells of its CSV.

Source: https://labelstud.io/guide/export and /tags/rectanglelabels
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from boxless.datasets.common import MOST_JSON, Box, Object, dataset_name, loaded, refuse_split, to_floats, to_size
from boxless.datasets.layouts import Source
from boxless.datasets.lookup import FileFinder, Finder, names_of_own_images, unnamed_images
from boxless.datasets.problems import Problems, printable
from boxless.datasets.sizes import AnnotatedImage, boxed_samples
from boxless.errors import BoxlessError
from boxless.files import readable_bytes
from boxless.image_files import suffixes
from boxless.structures import Count, Dataset

_MISSING = "tasks whose image is missing, left out"
_UNKNOWN = "tasks whose regions have no class that is read, left out as their tags are unknown"
_UNNAMED = "images with regions that have no class that is read; those regions are not used"
REMARKS = frozenset({"choices", "datetime", "number", "pairwise", "rating", "text"})
"""What a region may hold that has no class: it is a remark, or nothing was chosen."""
_ATTRIBUTES = "choices for a region that has a label, attributes of it and not used"
_FIX = "put the images beside the file, or into a folder images beside it"


def label_studio(path: Path) -> Source | None:
    """A .json file of tasks, or a folder with one, with rectangles, polygons or choices."""
    file = _find_tasks(path)
    return None if file is None else Source(lambda: (), partial(load_label_studio, file))


def _find_tasks(path: Path) -> Path | None:
    files = [path] if path.is_file() else list(path.glob("*.json"))
    few = [file for file in files if file.suffix.lower() == ".json"] if len(files) <= MOST_JSON else []
    tasks = [file for file in few if holds_tasks(file)]
    return tasks[0] if len(tasks) == 1 else None


def holds_tasks(file: Path) -> bool:
    """Whether a file begins as one of tasks does."""
    start = readable_bytes(file, 2000).lstrip(b"\xef\xbb\xbf \r\n\t")
    return start.startswith(b"[") and b'"data"' in readable_bytes(file)


def load_label_studio(file: Path, split: str | None) -> Dataset:
    """Read the tasks of a file.

    Of a task the last annotation that was not cancelled counts, or if nobody annotated or skipped it, its prediction;
    left out are a task without any, and one with regions of which none has a class that is read, as it may be any.
    Rectangles, ellipses and polygons are objects with boxes, choices are tags, or the class of a region without a
    label. Classes are sorted. Sample ids are the paths of the images.

    Raises:
        BoxlessError: the file is not JSON, a split is given, or more than half of the images are missing.
    """
    refuse_split(split, file)
    tasks, problems = read_tasks(file), Problems()
    found = read_label_studio(tasks, file, FileFinder((file.parent, file.parent / "images")), problems, _MISSING)
    problems.refuse_most(_MISSING, len(tasks), file, _FIX)
    unknown = (task for task in tasks if (result := _result(task)) is None or _is_unknown(result))
    addresses = (name for task in unknown for name in _addresses(task))
    for path in unnamed_images((image.path for image in found), lambda: addresses):
        problems.add_unmatched("image files that no task has, not used", path.name)
    classes = sorted({item.name for image in found for item in image.objects})
    samples = boxed_samples(found, classes, problems)
    return loaded("Label Studio", dataset_name(file.with_suffix(""), None), classes, samples, problems)


def read_tasks(file: Path) -> list[Any]:
    """The tasks of a file.

    Raises:
        BoxlessError: it is not JSON.
    """
    try:
        return list(json.loads(file.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        raise BoxlessError(f"{file}: cannot be read as JSON ({error}); export it again") from error


def read_label_studio(
    tasks: Sequence[Any], file: Path, finder: Finder, problems: Problems, missing: str, *, predictions: bool = True
) -> list[AnnotatedImage]:
    """The images of tasks that are found, each once.

    Args:
        tasks: of the file.
        file: the file.
        finder: finds the images.
        problems: receives what is wrong.
        missing: the kind of problem of an image that is not found.
        predictions: whether the prediction counts of a task that nobody annotated.
    """
    found: dict[Path, AnnotatedImage] = {}
    named = {number: _named_image(task, finder) for number, task in enumerate(tasks, 1)}
    own = names_of_own_images({address: image for address, image in named.values() if image is not None})
    for number, task in enumerate(tasks, 1):
        if (result := _result(task, predictions=predictions)) is None:
            problems.add("tasks without an annotation, left out as their tags are unknown", f"task {number}")
            continue
        if _is_unknown(result):
            problems.add(_UNKNOWN, next(_addresses(task), f"task {number}"))
            continue
        address, path = named[number]
        if path is None or address not in own:
            problems.add_unmatched(missing, next(_addresses(task), f"task {number}"))
        elif path in found:
            problems.add("images of more than one task, the first is taken", path.as_posix())
        else:
            name = path.relative_to(file.parent) if path.is_relative_to(file.parent) else path
            size = next((size for one in result if (size := _size(one))), None)
            if _unnamed(result):
                problems.add(_UNNAMED, name.as_posix())
            objects, attributes = _split_regions(result)
            for item in attributes:
                problems.add(_ATTRIBUTES, item.name)
            found[path] = AnnotatedImage(name.as_posix(), path, objects, size)
    return list(found.values())


def _named_image(task: Any, finder: Finder) -> tuple[str, Path | None]:
    """The first address of a task that an image is found by, and the image; None if there is none."""
    found = ((name, path) for name in _addresses(task) if (path := finder.find(name, Problems())))
    return next(found, ("", None))


def _result(task: Any, *, predictions: bool = True) -> list[dict[str, Any]] | None:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        return None
    # Before version 1.0 annotations were completions.
    annotations = _objects_in(task.get("annotations")) or _objects_in(task.get("completions"))
    made = [one for one in annotations if not one.get("was_cancelled") and not one.get("skipped")]
    # Whoever skips a task has seen its prediction, and did not accept it.
    if predictions and not annotations:
        made = _objects_in(task.get("predictions"))
    result = made[-1].get("result") if made else None
    return _objects_in(result) if isinstance(result, list) else None


def _is_unknown(result: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an annotation says that there is something, but not what."""
    return bool(_unnamed(result)) and not _objects(result)


def _objects(result: Iterable[Mapping[str, Any]]) -> list[Object]:
    return _split_regions(result)[0]


def _split_regions(result: Iterable[Mapping[str, Any]]) -> tuple[list[Object], list[Object]]:
    """The objects of an annotation, and the choices that say more of a region with a label, such as `occluded`."""
    entries = [(region, region_objects(region)) for region in result]
    labelled = {str(region.get("id")) for region, items in entries if items and not _has_choices(region)}
    objects: list[Object] = []
    attributes: list[Object] = []
    for region, items in entries:
        is_attribute = region.get("id") and _has_choices(region) and str(region["id"]) in labelled
        (attributes if is_attribute else objects).extend(items)
    return objects, attributes


def _has_choices(region: Mapping[str, Any]) -> bool:
    return isinstance(value := region.get("value"), dict) and "choices" in value


def _unnamed(result: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The regions without an object, such as a rectangle without a label or a taxonomy."""
    # Of a region there is an entry for each control, such as its rectangle and its label.
    named = {region.get("id", number) for number, region in enumerate(result) if region_objects(region)}
    return [
        region
        for number, region in enumerate(result)
        if region.get("id", number) not in named
        and isinstance(value := region.get("value"), dict)
        and not value.keys() & REMARKS
    ]


def _objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; none if it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _addresses(task: Any) -> Iterator[str]:
    """The values of a task's data that may be the address of an image: those of keys called so first."""
    data = task.get("data") if isinstance(task, dict) else None
    values = {key: value for key, value in (data if isinstance(data, dict) else {}).items() if isinstance(value, str)}
    yield from (value for key, value in values.items() if value and key in ("image", "img", "photo"))
    yield from (value for value in values.values() if Path(value.partition("?")[0]).suffix.lower() in suffixes())
    yield from (value for value in values.values() if "?d=" in value)


def _is_point(value: Mapping[str, Any]) -> bool:
    """Whether a region is a point, which alone has a width, that of its mark, but no height."""
    return "keypointlabels" in value or (
        "choices" in value and "x" in value and not value.keys() & {"height", "radiusY"}
    )


def _size(region: Mapping[str, Any]) -> tuple[int, int] | None:
    return to_size((region.get("original_width"), region.get("original_height")))


def region_objects(region: Mapping[str, Any]) -> list[Object]:
    """The objects of one region: of an entry of `result`, or of a cell of the CSV, which has no `value`.

    Boxes and points are in pixels of the stated original size; None where the region has none, such as a choice. A
    number whose control is called `count-` and a class, as in `<Number name="count-apple" toName="image"/>`, counts the
    objects of the class.
    """
    value = region.get("value", region)
    # The labels of a relation say how two regions lie.
    if not isinstance(value, dict) or region.get("type") == "relation":
        return []
    size = _size(region)
    box = None if size is None else _box(value, size)
    objects = []
    for key, labels in value.items():
        if key.endswith("labels") or key == "choices":
            names = [printable(str(name)) for name in (labels if isinstance(labels, list) else [labels])]
            is_point = _is_point(value)
            # Choices for a region have its geometry, those for the image have none.
            boxed = (key != "choices" or not value.keys().isdisjoint({"x", "points"})) and not is_point
            objects += [Object(name, box, has_box=boxed, is_point=is_point) for name in names]
    return objects + _count(region, value)


def _count(region: Mapping[str, Any], value: Mapping[str, Any]) -> list[Object]:
    prefix, _, name = str(region.get("from_name", "")).partition("-")
    number = to_floats([value.get("number")])
    if prefix != "count" or not name or number is None or number[0] < 1:
        return []
    return [Object(printable(name), None, has_box=False, count=Count(int(number[0])))]


def _box(value: Mapping[str, Any], size: tuple[int, int]) -> Box | None:
    """The box around a region, whose numbers are percent of the image's width and height."""
    points = list(_points(value, size))
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs), min(ys), max(xs), max(ys))


def _points(value: Mapping[str, Any], size: tuple[int, int]) -> Iterable[tuple[float, float]]:
    """The outermost points of a region in pixels."""
    width, height = size[0] / 100, size[1] / 100
    if isinstance(value.get("points"), list):
        numbers = [to_floats(point) for point in value["points"] if isinstance(point, list) and len(point) == 2]
        return [(point[0] * width, point[1] * height) for point in numbers if point]
    keys = ("x", "y", "radiusX", "radiusY") if "radiusX" in value else ("x", "y", "width", "height")
    is_point = _is_point(value)
    # The width of a point is that of its mark.
    numbers_ = to_floats(0 if is_point and key in ("width", "height") else value.get(key) for key in keys)
    if numbers_ is None:
        return []
    x, y, w, h = (number * side for number, side in zip(numbers_, (width, height) * 2, strict=True))
    turn = math.radians((to_floats([value.get("rotation", 0)]) or [0])[0])
    cos, sin = math.cos(turn), math.sin(turn)
    if "radiusX" in value:
        across, down = math.hypot(w * cos, h * sin), math.hypot(w * sin, h * cos)
        return [(x - across, y - down), (x + across, y + down)]
    # A rectangle turns around its left upper corner.
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((0, 0), (w, 0), (w, h), (0, h))]
