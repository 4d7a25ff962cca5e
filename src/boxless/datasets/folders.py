"""Folders named after classes: <class>/*.jpg, or <split>/<class>/*.jpg; each picture has one tag."""

from collections.abc import Sequence
from pathlib import Path

from boxless.datasets._shared import Problems, choose_split, dataset_name, refuse_split
from boxless.pictures import find_pictures
from boxless.structures import Dataset, Sample

_SPLIT_NAMES = {"train", "trainval", "val", "valid", "validation", "dev", "test"}
_OTHER_LAYOUTS = {"images", "labels", "annotations"}
"""As the name of a class, one of these would hide that another layout's list or data file is missing."""


def find_in_folders(root: Path) -> list[Path]:
    """The pictures below the folders of `root`, relative to it; none if those folders cannot be meant as classes."""
    folders = sorted(folder for folder in root.glob("*") if folder.is_dir() and not folder.name.startswith("."))
    pictures = [picture.relative_to(root) for folder in folders for picture in find_pictures(folder)]
    tops = {picture.parts[0].lower() for picture in pictures}
    without_classes = _has_splits(pictures) and all(len(picture.parts) == 2 for picture in pictures)
    return [] if tops & _OTHER_LAYOUTS or without_classes else pictures


def folder_splits(pictures: Sequence[Path]) -> set[str]:
    """The splits among what `find_in_folders` found; none where the first level is the classes."""
    return {picture.parts[0] for picture in pictures} if _has_splits(pictures) else set()


def load_folders(root: Path, pictures: Sequence[Path], split: str | None) -> Dataset:
    """Make a dataset of pictures in class folders; sample ids are their paths relative to `root`.

    The first level is taken as splits if all its folders are called train, val, test or the like, or if no picture
    lies directly in one. Below a class folder, pictures count at any depth.

    Args:
        root: the folder.
        pictures: what `find_in_folders` found there.
        split: None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split.
    """
    depth = 0
    if splits := folder_splits(pictures):
        depth = 1
        split = choose_split(split, splits, root)
        pictures = [picture for picture in pictures if picture.parts[0] == split]
    else:
        refuse_split(split, root)
    problems = Problems()
    in_class = [picture for picture in pictures if len(picture.parts) > depth + 1]
    for picture in sorted(set(pictures) - set(in_class)):
        problems.add("pictures outside of the class folders, left out", picture.as_posix())
    classes = sorted({picture.parts[depth] for picture in in_class})
    index = {name: label for label, name in enumerate(classes)}
    samples = [
        Sample(picture.as_posix(), root / picture, frozenset([index[picture.parts[depth]]])) for picture in in_class
    ]
    return Dataset(dataset_name(root, split), tuple(classes), tuple(samples), problems.lines())


def _has_splits(pictures: Sequence[Path]) -> bool:
    by_name = all(picture.parts[0].lower() in _SPLIT_NAMES for picture in pictures)
    return by_name or all(len(picture.parts) > 2 for picture in pictures)
