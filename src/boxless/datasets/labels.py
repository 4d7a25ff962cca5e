"""What a person said of images, laid over a dataset for training: tags, unknown tags, and boxes.

Read are the JSON Lines of `boxless review` (`label_lines` describes them), and COCO and Label Studio as they come
back from a review there. Every image of these is taken as reviewed: its boxes are all objects of their classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxless.datasets.coco import read_coco
from boxless.datasets.coco_files import is_coco
from boxless.datasets.common import Object, boxed_sample, counted
from boxless.datasets.label_lines import ImageLabels, read_labels
from boxless.datasets.label_studio import holds_tasks, read_label_studio, read_tasks
from boxless.datasets.lookup import ImageIndex
from boxless.datasets.problems import Problems
from boxless.datasets.sizes import AnnotatedImage, boxed_samples
from boxless.errors import BoxlessError, ImageError
from boxless.files import expand_user
from boxless.images import image_size
from boxless.structures import Annotations, Dataset, GivenBoxes, Sample

_MISSING = "images of the labels that are not among those to train on, left out"


class Said(NamedTuple):
    """What a person said of one image.

    Args:
        tags: index of a class -> True present, False absent, None unknown; the other classes stay as in the data.
        boxes: given for training.
    """

    tags: Mapping[int, bool | None]
    boxes: GivenBoxes


def with_labels(dataset: Dataset, labels: str | PathLike[str], data: Path | None = None) -> Dataset:
    """Lay what a person said of images over a dataset.

    It overrides the tags of the image; a right box says that its class is present. Images and classes that the dataset
    does not have are left out, and counted.

    Args:
        dataset: the images with their tags.
        labels: the file; of JSON Lines a later line for an image replaces an earlier one whole.
        data: where the dataset was loaded from: names of images are relative to it, if it is a file to its folder; None
            is the current folder. A name that fits nothing there may be the end of the path of one image.

    Returns:
        The images with `Sample.given`; warnings and summary of the labels follow those of the dataset.

    Raises:
        BoxlessError: the file cannot be read, is none of these, or says nothing of the images and classes.
    """
    file, problems = expand_user(labels), Problems()
    root = Path() if data is None else data if data.is_dir() else data.parent
    said = _read(file, dataset, ImageIndex((sample.path for sample in dataset.samples), root), problems)
    right, wrong = (sum(len(part.labels) for part in parts) for parts in _parts(said))
    if not wrong and not any(own.tags for own in said.values()):
        reasons = "".join(f"\n  {line}" for line in problems.lines())
        raise BoxlessError(f"{file}: says nothing of the images and classes of {dataset.name}{reasons}")
    summary = f"labels of {counted(len(said), 'image')} with {right:,} right and {wrong:,} wrong boxes"
    return replace(
        dataset,
        samples=tuple(_merged(one, said[one.path]) if one.path in said else one for one in dataset.samples),
        warnings=(*dataset.warnings, *problems.lines()),
        summary="; ".join(filter(None, (dataset.summary, summary))),
    )


def _parts(said: Mapping[Path, Said]) -> tuple[list[Annotations], list[Annotations]]:
    return [own.boxes.right for own in said.values()], [own.boxes.wrong for own in said.values()]


def _merged(sample: Sample, said: Said) -> Sample:
    by_answer = {answer: {name for name, own in said.tags.items() if own is answer} for answer in (True, False, None)}
    return replace(
        sample,
        tags=(sample.tags | by_answer[True]) - by_answer[False] - by_answer[None],
        unsure=(sample.unsure | by_answer[None]) - by_answer[True] - by_answer[False],
        given=said.boxes if len(said.boxes.right.labels) or len(said.boxes.wrong.labels) else None,
    )


def _read(file: Path, dataset: Dataset, index: ImageIndex, problems: Problems) -> dict[Path, Said]:
    """What the file says of the images that are known, by their paths.

    Raises:
        BoxlessError: it cannot be read, or is none of these.
    """
    if file.suffix.lower() == ".jsonl":
        return _of_lines(read_labels(file), dataset.classes, index, problems)
    if not file.exists():
        raise BoxlessError(f"{file}: there is no such file")
    if file.is_file() and is_coco(file):
        return _of_review(read_coco(file, index, problems, _MISSING)[0], dataset, problems)
    if file.is_file() and holds_tasks(file):
        tasks = read_tasks(file)
        images = read_label_studio(tasks, file, index, problems, _MISSING, predictions=False)
        return _of_review(images, dataset, problems)
    raise BoxlessError(f"{file}: no labels: give the .jsonl of boxless review, a COCO .json or one of Label Studio")


def _of_lines(
    lines: Mapping[str, ImageLabels], classes: Sequence[str], index: ImageIndex, problems: Problems
) -> dict[Path, Said]:
    said = {}
    for name, own in lines.items():
        path = index.find(name, problems)
        if path is None:
            problems.add_unmatched(_MISSING, name)
            continue
        _report_classes(own.classes(), classes, problems)
        if own.counts or own.points:
            problems.add("images with counts or points, which training does not use", name)
        right, wrong = (
            [Object(box.name, box.xyxy) for box in own.boxes if box.state == state and box.name in classes]
            for state in ("right", "wrong")
        )
        size = _size(path)
        boxes, rejected = (
            _annotations(boxed_sample(name, path, kind, classes, size, problems)) for kind in (right, wrong)
        )
        present = dict.fromkeys((item.name for item in right), True)
        tags = {classes.index(one): answer for one, answer in {**own.tags, **present}.items() if one in classes}
        complete = _unharmed(right, boxes, classes) & {classes.index(one) for one in own.complete if one in classes}
        said[path] = Said(tags, GivenBoxes(boxes, rejected, complete))
    return said


def _of_review(images: Sequence[AnnotatedImage], dataset: Dataset, problems: Problems) -> dict[Path, Said]:
    """What COCO or Label Studio say: there are no wrong boxes, and no class is said to be absent."""
    classes, said = dataset.classes, {}
    tags = {sample.path: sample.tags for sample in dataset.samples}
    known = [
        image._replace(objects=[item for item in image.objects if item.name in classes and item.has_box])
        for image in images
    ]
    for image, own, sample in zip(images, known, boxed_samples(known, classes, problems), strict=True):
        _report_classes({item.name for item in image.objects}, classes, problems)
        found = _annotations(sample)
        kept = ~found.ignore
        right = Annotations(found.boxes[kept], found.labels[kept], found.ignore[kept])
        present = {classes.index(item.name) for item in image.objects if item.name in classes}
        for label in tags[image.path] - present:
            problems.add("tags of reviewed images without a box of their class in the labels, kept", classes[label])
        none = _annotations(replace(sample, annotations=None))
        given = GivenBoxes(right, none, _unharmed(own.objects, right, classes))
        said[image.path] = Said(dict.fromkeys(present, True), given)
    return said


def _unharmed(objects: Sequence[Object], boxes: Annotations, classes: Sequence[str]) -> frozenset[int]:
    """The classes of which no object has lost its box, as one without numbers does, or a crowd."""
    counts = Counter(classes.index(item.name) for item in objects)
    return frozenset(label for label, number in counts.items() if number == (boxes.labels == label).sum())


def _annotations(sample: Sample) -> Annotations:
    """The boxes of a sample; none where it has no annotations."""
    none = Annotations(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    return none if sample.annotations is None else sample.annotations


def _report_classes(found: set[str], classes: Sequence[str], problems: Problems) -> None:
    for name in sorted(found - set(classes)):
        problems.add("classes of the labels that are not among those to train on, left out", name)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except ImageError:  # Whoever decodes the image reports it.
        return None
