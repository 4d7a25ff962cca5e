"""Where images and tags come from: one loader for the layouts in common use."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from boxless.datasets._shared import Problems
from boxless.datasets.coco import find_coco, load_coco
from boxless.datasets.folders import find_in_folders, folder_splits, load_folders
from boxless.datasets.table import DELIMITERS, load_table, table_splits
from boxless.datasets.voc import find_years, load_voc, voc_splits
from boxless.datasets.yolo import find_yolo, load_yolo, yolo_splits
from boxless.errors import BoxlessError
from boxless.structures import Dataset

__all__ = ["load_dataset", "split_names"]

_LAYOUTS = """Boxless reads
  PASCAL VOC  a folder with JPEGImages, ImageSets/Main/<split>.txt and Annotations (or one with VOCdevkit/<year>)
  COCO        a .json file, or a folder with annotations/*.json or <split>/_annotations.coco.json
  YOLO        a data.yaml, or the folder it is in
  folders     <class>/*.jpg or <split>/<class>/*.jpg
  table       a .csv or .tsv file: `image,tags` (tags parted by ;), or `image` and a column of 0 and 1 a class"""


def load_dataset(path: str | PathLike[str], split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read images with their tags, and boxes where there are any, from a layout recognised by its files.

    PASCAL VOC, COCO, YOLO, folders named after classes, and tables; each module of this package describes its layout.
    What is broken in single images ends up in `Dataset.warnings`, and the rest goes on. Images are not opened; for
    YOLO, their headers are read.

    Args:
        path: a file or folder; `~` is the user's home.
        split: None for trainval, else train, else the only one there is.
        classes: keep only these, in this order (see `Dataset.with_classes`); None keeps all.

    Returns:
        The dataset; boxes are xyxy in pixels of the displayed image, right and bottom exclusive. An image whose
        boxes are not known has `annotations` None; one that is known to show nothing has empty ones.

    Raises:
        BoxlessError: nothing is there, the layout is not recognised, the split or a class does not exist, or no tag is
            left after what is broken was put aside.
    """
    root = Path(path).expanduser()
    dataset = _recognise(root).load(split)
    if not any(sample.tags or sample.unsure for sample in dataset.samples):
        reasons = "".join(f"\n  {line}" for line in dataset.warnings)
        raise BoxlessError(
            f"{root}: no tag to learn from among {len(dataset)} usable images of {dataset.name}{reasons}"
        )
    if not any(sample.annotations is not None and len(sample.annotations.boxes) for sample in dataset.samples):
        dataset = dataset.tags_only()
    if classes is not None:
        dataset = dataset.with_classes(classes)
    return replace(dataset, warnings=dataset.warnings + _remarks(dataset))


def split_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """What `load_dataset` takes as `split` for this path, sorted; nothing where the data is not split.

    Raises:
        BoxlessError: nothing is there, the layout is not recognised, or the file that names the splits cannot be read.
    """
    return tuple(sorted(_recognise(Path(path).expanduser()).splits()))


class _Layout(NamedTuple):
    splits: Callable[[], Collection[str]]
    load: Callable[[str | None], Dataset]


def _recognise(root: Path) -> _Layout:
    if not root.exists():
        raise BoxlessError(f"{root}: there is no such file or folder")
    if root.suffix.lower() in DELIMITERS and root.is_file():
        return _Layout(partial(table_splits, root), partial(load_table, root))
    if years := find_years(root):
        if len(years) > 1:
            raise BoxlessError(f"{root} holds several VOC years; give one of them: {', '.join(map(str, years))}")
        return _Layout(partial(voc_splits, years[0]), partial(load_voc, years[0]))
    if files := find_coco(root):
        return _Layout(files.keys, partial(load_coco, files, root=root))
    if data_file := find_yolo(root):
        return _Layout(partial(yolo_splits, data_file), partial(load_yolo, data_file))
    if images := find_in_folders(root):
        return _Layout(partial(folder_splits, images), partial(load_folders, root, images))
    raise BoxlessError(f"{root} {_describe(root)}. {_LAYOUTS}")


def _describe(root: Path) -> str:
    if root.is_file():
        return "is not a kind of file that holds a dataset"
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    if not entries:
        return "is empty"
    return f"is laid out in no way that is known; it holds {', '.join(entries[:8])}{', ...' if entries[8:] else ''}"


def _remarks(dataset: Dataset) -> tuple[str, ...]:
    problems = Problems()
    seen: set[int] = set()
    for sample in dataset.samples:
        seen |= sample.tags
        if not sample.tags and not sample.unsure:
            problems.add("images without a tag, kept as negatives", sample.id)
    for label, name in enumerate(dataset.classes):
        if label not in seen:
            problems.add("classes that no image is tagged with", name)
    return problems.lines()
