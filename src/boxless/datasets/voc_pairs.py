"""Images with annotation files in PASCAL VOC's format, without lists: in two folders, or side by side."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from boxless.datasets.common import choose_split, dataset_name, find_splits, refuse_split, split_kinds
from boxless.datasets.lookup import FileFinder, NameIndex
from boxless.datasets.problems import Problems
from boxless.datasets.voc_xml import (
    NO_ANNOTATION,
    NO_IMAGE,
    Annotation,
    annotated,
    annotation_files,
    images_by_id,
    is_annotation,
    read_annotation,
)
from boxless.image_files import walk_files
from boxless.structures import Dataset

_IMAGES = {"images", "image", "imgs", "img", "photos", "pictures"}
_ANNOTATIONS = {"annotations", "annotation", "xmls", "xml", "labels", "label"}
_NO_ANNOTATIONS = "images of folders without annotations, left out as their tags are unknown"


class Pairs(NamedTuple):
    """Images and annotation files.

    Args:
        root: the folder of the set.
        images: the folder of the images.
        annotations: the folder of the annotation files, in which their paths are those of the images; may be the same.
        splits: names of the folders in both that are splits; none if the set is not split.
    """

    root: Path
    images: Path
    annotations: Path
    splits: tuple[str, ...]


def find_pairs(path: Path) -> Pairs | None:
    """Annotation files in a folder beside one of images, or beside the images themselves."""
    folders = [folder for folder in sorted(path.glob("*")) if folder.is_dir()]
    images = [folder for folder in folders if folder.name.lower() in _IMAGES]
    for folder in folders:
        if folder.name.lower() in _ANNOTATIONS and _any_annotation(walk_files(folder, {".xml"})):
            return pair(path, images[0] if len(images) == 1 else path, folder)
    beside = any(
        _any_annotation(file for file in folder.glob("*") if file.suffix.lower() == ".xml")
        for folder in [path, *folders]
    )
    return pair(path, path, path) if beside else None


def pair(root: Path, images: Path, annotations: Path) -> Pairs:
    """The set of these folders; its splits are the first folders of the annotations that are called so."""
    parts = [file.relative_to(annotations).parts for file in annotation_files(annotations)]
    firsts = {part[0] if len(part) > 1 else "" for part in parts}
    splits = find_splits(firsts)
    # Of `test1` and `test2` none is meant to be chosen.
    is_whole = len(splits) > 1 and len(kinds := split_kinds(splits)) == 1 and kinds != {"train"}
    return Pairs(root, images, annotations, () if is_whole else tuple(sorted(splits)))


def _any_annotation(files: Iterator[Path]) -> bool:
    """Whether one of the first few files is an annotation."""
    return any(is_annotation(file) for file in islice(files, 5))


def load_pairs(pairs: Pairs, split: str | None) -> Dataset:
    """Read images and annotations that no list names; boxes and classes as `voc.load_voc`.

    Sample ids are the paths of the annotations in their folder, without suffix. An annotation belongs to the image of
    the same path, else to the one that it names.

    Args:
        pairs: from `find_pairs`.
        split: one of `pairs.splits`; None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split, or more than half of the annotations have no image.
    """
    problems = Problems()
    if pairs.splits:
        split = choose_split(split, pairs.splits, pairs.root)
    else:
        refuse_split(split, pairs.root)
    prefix = "" if split is None else f"{split}/"
    every = images_by_id(pairs.images, problems)
    images = {id_: file for id_, file in every.items() if id_.startswith(prefix)}
    for id_ in every if pairs.splits else ():
        if id_.partition("/")[0] not in pairs.splits:
            problems.add_unmatched("images beside the folders of the splits, left out", id_)
    found, read = _matched(pairs, prefix, images, problems)
    used = set(found.values())
    folders = {file.parent for file in used}
    for id_, file in images.items():
        if file not in used:
            problems.add_unmatched(NO_ANNOTATION if file.parent in folders else _NO_ANNOTATIONS, id_)
    return annotated(dataset_name(pairs.root, split), found, read, problems)


def _matched(
    pairs: Pairs, prefix: str, images: dict[str, Path], problems: Problems
) -> tuple[dict[str, Path], dict[str, Annotation]]:
    """The image and the content of every annotation that has both."""
    index, finder = NameIndex(images), FileFinder([pairs.images, pairs.root])
    found: dict[Path, str] = {}
    read: dict[str, Annotation] = {}
    paths = {file.relative_to(pairs.annotations): file for file in annotation_files(pairs.annotations)}
    paths = {path: file for path, file in paths.items() if path.as_posix().startswith(prefix)}
    for path, file in paths.items():
        annotation = read_annotation(file, problems)
        if annotation is None:
            continue
        id_ = path.with_suffix("").as_posix()
        named = (finder.find(name, problems) for name in annotation.names)
        image = index.find(id_, problems) or next(filter(None, named), None)
        if image is None:
            problems.add_unmatched(NO_IMAGE, path.as_posix())
        elif image in found:
            problems.add("annotation files of an image that has another, left out", path.as_posix())
        else:
            found[image], read[id_] = id_, annotation
    problems.refuse_most(NO_IMAGE, len(paths), pairs.root, "give images and annotations the same names")
    return {id_: image for image, id_ in found.items()}, read
