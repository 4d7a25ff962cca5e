"""Folders named after classes: <class>/*.jpg, or <split>/<class>/*.jpg; each image has one tag."""

from collections.abc import Sequence
from pathlib import Path

from boxless.datasets._shared import Problems, choose_split, dataset_name, refuse_split
from boxless.images import find_images
from boxless.structures import Dataset, Sample

_SPLIT_NAMES = {"train", "trainval", "val", "valid", "validation", "dev", "test"}
_OTHER_LAYOUTS = {"images", "labels", "annotations"}
"""As the name of a class, one of these would hide that another layout's list or data file is missing."""


def find_in_folders(root: Path) -> list[Path]:
    """The images below the folders of `root`, relative to it; none if those folders cannot be meant as classes."""
    folders = sorted(folder for folder in root.glob("*") if folder.is_dir() and not folder.name.startswith("."))
    images = [image.relative_to(root) for folder in folders for image in find_images(folder)]
    tops = {image.parts[0].lower() for image in images}
    without_classes = _has_splits(images) and all(len(image.parts) == 2 for image in images)
    return [] if tops & _OTHER_LAYOUTS or without_classes else images


def folder_splits(images: Sequence[Path]) -> set[str]:
    """The splits among what `find_in_folders` found; none where the first level is the classes."""
    return {image.parts[0] for image in images} if _has_splits(images) else set()


def load_folders(root: Path, images: Sequence[Path], split: str | None) -> Dataset:
    """Make a dataset of images in class folders; sample ids are their paths relative to `root`.

    The first level is taken as splits if all its folders are called train, val, test or the like, or if no image
    lies directly in one. Below a class folder, images count at any depth.

    Args:
        root: the folder.
        images: what `find_in_folders` found there.
        split: None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split.
    """
    depth = 0
    if splits := folder_splits(images):
        depth = 1
        split = choose_split(split, splits, root)
        images = [image for image in images if image.parts[0] == split]
    else:
        refuse_split(split, root)
    problems = Problems()
    in_class = [image for image in images if len(image.parts) > depth + 1]
    for image in sorted(set(images) - set(in_class)):
        problems.add("images outside of the class folders, left out", image.as_posix())
    classes = sorted({image.parts[depth] for image in in_class})
    index = {name: label for label, name in enumerate(classes)}
    samples = [Sample(image.as_posix(), root / image, frozenset([index[image.parts[depth]]])) for image in in_class]
    return Dataset(dataset_name(root, split), tuple(classes), tuple(samples), problems.lines())


def _has_splits(images: Sequence[Path]) -> bool:
    by_name = all(image.parts[0].lower() in _SPLIT_NAMES for image in images)
    return by_name or all(len(image.parts) > 2 for image in images)
