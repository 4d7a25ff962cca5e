"""The values that the stages hand to each other.

One convention holds everywhere: boxes are xyxy, float32, in pixels of the image as displayed (EXIF rotation
applied), origin top left, right and bottom exclusive. `datasets` and `export` convert from and to other conventions.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError

if TYPE_CHECKING:
    import supervision

    from boxless.inputs import ImageInput

SHOWN_IMAGE_SCORE, SHOWN_SHARE = 0.5, 0.5
"""Worth showing are classes of at least this image score, and their boxes that score this share of the best."""

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Annotations:
    """Boxes of one image with their classes: ground truth, or pseudo labels, which training derives from tags.

    Datasets are loaded with their ground truth. Evaluation uses it; training does so with `supervision=boxes` only and
    is given `Dataset.without_annotations` otherwise.

    Args:
        boxes: (N, 4) float32, xyxy pixels, right and bottom exclusive.
        labels: (N,) int64, indices into the dataset's classes.
        ignore: (N,) bool. In ground truth VOC's `difficult` or COCO's `iscrowd`: neither a hit nor a miss in the
            metrics. In pseudo labels the boxes without consensus: training uses them neither as object nor as
            background.

    Arrays of other types are converted.

    Raises:
        BoxlessError: the arrays differ in length.
    """

    boxes: FloatArray
    labels: IntArray
    ignore: BoolArray

    def __post_init__(self) -> None:
        _check_shapes("Annotations", self.boxes, labels=self.labels, ignore=self.ignore)
        # Losses take no others.
        _convert(self, boxes=np.float32, labels=np.int64, ignore=np.bool_)

    @classmethod
    def of(cls, boxes: FloatArray, labels: IntArray) -> "Annotations":
        """Boxes (N, 4) of these labels (N,), none of them ignored."""
        return cls(boxes, labels, np.zeros(len(labels), np.bool_))

    @classmethod
    def empty(cls) -> "Annotations":
        """No boxes."""
        return cls.of(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))

    @classmethod
    def merge(cls, parts: Sequence["Annotations"]) -> "Annotations":
        """The boxes of all parts, one part after the other."""
        every = [cls.empty(), *parts]
        return cls(
            np.concatenate([part.boxes for part in every]),
            np.concatenate([part.labels for part in every]),
            np.concatenate([part.ignore for part in every]),
        )

    def __getitem__(self, index: int | slice | Sequence[int] | IntArray | BoolArray) -> "Annotations":
        """Boxes by number, slice, numbers or mask (N,), as for `Detections`."""
        rows = _rows(index)
        return Annotations(self.boxes[rows], self.labels[rows], self.ignore[rows])

    def with_boxes(self, boxes: FloatArray, which: BoolArray) -> "Annotations":
        """The same with those of other boxes (N, 4) where `which` (N,) is set."""
        return replace(self, boxes=np.where(which[:, None], boxes, self.boxes))


def _rows(index: int | slice | Sequence[int] | IntArray | BoolArray) -> Any:
    """What NumPy takes as an index of rows, which stay rows for a single number."""
    # NumPy takes a tuple as an index of several axes.
    return list(index) if isinstance(index, tuple) else [index] if isinstance(index, int | np.integer) else index


@dataclass(frozen=True)
class GivenBoxes:
    """Reviewed boxes of one image; unlike `Annotations` training from tags reads it.

    Args:
        right: boxes of objects: ground truth that no pseudo label overrules.
        wrong: boxes that hold no object of their class.
        complete: classes of which every object in the image has one of the boxes in `right`.
    """

    right: Annotations
    wrong: Annotations
    complete: frozenset[int] = frozenset()

    @property
    def labels(self) -> frozenset[int]:
        """The classes with a right box."""
        return frozenset(self.right.labels.tolist())


class Count(NamedTuple):
    """How many objects of a class are in an image: `number`, or with `or_more` at least so many."""

    number: int
    or_more: bool = False


class Point(NamedTuple):
    """A point on an object: index of its class, and x and y in pixels of the image."""

    label: int
    x: float
    y: float


@dataclass(frozen=True)
class Sample:
    """One image with its tags and, where they are known, its boxes.

    Args:
        id: unique within its dataset; for VOC the name without suffix.
        path: the image's file.
        tags: classes that are in the image, as indices into the dataset's classes.
        unsure: classes of which it is unknown whether they are in the image, or of which only difficult objects are, as
            in VOC's classification task: neither positive nor negative.
        annotations: boxes, or None where they are unknown or withheld from training.
        given: reviewed boxes for training (`datasets.labels`); None where nobody did.
        counts: index of a class that is in the image -> how many of its objects, where a person counted them.
        points: on objects, where a person gave them; a point of each object at most.
    """

    id: str
    path: Path
    tags: frozenset[int]
    unsure: frozenset[int] = frozenset()
    annotations: Annotations | None = None
    given: GivenBoxes | None = None
    counts: Mapping[int, Count] = field(default_factory=dict)
    points: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        # NumPy's integers, of which JSON knows nothing, are equal to these.
        for name in ("tags", "unsure"):
            object.__setattr__(self, name, frozenset(map(int, getattr(self, name))))
        object.__setattr__(self, "counts", {int(label): count for label, count in self.counts.items()})

    @property
    def complete(self) -> frozenset[int]:
        """The classes of which every object has a right box: a person said so, or gave as many as were counted."""
        if self.given is None:
            return frozenset()
        boxes = Counter(self.given.right.labels.tolist())
        counted = (label for label, own in self.counts.items() if not own.or_more and boxes[label] == own.number)
        return self.given.complete.union(counted)


@dataclass(frozen=True)
class Dataset:
    """Images with image-level tags, and boxes where they exist.

    Args:
        name: its name in tables and manifests.
        classes: class names; tags and labels index into them.
        samples: the images.
        warnings: problems found in the data and how loading resolved them, one line each, which names the file.
        summary: what loading understood, in one line: the layout, and the numbers of images, of classes and of what did
            not match; empty for a dataset that was not loaded from files.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    summary: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def has_boxes(self) -> bool:
        """Whether any image carries annotations."""
        return any(sample.annotations is not None for sample in self.samples)

    def without_annotations(self) -> "Dataset":
        """The same images, tags and given boxes without annotations, as training from tags gets them."""
        return replace(self, samples=tuple(replace(sample, annotations=None) for sample in self.samples))

    def tags_only(self) -> "Dataset":
        """The same images and tags without any box, count and point."""
        bare = (Sample(sample.id, sample.path, sample.tags, sample.unsure) for sample in self.samples)
        return replace(self, samples=tuple(bare))

    def image_labels(self) -> FloatArray:
        """The tags as vectors: (images, classes) float32; 1 present, 0 absent, NaN unknown."""
        labels = np.zeros((len(self.samples), len(self.classes)), np.float32)
        for row, sample in zip(labels, self.samples, strict=True):
            row[list(sample.unsure)] = np.nan
            row[list(sample.tags)] = 1
        return labels

    def with_classes(self, names: Sequence[str], *, strict: bool = True) -> "Dataset":
        """Keep only these classes, in this order; images without any of them stay, as negatives.

        Args:
            names: class names.
            strict: whether a name that the dataset does not have is an error; evaluation on a split that lacks one of
                the detector's classes passes False.

        Raises:
            BoxlessError: a name is unknown (with `strict`) or given twice, or all names are unknown.
        """
        unknown = [name for name in names if name not in self.classes]
        if len(set(names)) != len(names):
            raise BoxlessError(f"a class is named twice in {', '.join(names)}: name each once")
        if (unknown and strict) or len(unknown) == len(names):
            raise BoxlessError(
                f"{self.name} has no class {', '.join(map(repr, unknown))}; it has: {', '.join(self.classes)}"
            )
        index = {self.classes.index(name): new for new, name in enumerate(names) if name in self.classes}
        return replace(self, classes=tuple(names), samples=tuple(_reindexed(s, index) for s in self.samples))


