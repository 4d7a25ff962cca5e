"""The values that the stages hand to each other.

One convention holds everywhere: boxes are xyxy, float32, in pixels of the image as displayed (EXIF rotation
applied), origin top left, right and bottom exclusive. Formats convert at their own door (`datasets`, `exports`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Annotations:
    """Boxes of one image with their classes: true ones, or pseudo boxes, which training makes of tags.

    What datasets are loaded with is true. It serves evaluation, and training with `supervision=boxes` only: without it
    training is given `Dataset.tags_only`.

    Args:
        boxes: (N, 4) float32, xyxy pixels, right and bottom exclusive.
        labels: (N,) int64, indices into the dataset's classes.
        ignore: (N,) bool. Of true boxes VOC's flag: neither a hit nor a miss in the metrics. Of pseudo boxes those
            that opinions differ on: they teach neither object nor background.
    """

    boxes: FloatArray
    labels: IntArray
    ignore: BoolArray


@dataclass(frozen=True)
class Sample:
    """One image and what is known of it.

    Args:
        id: unique within its dataset; for VOC the name without suffix.
        path: the image's file.
        tags: classes that are in the image, as indices into the dataset's classes.
        unsure: classes of which only difficult objects are in the image: neither positive nor negative, as in
            VOC's classification task.
        annotations: boxes, or None where there are none or training must not see them.
    """

    id: str
    path: Path
    tags: frozenset[int]
    unsure: frozenset[int] = frozenset()
    annotations: Annotations | None = None


@dataclass(frozen=True)
class Dataset:
    """Images with image-level tags, and boxes where they exist.

    Args:
        name: what to call it in tables and manifests.
        classes: class names; tags and labels index into them.
        samples: the images.
        warnings: what was wrong with the data and how it was taken, a line each, files named.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def has_boxes(self) -> bool:
        """Whether any image carries annotations."""
        return any(sample.annotations is not None for sample in self.samples)

    def tags_only(self) -> "Dataset":
        """The view that training from tags gets: the same images and tags, no annotation."""
        return replace(self, samples=tuple(replace(sample, annotations=None) for sample in self.samples))

    def image_labels(self) -> FloatArray:
        """Image-level targets: (images, classes) float32; 1 present, 0 absent, NaN unsure."""
        targets = np.zeros((len(self.samples), len(self.classes)), np.float32)
        for row, sample in zip(targets, self.samples, strict=True):
            row[list(sample.unsure)] = np.nan
            row[list(sample.tags)] = 1
        return targets

    def with_classes(self, names: Sequence[str], *, strict: bool = True) -> "Dataset":
        """Keep only these classes, in this order; images of none of them stay, as negatives.

        Args:
            names: class names.
            strict: whether a name the dataset does not have is an error; a run evaluated on a split that lacks one of
                its classes passes False.

        Raises:
            BoxlessError: a name is unknown (strict), given twice, or no name is known.
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
    annotations = sample.annotations
    if annotations is not None:
        keep = np.isin(annotations.labels, list(index))
        labels = np.array([index[int(label)] for label in annotations.labels[keep]], np.int64)
        annotations = Annotations(annotations.boxes[keep], labels, annotations.ignore[keep])
    return replace(
        sample,
        tags=frozenset(index[tag] for tag in sample.tags if tag in index),
        unsure=frozenset(index[tag] for tag in sample.unsure if tag in index),
        annotations=annotations,
    )


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best first.

    Args:
        boxes: (N, 4) float32, xyxy pixels, right and bottom exclusive.
        scores: (N,) float32, higher is surer; comparable within a class.
        labels: (N,) int64, indices into `classes`.
        classes: the detector's class names.
        size: width and height of the image in pixels.
        image_scores: (classes,) float32, how sure the detector is that each class is in the image at all.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    classes: tuple[str, ...]
    size: tuple[int, int]
    image_scores: FloatArray

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of every box."""
        return [self.classes[label] for label in self.labels]

    def above(self, threshold: float) -> "Detections":
        """Only the boxes that score at least `threshold`."""
        keep = self.scores >= threshold
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])


@dataclass(frozen=True)
class Heatmaps:
    """Where each class is in one image.

    Args:
        maps: (classes, h, w) float32, higher is likelier; the map spans the whole image. Of methods that score no
            boxes these are class maps, in the network's resolution; of all others the scores of the boxes over each
            cell, the greatest 1.
        classes: class names.
        size: width and height of the image in pixels.
    """

    maps: FloatArray
    classes: tuple[str, ...]
    size: tuple[int, int]
