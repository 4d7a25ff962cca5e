"""Datasets: images with tags, and boxes where there are any, read from the layouts in common use.

Add a layout with `@LAYOUTS.register(name)`; `docs/examples/layout.py` is an example.
"""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from boxless.datasets.class_names import report_names
from boxless.datasets.coco import coco
from boxless.datasets.folders import folders
from boxless.datasets.label_studio import label_studio
from boxless.datasets.layouts import LAYOUTS, Layout, Source, recognise
from boxless.datasets.problems import Problems
from boxless.datasets.table import table
from boxless.datasets.voc import voc
from boxless.datasets.yolo import yolo
from boxless.errors import BoxlessError
from boxless.files import expand_user
from boxless.structures import Dataset
from boxless.wording import counted

__all__ = ["LAYOUTS", "Layout", "Source", "load_dataset", "split_names"]

# Tried from the last to the first; class folders come last because nearly any folder of images matches them.
LAYOUTS.update(
    {
        "folders": folders,
        "table": table,
        "YOLO": yolo,
        "COCO": coco,
        "Label Studio": label_studio,
        "PASCAL VOC": voc,
    }
)


def load_dataset(path: str | PathLike[str], split: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Read images with their tags, and boxes where there are any; the layout is recognised by its files.

    The layouts are those in `LAYOUTS`: PASCAL VOC, COCO, Label Studio, YOLO, tables, class folders; each module of this
    package describes one. `Dataset.summary` says what was understood. Problems with single images become
    `Dataset.warnings` and the rest is loaded. Of images only the headers are read, where boxes depend on their sizes.

    Args:
        path: a file or folder; `~` is the user's home.
        split: None for trainval, else train, else the only one.
        classes: keep only these, in this order (see `Dataset.with_classes`); None keeps all.

    Returns:
        The dataset; boxes are xyxy in pixels of the displayed image, right and bottom exclusive. `annotations` is None
        for an image whose boxes are unknown, and empty for an image known to contain no object.

    Raises:
        BoxlessError: nothing is there, the layout is not recognised, the split or a class does not exist, more than
            half of the annotations and images do not match, or no tag is left once problems are set aside.
    """
    root = expand_user(path)
    layout, source = recognise(root)
    dataset = source.load(split)
    if not any(sample.tags or sample.unsure for sample in dataset.samples):
        reasons = "".join(f"\n  {line}" for line in dataset.warnings)
        raise BoxlessError(
            f"{root}: none of the {counted(len(dataset), 'usable image')} of {dataset.name} has a tag{reasons}"
        )
    if not any(sample.annotations is not None and len(sample.annotations.boxes) for sample in dataset.samples):
        dataset = dataset.without_annotations()
    sizes = f"{counted(len(dataset), 'image')}, {counted(len(dataset.classes), 'class')}"
    summary = dataset.summary or f"{layout}, {sizes}"
    if classes is not None:
        dataset = dataset.with_classes(classes)
        summary += f"; of the classes {counted(len(dataset.classes), 'is', 'are')} used"
    if negatives := sum(not sample.tags and not sample.unsure for sample in dataset.samples):
        kind = "image without a tag, kept as a negative", "images without a tag, kept as negatives"
        summary += f"; {counted(negatives, *kind)}"
    return replace(dataset, warnings=dataset.warnings + _remarks(dataset), summary=summary)


def open_dataset(
    data: Dataset | str | PathLike[str], split: str | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """A dataset that may be given itself, or as a path.

    Args:
        data: a dataset, or a path that `load_dataset` takes.
        split: of the data at a path.
        classes: keep only these, as `load_dataset` does.

    Raises:
        BoxlessError: see `load_dataset`; or a split is named of a dataset.
    """
    if not isinstance(data, Dataset):
        return load_dataset(data, split, classes)
    if split is not None:
        raise BoxlessError(f"split={split} names a part of a path; here a dataset was given, which is one part already")
    return data if classes is None else data.with_classes(classes)


def split_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """The names `load_dataset` takes as `split` for this path, sorted; empty if the data is not split.

    Raises:
        BoxlessError: nothing is there, the layout is not recognised, or the file that names the splits cannot be read.
    """
    return tuple(sorted(recognise(expand_user(path))[1].splits()))


def _remarks(dataset: Dataset) -> tuple[str, ...]:
    problems = Problems()
    present = {label for sample in dataset.samples for label in sample.tags}
    for label, name in enumerate(dataset.classes):
        if label not in present:
            problems.add("classes that no image is tagged with", name)
    report_names(dataset.classes, problems)
    return problems.lines()