def _reindexed(sample: Sample, index: dict[int, int]) -> Sample:
    def classes(labels: frozenset[int]) -> frozenset[int]:
        return frozenset(index[label] for label in labels if label in index)

    def boxes(own: Annotations) -> Annotations:
        kept = own[np.isin(own.labels, list(index))]
        return replace(kept, labels=np.array([index[int(label)] for label in kept.labels], np.int64))

    given = sample.given
    return replace(
        sample,
        tags=classes(sample.tags),
        unsure=classes(sample.unsure),
        annotations=None if sample.annotations is None else boxes(sample.annotations),
        given=None if given is None else GivenBoxes(boxes(given.right), boxes(given.wrong), classes(given.complete)),
        counts={index[label]: own for label, own in sample.counts.items() if label in index},
        points=tuple(point._replace(label=index[point.label]) for point in sample.points if point.label in index),
    )


class Detection(NamedTuple):
    """One box of `Detections`.

    Args:
        box: x1, y1, x2, y2 in pixels, right and bottom exclusive.
        score: higher is more certain.
        label: index into the detector's classes.
        name: the class name.
    """

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The boxes that a detector predicts for one image, best score first.

    `len`, indexing by an integer, a slice, a boolean mask or an array of integers (each gives `Detections`), and
    iteration (gives a `Detection` per box) work as for a NumPy array.

    >>> cats = detections[detections.labels == 0]  # doctest: +SKIP
    >>> for box, score, label, name in detections.confident():  # doctest: +SKIP
    ...     print(name, score, box)

    Args:
        boxes: (N, 4) float32, xyxy pixels, right and bottom exclusive.
        scores: (N,) float32, higher is more certain; comparable within a class, and where they are calibrated between
            classes too.
        labels: (N,) int64, indices into `classes`.
        classes: the detector's class names.
        size: width and height of the image in pixels.
        image_scores: (classes,) float32, the score of each class for the image as a whole.
        raw_scores: (N,) float32, the scores before calibration (`boxless.calibration`); None where there was none.

    Arrays of other types are converted.

    Raises:
        BoxlessError: the arrays differ in length, or a label is no whole number or no index of a class.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    classes: tuple[str, ...]
    size: tuple[int, int]
    image_scores: FloatArray
    raw_scores: FloatArray | None = None

    def __post_init__(self) -> None:
        raw = {} if self.raw_scores is None else {"raw_scores": self.raw_scores}
        _check_shapes("Detections", self.boxes, scores=self.scores, labels=self.labels, **raw)
        _check_array("Detections", "image_scores", self.image_scores)
        if self.image_scores.shape != (len(self.classes),):
            raise BoxlessError(
                f"Detections: image_scores has shape {self.image_scores.shape}; {len(self.classes)} classes need "
                f"({len(self.classes)},)"
            )
        floats = dict.fromkeys(("boxes", "scores", "image_scores", *raw), np.float32)
        _convert(self, labels=np.int64, **floats)
        if (wrong := self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]).size:
            raise BoxlessError(f"Detections: label {wrong[0]} is no index of {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common())
        return f"Detections({len(self)}{counts and ': '}{counts}; {self.size[0]}x{self.size[1]})"

    def __getitem__(self, index: int | slice | Sequence[int] | IntArray | BoolArray) -> "Detections":
        rows = _rows(index)
        raw = None if self.raw_scores is None else self.raw_scores[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], raw_scores=raw)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            yield Detection((x1, y1, x2, y2), score, label, self.classes[label])

    @property
    def names(self) -> list[str]:
        """The class name of every box."""
        return [self.classes[label] for label in self.labels]

    @property
    def ranking_scores(self) -> FloatArray:
        """What ranks the boxes of a class, (N,): the scores before calibration, which rounds many of them to 1."""
        return self.scores if self.raw_scores is None else self.raw_scores

    def above(self, threshold: float) -> "Detections":
        """The boxes whose score is `threshold` or higher.

        Raises:
            BoxlessError: the threshold is not a number.
        """
        if math.isnan(threshold):
            raise BoxlessError("threshold nan: give a score, such as 0.5; 0 gives all boxes")
        return self[self.scores >= threshold]

    def confident(self) -> "Detections":
        """The boxes worth showing to a person: those of `confident_mask`."""
        return self[self.confident_mask]

    @property
    def confident_mask(self) -> BoolArray:
        """Whether each box is worth showing to a person, (N,) bool.

        Shown are the classes that are likelier in the image than not, and of each the boxes that score, before
        calibration, at least `SHOWN_SHARE` as much as its best: most of the others are parts of an object or groups.
        A class is likelier than not if its best calibrated score, or without calibration its image score, is
        `SHOWN_IMAGE_SCORE` or more.
        """
        raw = self.ranking_scores
        best, certain = np.zeros((2, len(self.classes)), np.float32)
        np.maximum.at(best, self.labels, raw)
        np.maximum.at(certain, self.labels, self.scores)
        best[(self.image_scores if self.raw_scores is None else certain) < SHOWN_IMAGE_SCORE] = np.inf
        mask: BoolArray = raw >= best[self.labels] * np.float32(SHOWN_SHARE)
        return mask

    def plot(self, image: "ImageInput") -> NDArray[np.uint8]:
        """Draw the boxes over their image, see `boxless.visualize.draw_boxes`.

        Args:
            image: a path, an RGB array (h, w, 3) uint8, a Pillow image, a tensor (3, h, w) or an open file, see
                `boxless.inputs.to_rgb`; it is not changed.

        Returns:
            (h, w, 3) uint8, RGB.

        Raises:
            ImageError: the image cannot be read or is of another type.
            BoxlessError: its size is not that of the image which the boxes belong to.
        """
        # Importing Matplotlib takes a second.
        from boxless.inputs import to_rgb
        from boxless.visualize import draw_boxes

        pixels = to_rgb(image)
        height, width = pixels.shape[:2]
        if (width, height) != self.size:
            raise BoxlessError(
                f"the image is {width}x{height}, but the boxes are of one of {'x'.join(map(str, self.size))}"
            )
        return draw_boxes(pixels, self)

    def to_supervision(self) -> "supervision.Detections":
        """The same boxes for the `supervision` package, whose annotators, trackers and filters then apply.

        Returns:
            `supervision.Detections`; the class names stand in `data["class_name"]`.

        Raises:
            BoxlessError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise BoxlessError("supervision is not installed: pip install supervision") from None
        names: dict[str, Any] = {"class_name": np.array(self.names, np.str_)}
        return supervision.Detections(
            xyxy=self.boxes.copy(), confidence=self.scores.copy(), class_id=self.labels.copy(), data=names
        )


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """How likely each class is at each place of one image.

    Args:
        maps: (classes, h, w) float32, higher is likelier; the map spans the whole image. Methods without box scores
            give class activation maps in the network's resolution; all others give the scores of the boxes over each
            cell, scaled to a maximum of 1.
        classes: class names.
        size: width and height of the image in pixels.
    """

    maps: FloatArray
    classes: tuple[str, ...]
    size: tuple[int, int]


def _convert(record: Any, **types: type) -> None:
    """Give the arrays of a frozen dataclass these types; those that have them are not copied.

    Raises:
        BoxlessError: labels are not whole numbers.
    """
    for name, kind in types.items():
        array = getattr(record, name)
        converted = array.astype(kind, copy=False)
        if kind is np.int64 and (converted != array).any():
            raise BoxlessError(f"{type(record).__name__}: {name} are not whole numbers")
        object.__setattr__(record, name, converted)


def _check_shapes(kind: str, boxes: NDArray[Any], **values: NDArray[Any]) -> None:
    """Refuse arrays that do not give one value per box: `boxes` (N, 4), each of `values` (N,).

    Raises:
        BoxlessError: they do not; the message names the field and the shapes.
    """
    for name, array in {"boxes": boxes, **values}.items():
        _check_array(kind, name, array)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise BoxlessError(f"{kind}: boxes has shape {boxes.shape}, not (N, 4)")
    for name, array in values.items():
        if array.shape != (len(boxes),):
            raise BoxlessError(
                f"{kind}: {name} has shape {array.shape}; boxes of shape {boxes.shape} need ({len(boxes)},)"
            )


def _check_array(kind: str, name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise BoxlessError(f"{kind}: {name} is of type {type(array).__name__}, not a NumPy array")
