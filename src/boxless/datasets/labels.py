"""Reviewed labels of images, laid over a dataset for training: tags, unknown tags, boxes, counts and points.

Read are the JSON Lines of `boxless review` (`label_lines` describes them), and what comes back from a review in another
tool (`reviewed`). Every image of that is taken as reviewed: its boxes are all objects of their classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from boxless.datasets.common import Object, boxed_sample, parse_count, points_inside
from boxless.datasets.label_lines import ImageLabels, read_labels
from boxless.datasets.lookup import ImageIndex
from boxless.datasets.problems import Problems
from boxless.datasets.reviewed import read_reviewed
from boxless.datasets.sizes import AnnotatedImage, boxed_samples
from boxless.errors import BoxlessError, ImageError
from boxless.files import expand_user
from boxless.image_files import data_folder
from boxless.images import image_size
from boxless.structures import Annotations, Count, Dataset, GivenBoxes, Point, Sample
from boxless.wording import counted

_MISSING = "images of the labels that are not among those to train on, left out"


class ImageReview(NamedTuple):
    """Reviewed labels of one image.

    Args:
        tags: index of a class -> True present, False absent, None unknown; the other classes stay as in the data.
        boxes: given for training.
        counts: index of a class -> how many of its objects are in the image.
        points: on objects.
    """

    tags: Mapping[int, bool | None]
    boxes: GivenBoxes
    counts: Mapping[int, Count]
    points: Sequence[Point]


def with_labels(dataset: Dataset, labels: str | PathLike[str], data: Path | None = None) -> Dataset:
    """Lay reviewed labels of images over a dataset.

    It overrides the tags of the image; a right box, a point and a count say that their class is present, a count of 0
    that it is absent. Images and classes that the dataset does not have are left out, and counted.

    Args:
        dataset: the images with their tags.
        labels: the JSON Lines, in which a later line for an image replaces an earlier one whole; or a file or folder
            that `read_reviewed` takes.
        data: where the dataset was loaded from: names of images are relative to it, if it is a file to its folder; None
            is the current folder. A name that fits nothing there may be the end of the path of one image.

    Returns:
        The images with `Sample.given`, counts and points; warnings and summary of the labels follow those of the
        dataset.

    Raises:
        BoxlessError: the file cannot be read, is none of these, says nothing of the images and classes, or more than
            half of its images are not in the dataset.
    """
    file, problems = expand_user(labels), Problems()
    root = Path() if data is None else data_folder(data)
    reviews = _read(file, dataset, ImageIndex((sample.path for sample in dataset.samples), root), problems)
    if not any(own.tags or len(own.boxes.wrong.labels) for own in reviews.values()):
        reasons = "".join(f"\n  {line}" for line in problems.lines())
        raise BoxlessError(f"{file}: says nothing of the images and classes of {dataset.name}{reasons}")
    summary = _summary(reviews)
    return replace(
        dataset,
        samples=tuple(_merged(one, reviews[one.path]) if one.path in reviews else one for one in dataset.samples),
        warnings=(*dataset.warnings, *problems.lines()),
        summary="; ".join(filter(None, (dataset.summary, summary))),
    )


def _summary(reviews: Mapping[Path, ImageReview]) -> str:
    right = sum(len(own.boxes.right.labels) for own in reviews.values())
    wrong = sum(len(own.boxes.wrong.labels) for own in reviews.values())
    text = f"labels of {counted(len(reviews), 'image')} with {right:,} right and {counted(wrong, 'wrong box')}"
    more = {
        "count": sum(len(own.counts) for own in reviews.values()),
        "point": sum(len(own.points) for own in reviews.values()),
    }
    return ", ".join([text, *(counted(number, what) for what, number in more.items() if number)])


def _merged(sample: Sample, review: ImageReview) -> Sample:
    by_answer = {answer: {name for name, own in review.tags.items() if own is answer} for answer in (True, False, None)}
    tags = (sample.tags | by_answer[True]) - by_answer[False] - by_answer[None]
    pointed = {point.label for point in review.points}
    points = [*(point for point in sample.points if point.label not in pointed), *review.points]
    return replace(
        sample,
        tags=tags,
        unsure=(sample.unsure | by_answer[None]) - by_answer[True] - by_answer[False],
        given=review.boxes if len(review.boxes.right.labels) or len(review.boxes.wrong.labels) else None,
        counts={label: own for label, own in {**sample.counts, **review.counts}.items() if label in tags},
        points=tuple(point for point in points if point.label in tags),
    )


def _read(file: Path, dataset: Dataset, index: ImageIndex, problems: Problems) -> dict[Path, ImageReview]:
    """Path -> reviewed labels, of the images that are known.

    Raises:
        BoxlessError: it cannot be read, or is none of these.
    """
    if file.suffix.lower() == ".jsonl":
        lines = read_labels(file)
        reviews, number = _of_lines(lines, dataset.classes, index, problems), len(lines)
    else:
        images, number = read_reviewed(file, index, problems, _MISSING)
        reviews = _of_review(images, dataset, problems)
    problems.refuse_most(_MISSING, number, file, "give the labels of these images, or the data that they are of")
    return reviews


def _of_lines(
    lines: Mapping[str, ImageLabels], classes: Sequence[str], index: ImageIndex, problems: Problems
) -> dict[Path, ImageReview]:
    reviews: dict[Path, ImageReview] = {}
    for name, own in lines.items():
        path = index.find(name, problems)
        if path is None:
            problems.add_unmatched(_MISSING, name)
            continue
        if path in reviews:
            problems.add("images whose name is spelled in several ways, of which the last line is taken", name)
        _report_classes(own.classes(), classes, problems)
        reviews[path] = _review_of_line(own, name, path, classes, problems)
    return reviews


def _review_of_line(own: ImageLabels, name: str, path: Path, classes: Sequence[str], problems: Problems) -> ImageReview:
    """The labels of an image in the classes of a dataset; those of others are left out."""
    index = {one: number for number, one in enumerate(classes)}
    right, wrong = (
        [Object(box.name, box.xyxy) for box in own.boxes if box.state == state and box.name in index]
        for state in ("right", "wrong")
    )
    size = _size(path)
    boxes, rejected = (_annotations(boxed_sample(name, path, kind, classes, size, problems)) for kind in (right, wrong))
    counts = {one: found for one, number in own.counts.items() if (found := parse_count(str(number))) is not None}
    answers = _answers(own, counts, {item.name for item in right})
    for absent in sorted({point.name for point in own.points if not answers[point.name]}):
        problems.add("points of a class that is absent, left out", f"{name} {absent}")
    present = [point for point in own.points if point.name in index and answers[point.name]]
    return ImageReview(
        {index[one]: answer for one, answer in answers.items() if one in index},
        GivenBoxes(
            boxes, rejected, _unharmed(right, boxes, classes) & {index[one] for one in own.complete if one in index}
        ),
        _fitting({index[one]: count for one, count in counts.items() if one in index}, boxes, name, problems),
        points_inside([Point(index[point.name], *point.xy) for point in present], size, name, problems),
    )


def _answers(own: ImageLabels, counts: Mapping[str, Count], boxed: set[str]) -> dict[str, bool | None]:
    """Whether classes are there, by tags, counts, right boxes and points; a point of an absent class says nothing."""
    answers = dict(own.tags)
    for name, count in counts.items():
        if count.number or not count.or_more:
            answers[name] = count.number > 0
    answers |= dict.fromkeys(boxed, True)
    return answers | {point.name: True for point in own.points if answers.get(point.name) is not False}


def _fitting(counts: Mapping[int, Count], right: Annotations, name: str, problems: Problems) -> dict[int, Count]:
    """The counts that the right boxes do not contradict."""
    kept = {}
    for label, count in counts.items():
        if not count.or_more and count.number < (right.labels == label).sum():
            problems.add("images with a count that is lower than the number of right boxes, not used", name)
        elif count.number:
            kept[label] = count
    return kept


def _of_review(images: Sequence[AnnotatedImage], dataset: Dataset, problems: Problems) -> dict[Path, ImageReview]:
    """What other tools say: there are no wrong boxes, and no class is said to be absent."""
    classes, reviews = dataset.classes, {}
    tags = {sample.path: sample.tags for sample in dataset.samples}
    known = [image._replace(objects=[item for item in image.objects if item.name in classes]) for image in images]
    boxed = [image._replace(objects=[item for item in image.objects if item.has_box]) for image in known]
    others = [image._replace(objects=[item for item in image.objects if not item.has_box]) for image in known]
    samples = boxed_samples(boxed, classes, problems), boxed_samples(others, classes, Problems())
    for image, own, sample, other in zip(images, boxed, *samples, strict=True):
        _report_classes({item.name for item in image.objects}, classes, problems)
        if len(other.points) < sum(item.is_point for item in image.objects if item.name in classes):
            problems.add("images with points outside of them, left out (the tags stay)", image.id)
        found = _annotations(sample)
        right = found[~found.ignore]
        present = sample.tags | sample.unsure | other.tags
        for label in tags[image.path] - present - other.unsure:
            problems.add("tags of reviewed images without a box of their class in the labels, kept", classes[label])
        given = GivenBoxes(right, Annotations.empty(), _unharmed(own.objects, right, classes))
        answers: dict[int, bool | None] = {label: label in present or None for label in present | other.unsure}
        reviews[image.path] = ImageReview(
            answers, given, _fitting(other.counts, right, image.id, problems), other.points
        )
    return reviews


def _unharmed(objects: Sequence[Object], boxes: Annotations, classes: Sequence[str]) -> frozenset[int]:
    """The classes of which no object has lost its box, as one without numbers does, or a crowd."""
    counts = Counter(classes.index(item.name) for item in objects)
    return frozenset(label for label, number in counts.items() if number == (boxes.labels == label).sum())


def _annotations(sample: Sample) -> Annotations:
    """The boxes of a sample; none where it has no annotations."""
    return Annotations.empty() if sample.annotations is None else sample.annotations


def _report_classes(found: set[str], classes: Sequence[str], problems: Problems) -> None:
    for name in sorted(found - set(classes)):
        problems.add("classes of the labels that are not among those to train on, left out", name)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except ImageError:  # Reported when the image is decoded.
        return None
