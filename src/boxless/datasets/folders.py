"""Class folders: <class>/*.jpg, or <split>/<class>/*.jpg; each image has one tag."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from boxless.datasets.common import SPLIT_NAMES, as_text, choose_split, dataset_name, loaded, refuse_split
from boxless.datasets.layouts import Source
from boxless.datasets.problems import Problems
from boxless.datasets.unread import refuse_unread
from boxless.image_files import Found, scan_images, suffixes
from boxless.structures import Dataset, Sample

_OTHER_LAYOUTS = {"images", "labels", "annotations"}
"""Not taken as classes: these folders belong to another layout, whose list or data file is then missing."""
_NO_CLASS = re.compile(
    r"(images?|imgs?|photos?|pictures?|pics|frames|raw|data|dataset|jpegimages|obj_train_data"
    r"|masks?|labels?|ground_?truths?|gts?|segmentations?|overlays|heatmaps"
    r"|((images?|imgs?)_?)?(train|trainval|val|valid|validation|test|dev)_?(data|images?|imgs?|set|[0-9]+)?)"
)
"""Folders called so hold images, masks or results of all classes; they are classes only beside others."""


def folders(path: Path) -> Source | None:
    """<class>/*.jpg or <split>/<class>/*.jpg."""
    if not path.is_dir():
        return None
    refuse_unread(path)
    found = find_in_folders(path)
    if not found.images:
        return None
    return Source(partial(folder_splits, found.images), partial(load_folders, path, found))


def find_in_folders(root: Path) -> Found:
    """The images below the folders of `root`, relative to it; none if those folders cannot be classes."""
    found = scan_images(root)
    images = [image.relative_to(root) for image in found.images if image.parent != root]
    depth = 1 if _has_splits(images) else 0
    tops = {image.parts[0].lower() for image in images}
    classes = {image.parts[depth].lower() for image in images if len(image.parts) > depth + 1}
    if (tops | classes) & _OTHER_LAYOUTS or all(map(_NO_CLASS.fullmatch, classes)):
        return Found([], {})
    return Found(images, found.unread)


def folder_splits(images: Sequence[Path]) -> set[str]:
    """The splits of the images of `find_in_folders`; none if the first folders of their paths are the classes."""
    return {image.parts[0] for image in images} if _has_splits(images) else set()


def load_folders(root: Path, found: Found, split: str | None) -> Dataset:
    """Read images in class folders; sample ids are their paths relative to `root`.

    The first level is taken as splits if all its folders are called train, val, test or the like, or if none contains
    an image directly. Class folders may have subfolders.

    Args:
        root: the folder.
        found: from `find_in_folders`.
        split: None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split.
    """
    depth, images = 0, found.images
    if splits := folder_splits(images):
        depth = 1
        split = choose_split(split, splits, root)
        images = [image for image in images if image.parts[0] == split]
    else:
        refuse_split(split, root)
    problems = Problems()
    problems.add_unread(
        {path: why for path, why in found.unread.items() if not depth or path.is_relative_to(root / str(split))}, root
    )
    beside = [Path(file.name) for file in root.glob("*") if file.suffix.lower() in suffixes() and file.is_file()]
    in_class = [image for image in images if len(image.parts) > depth + 1]
    for image in sorted({*images, *beside} - set(in_class)):
        problems.add("images outside the class folders, left out", image.as_posix())
    folders = sorted({image.parts[depth] for image in in_class})
    for folder in folders:
        if folder != as_text(folder):
            problems.add("class folders whose names are not UTF-8, read as Latin-1", as_text(folder))
    classes = list(dict.fromkeys(map(as_text, folders)))
    index = {folder: classes.index(as_text(folder)) for folder in folders}
    samples = [Sample(image.as_posix(), root / image, frozenset([index[image.parts[depth]]])) for image in in_class]
    return loaded("class folders", dataset_name(root, split), classes, samples, problems)


def _has_splits(images: Sequence[Path]) -> bool:
    by_name = all(image.parts[0].lower() in SPLIT_NAMES for image in images)
    return by_name or all(len(image.parts) > 2 for image in images)
