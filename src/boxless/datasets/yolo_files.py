"""The files that describe a YOLO set: a YAML file, darknet's obj.data, or a list of classes beside the labels."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from boxless.datasets.common import (
    as_text,
    find_splits,
    first_path,
    is_split_name,
    read_all_lines,
    read_lines,
    to_floats,
)
from boxless.errors import BoxlessError, in_one_line
from boxless.image_files import find_images, normal, parent, walk_files
from boxless.yaml_keys import TextLoader

_SPLITS = ("train", "val", "valid", "validation", "test")
_NULL = ("", "~", "null", "Null", "NULL")
_LABELS = "boxless_labels"
"""Written by `boxless.export.yolo`."""
_CLASSES = ("classes.txt", "obj.names", "_darknet.labels")


class YoloData(NamedTuple):
    """What the description of a set says.

    Args:
        file: the description.
        root: the folder of the set: that of `file`, or the one above where that is in `labels`.
        base: the folder its paths start from, beside `root`.
        names: class names by their numbers.
        splits: split -> paths of image folders or of lists of images; {"": ...} if the set is not split.
        labels: the list of label files in the order of the list of images; None if they are named like the images, as
            usual.
        keypoints: whether lines have keypoints behind the box, as `kpt_shape` says.
    """

    file: Path
    root: Path
    base: Path
    names: dict[int, str]
    splits: dict[str, list[str]]
    labels: Path | None = None
    keypoints: bool = False


def find_yolo(path: Path) -> Path | None:
    """The file that describes the set: `path` itself, or one in it.

    Raises:
        BoxlessError: several YAML files in the folder name classes, and none of them is called data.yaml.
    """
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml", ".data") else None
    if file := first_path(path / name for name in ("data.yaml", "data.yml")):
        return file
    files = [file for file in sorted(path.glob("*")) if file.suffix.lower() in (".yaml", ".yml") and _has_names(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise BoxlessError(f"{path}: several YAML files name classes, give the path of one of {names}")
    darknet = [file for file in sorted(path.glob("*.data")) if "names" in _assignments(file)]
    lists = [file for folder in (path, path / "labels") for name in _CLASSES if (file := folder / name).is_file()]
    lists = [file for file in lists if path in (file.parent, _above_labels(file.parent))]
    classes = [file for file in lists if any_labels(file.parent)]
    return next(iter([*files, *darknet, *classes]), None)


def any_labels(folder: Path) -> bool:
    """Whether one of the first few text files at any depth of a folder that are not empty holds labels."""
    filled = (file for file in walk_files(folder, {".txt"}) if file.stat().st_size)
    return any(map(is_label_file, islice(filled, 20)))


def is_label_file(file: Path) -> bool:
    """Whether all lines of a file are a class number and the numbers of a box or polygon, and there is one."""
    try:
        lines = [to_floats(line.split()) for line in read_lines(file)]
    except BoxlessError:
        return False
    return bool(lines) and all(line is not None and len(line) >= 5 and line[0].is_integer() for line in lines)


def read_yolo(file: Path) -> YoloData:
    """Read the description of a set.

    Raises:
        BoxlessError: it cannot be read, or lacks classes.
    """
    if file.suffix.lower() in (".yaml", ".yml"):
        content = _read_yaml(file)
        splits = {key: _paths(content, key, file) for key in _SPLITS if content.get(key)}
        base = file.parent.joinpath(*_paths(content, "path", file))
        own = file.parent.joinpath(*_paths(content, _LABELS, file)) if content.get(_LABELS) else None
        return YoloData(
            file, file.parent, base, _names(content.get("names"), file), splits, own, "kpt_shape" in content
        )
    if file.suffix.lower() == ".data":
        content = _assignments(file)
        names = first_path(file.parent / one for one in _ends(content.get("names", "")))
        if names is None:
            raise BoxlessError(f"{file}: `names` must be the path of the list of classes")
        splits = {key: [_ends(content[key])[-1]] for key in _SPLITS if key in content}
        return YoloData(file, file.parent, file.parent, _listed_names(names), splits)
    root = _above_labels(file.parent)
    return YoloData(file, root, root, _listed_names(file), _folders(root))


def _above_labels(folder: Path) -> Path:
    """The folder of a set whose classes are listed in `folder`: LabelImg writes them beside the labels."""
    above, name = parent(folder), normal(folder).name
    is_beside = name.lower() == "labels" and "images" in map(str.lower, _names_of_folders(above))
    return above if is_beside and not find_images(folder) else folder


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=TextLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise BoxlessError(f"{file}: cannot be read as YAML ({in_one_line(error)})") from error
    if isinstance(content, dict):
        # `Val` is a spelling of `val`, unless that is there, too.
        content = {key.lower() if str(key).lower() not in content else key: value for key, value in content.items()}
    if not isinstance(content, dict) or "names" not in content:
        raise BoxlessError(f"{file}: a YOLO data file needs `names` (the classes) and `train`, `val` or `test`")
    return {key: value for key, value in content.items() if value not in _NULL}


def _has_names(file: Path) -> bool:
    try:
        return bool(_names(_read_yaml(file).get("names"), file))
    except BoxlessError:
        return False


def _paths(content: dict[str, Any], key: str, file: Path) -> list[str]:
    value = content.get(key) or []
    paths = value if isinstance(value, list) else [value]
    # Nothing else is turned into text: that of a few nested aliases of YAML fills the memory.
    if not all(isinstance(path, str) for path in paths):
        raise BoxlessError(f"{file}: `{key}` must be a path, or a list of paths")
    return paths


def _names(value: Any, file: Path) -> dict[int, str]:
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    try:
        names = {int(number): name.strip() for number, name in pairs}
    except (AttributeError, TypeError, ValueError, OverflowError):
        names = {}
    if not all(names.values()):
        raise BoxlessError(f"{file}: `names` has a class without a name")
    if not names:
        raise BoxlessError(f"{file}: `names` must list the classes, or map their numbers to names")
    return names


def _assignments(file: Path) -> dict[str, str]:
    """The `key = value` lines of darknet's obj.data."""
    pairs = (line.partition("=") for line in read_lines(file))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _ends(path: str) -> Sequence[str]:
    """Darknet's paths start in a folder above, which is called data."""
    return path, path.removeprefix("data/")


def _listed_names(file: Path) -> dict[int, str]:
    lines = read_all_lines(file)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise BoxlessError(f"{file}: lists no class")
    if "" in lines:
        raise BoxlessError(f"{file}: line {lines.index('') + 1} is blank, and a class's number is that of its line")
    return dict(enumerate(map(as_text, lines)))


def _folders(root: Path) -> dict[str, list[str]]:
    """The splits of a set without a list of them: folders in `images`, or beside it, that are called so."""
    folders = _names_of_folders(root)
    images = next((name for name in folders if name.lower() == "images"), None)
    splits = {name: [f"{images}/{name}"] for name in _split_folders(_names_of_folders(root / images) if images else [])}
    splits = splits or {name: [name] for name in _split_folders(folders)}
    return splits or {"": [images or "."]}


def _names_of_folders(folder: Path) -> list[str]:
    return [entry.name for entry in sorted(folder.glob("*")) if entry.is_dir()]


def _split_folders(names: Sequence[str]) -> list[str]:
    """Those that are called like splits; here also a single one beside others, which cannot be a class."""
    splits = find_splits(names) or {name for name in names if is_split_name(name)}
    return [name for name in names if name in splits]
