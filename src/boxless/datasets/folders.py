"""Class folders: <class>/*.jpg, or <split>/<class>/*.jpg; each image has one tag."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from boxless.datasets.common import as_text, choose_split, dataset_name, find_splits, loaded, refuse_split
from boxless.datasets.image_records import ClassImages
from boxless.datasets.layouts import Source
from boxless.datasets.problems import Problems
from boxless.datasets.unread import refuse_disagreeing, refuse_unread
from boxless.errors import BoxlessError
from boxless.image_files import Found, is_hidden, scan_images, suffixes
from boxless.structures import Dataset, Sample

_OTHER_LAYOUTS = {"images", "labels", "annotations"}
"""Not taken as classes: these folders belong to another layout, whose list or data file is then missing."""
_NO_CLASS = re.compile(
    r"(images?|imgs?[0-9]*|photos?|pictures?|pics|frames|raw|data|dataset|jpegimages|obj_train_data"
    r"|masks?|labels?|ground_?truths?|gts?|segmentations?|overlays|heatmaps"
    r"|images?_[0-9]+|thumbs|thumbnails)",
    re.IGNORECASE,
)
"""Folders called so hold images, masks or results of all classes; they are classes only beside others."""
_NO_IMAGES = re.compile(
    r"(?<![^\W_])(masks?|thumbnails?|segmentations?|ground[ _-]?truths?|gts?|depth[ _-]?maps?|rgb|thermal|overlays?"
    r"|heatmaps?)(?![^\W_])",
    re.IGNORECASE,
)
"""A word in the names of folders that hold something else of the images of another folder."""
_NEGATED = re.compile(r"(?<![^\W_])(with|without|no|non|not|un)[ _-]?mask", re.IGNORECASE)
"""Where people wear masks, or do not, these are classes."""
_SAME = 3
"""Images from which on it is no chance that those of two folders have the same names."""


def folders(path: Path) -> Source | None:
    """<class>/*.jpg or <split>/<class>/*.jpg."""
    if not path.is_dir():
        return None
    refuse_unread(path)
    found = find_in_folders(path)
    if not found.images:
        _refuse_splits_below(path)
        return None
    ignored = refuse_disagreeing(path, ClassImages(_with_class(found.images)))
    return Source(partial(folder_splits, found.images), partial(load_folders, path, found, ignored))


def find_in_folders(root: Path) -> Found:
    """The images below the folders of `root`, relative to it; none if those folders cannot be classes."""
    found = scan_images(root)
    images = [image.relative_to(root) for image in found.images if image.parent != root]
    tops = {image.parts[0].lower() for image in images}
    classes = {name for _, name in _with_class(images)}
    if (tops | {name.lower() for name in classes}) & _OTHER_LAYOUTS:
        return Found([], {})
    # `train 1` is a train of several.
    if all(
        _NO_CLASS.fullmatch(name) or (find_splits({name}) and not re.search(r"\s[0-9]+$", name)) for name in classes
    ):
        return Found([], {})
    return Found(images, found.unread)


def _refuse_splits_below(root: Path) -> None:
    """Raise BoxlessError if the splits, with class folders in them, lie in folders of `root`, not in it."""
    images = [image.relative_to(root) for image in scan_images(root).images]
    outer = _outer({image.parts[0] for image in images}, images)
    if outer and all(len(image.parts) > 3 for image in images):
        names = " or ".join(as_text(str(root / name)) for name in sorted(outer))
        raise BoxlessError(f"{root}: the splits are in a folder of it; give the path of {names}")


def _outer(tops: Collection[str], images: Sequence[Path]) -> set[str]:
    """The first folders in which those of several splits lie, as in copies of a set in itself."""
    inner = defaultdict[str, set[str]](set)
    for path in images:
        inner[path.parts[0]].add(path.parts[1] if len(path.parts) > 2 else "")
    return {top for top in tops if len(inner[top]) > 1 and find_splits(inner[top]) == inner[top]}


def folder_splits(images: Sequence[Path]) -> set[str]:
    """The splits of the images of `find_in_folders`; none if the first folders of their paths are the classes."""
    tops = {image.parts[0] for image in images}
    # If no image lies directly in the first folders, these may have any name.
    if all(len(image.parts) > 2 for image in images):
        return tops - _outer(tops, images) or tops
    splits = find_splits(tops)
    return splits if any(len(image.parts) > 2 and image.parts[0] in splits for image in images) else set()


def _with_class(images: Sequence[Path]) -> list[tuple[Path, str]]:
    """The images that lie in a class folder, each with the name of that."""
    splits = folder_splits(images)
    if not splits:
        return [(path, path.parts[0]) for path in images]
    by_top = defaultdict[str, list[Path]](list)
    for path in images:
        by_top[path.parts[0]].append(path)
    depths = {split: _depth(by_top[split]) for split in splits}
    found = ((path, depths[path.parts[0]]) for path in images if path.parts[0] in splits)
    return [(path, path.parts[depth]) for path, depth in found if len(path.parts) > depth + 1]


def _depth(images: Sequence[Path]) -> int:
    """Where in the paths of a split's images the class is: archives repeat the split, as in `train/train/cat/1.jpg`."""
    depth = 1
    while all(len(path.parts) > depth + 1 for path in images):
        inner = {path.parts[depth] for path in images}
        if inner != {images[0].parts[depth - 1]} and not (len(inner) == 1 and find_splits(inner)):
            break
        depth += 1
    return depth


def load_folders(root: Path, found: Found, ignored: Sequence[Path], split: str | None) -> Dataset:
    """Read images in class folders; sample ids are their paths relative to `root`.

    The first level is taken as splits if its folders are called train, val, test or the like, see `find_splits`, and
    hold folders with images, or if none contains an image directly. Class folders may have subfolders.

    Args:
        root: the folder.
        found: from `find_in_folders`.
        ignored: files that describe the images, see `refuse_disagreeing`.
        split: None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split.
    """
    splits = folder_splits(found.images)
    if splits:
        split = choose_split(split, splits, root)
    else:
        refuse_split(split, root)
    folder = root if split is None else root / split
    in_class = {path: name for path, name in _with_class(found.images) if split is None or path.parts[0] == split}
    problems = Problems()
    for file in ignored:
        problems.add("files that describe the images, not read", as_text(str(file.relative_to(root))))
    problems.add_unread({path: why for path, why in found.unread.items() if path.is_relative_to(folder)}, root)
    beside = [Path(file.name) for file in root.glob("*") if file.suffix.lower() in suffixes() and file.is_file()]
    tops = {path.parts[0] for path in found.images}
    outer = _outer(tops - splits, found.images) if splits else set()
    for name in sorted(outer):
        problems.add("folders that hold splits of their own, left out; give their path to read them", as_text(name))
    others = [path for path in found.images if path not in in_class and path.parts[0] not in outer | splits - {split}]
    for image in sorted({*others, *beside}):
        problems.add("images outside the class folders, left out", image.as_posix())
    folders = sorted(set(in_class.values()))
    for name in sorted(find_splits(folders)) if not splits else ():
        problems.add("class folders that are called like splits, classes as they hold images directly", as_text(name))
    _name_folders(folder, in_class, problems)
    classes = list(dict.fromkeys(map(as_text, folders)))
    index = {name: classes.index(as_text(name)) for name in folders}
    samples = [Sample(image.as_posix(), root / image, frozenset([index[name]])) for image, name in in_class.items()]
    return loaded("class folders", dataset_name(root, split), classes, samples, problems)


def _name_folders(folder: Path, in_class: Mapping[Path, str], problems: Problems) -> None:
    """Name folders that may not be what they are taken for."""
    names, direct = set(in_class.values()), {path.parts[-2] for path in in_class}
    for name in sorted(names):
        if name != as_text(name):
            problems.add("class folders whose names are not UTF-8, read as Latin-1", as_text(name))
        if name not in direct:
            problems.add("class folders that hold only folders, all of which are taken as the class", as_text(name))
    used = {part for path in in_class for part in path.parts}
    for one in sorted(folder.iterdir()):
        if one.is_dir() and not is_hidden(one.name) and one.name not in used:
            problems.add("folders without an image that is read, no classes", as_text(one.name))
    stems = defaultdict[str, set[str]](set)
    for path, name in in_class.items():
        stems[name].add(path.stem)
    alike = defaultdict[frozenset[str], list[str]](list)
    for name in sorted(stems):
        alike[frozenset(stems[name])].append(as_text(name))
    for same, several in alike.items():
        # Images that are merely numbered have the same names in all classes.
        if len(several) > 1 and len(same) >= _SAME and (_are_of_several_kinds(several) or not _are_numbered(same)):
            kind = "class folders whose images have the same names, as masks and images of another camera have"
            problems.add(kind, " and ".join(several))


def _are_of_several_kinds(names: Sequence[str]) -> bool:
    """Whether some of the folders, but not all, are called as those of masks and the like."""
    found = [_NO_IMAGES.search(name) is not None for name in names]
    return any(found) and not all(found) and not any(map(_NEGATED.search, names))


def _are_numbered(stems: Collection[str]) -> bool:
    """Whether the names have a number each and the rest in common, as `image_0001` or `img (1)`."""
    first = min(stems)
    patterns = (
        rf"{re.escape(first[: number.start()])}\d+{re.escape(first[number.end() :])}"
        for number in re.finditer(r"\d+", first)
    )
    return any(all(re.fullmatch(pattern, stem) for stem in stems) for pattern in patterns)
