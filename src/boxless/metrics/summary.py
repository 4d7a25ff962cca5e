"""The scores of `evaluate`: a registry of metrics, and all of them in one dictionary that can be written as JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.metrics.classification import classification_ap
from boxless.metrics.coco import coco_ap
from boxless.metrics.corloc import corloc
from boxless.metrics.pointing import TOLERANCE, pointing_ap
from boxless.metrics.voc import Convention, voc_ap
from boxless.registry import Registry
from boxless.structures import Annotations, Dataset, Detections, FloatArray, Sample
from boxless.wording import counted

Metric = Callable[
    [Sequence[Detections], FloatArray | None, Sequence[Sample], Sequence[str]],
    NDArray[np.float64],
]
"""A metric: (detections, points, samples, classes) -> (classes,) float64, NaN for a class where it is undefined.

The arguments are those of `evaluate_detections`; `with_boxes` selects the images whose boxes are known.
"""

METRICS: Registry[Metric] = Registry("metric")
CONVENTIONS: dict[str, str] = {}
"""By metric, how it is measured, in a sentence: its source and all that a comparison with other numbers needs."""


def metric(name: str, convention: str) -> Callable[[Metric], Metric]:
    """A decorator that adds a metric to the scores of `evaluate`; the command line and the report show it too.

    Args:
        name: its key in the scores.
        convention: the sentence that explains it, see `CONVENTIONS`.

    Raises:
        BoxlessError: the name is taken.
    """

    def add(function: Metric) -> Metric:
        METRICS.register(name)(function)
        CONVENTIONS[name] = convention
        return function

    return add


def with_boxes(
    detections: Sequence[Detections], samples: Sequence[Sample]
) -> tuple[list[Detections], list[Annotations]]:
    """The detections and the ground truth of those images whose boxes are known."""
    pairs = zip(detections, samples, strict=True)
    known = [(found, sample.annotations) for found, sample in pairs if sample.annotations is not None]
    return [found for found, _ in known], [annotations for _, annotations in known]


def evaluate_detections(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> dict[str, Any]:
    """Compute every metric of `METRICS` on images with ground truth.

    Metrics of boxes use the samples that have annotations (an empty `Annotations` says that there is no object, None
    that the objects are unknown), classification all.

    Args:
        detections: one per sample, in the same order.
        points: (samples, classes, 2) float32, x and y in pixels, see `pointing_ap`; None if there are no heatmaps.
        samples: the images.
        classes: class names, as the samples' tags and labels index them.

    Returns:
        By name in `METRICS` a number in [0, 1], the mean over the classes for which the metric is defined, or None
        where there is none;
        `classes`: by class name the same keys, `images` (images tagged with the class) and `objects` (ground-truth
        boxes without `ignore`; None where no sample has annotations);
        `images`: the number of samples;
        `conventions`: what each metric means, a sentence each.

    Raises:
        BoxlessError: detections, points or classes do not fit the samples, or a metric does not give one value per
            class.
    """
    check_fit(detections, points, samples, classes)
    values = {}
    for name, function in METRICS.items():
        values[name] = function(detections, points, samples, classes)
        if values[name].shape != (len(classes),):
            raise BoxlessError(f"metric '{name}' gives shape {values[name].shape} for {counted(len(classes), 'class')}")
    images = [sum(label in sample.tags for sample in samples) for label in range(len(classes))]
    objects = _object_counts(samples, len(classes))
    by_class = {
        name: {key: _or_none(row[label]) for key, row in values.items()}
        | {"images": images[label], "objects": objects[label]}
        for label, name in enumerate(classes)
    }
    means = {key: _mean(row) for key, row in values.items()}
    return means | {"classes": by_class, "images": len(samples), "conventions": dict(CONVENTIONS)}


def mean_name(scores: Mapping[str, Any]) -> str:
    """What to call the means: `mean`, with the number of classes that they are over where it is not all of them.

    Args:
        scores: what `evaluate` gives, or has left in a run folder.
    """
    rows = scores["classes"].values()
    defined = {sum(row.get(key) is not None for row in rows) for key in CONVENTIONS} - {0}
    if defined <= {len(rows)}:
        return "mean"
    numbers = " to ".join(f"{number:,}" for number in dict.fromkeys((min(defined), max(defined))))
    return f"mean ({numbers} of {counted(len(rows), 'class')})"


def check_fit(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> None:
    """Check that detections, points (None: there are none) and classes fit the samples.

    Raises:
        BoxlessError: they do not.
    """
    if len(detections) != len(samples):
        raise BoxlessError(
            f"{counted(len(detections), 'detection')} for {counted(len(samples), 'image')}: give one an image, in order"
        )
    expected = (len(samples), len(classes), 2)
    if points is not None and points.shape != expected:
        raise BoxlessError(f"points have shape {points.shape}: (images, classes, 2) is {expected} here")
    for found, sample in zip(detections, samples, strict=True):
        if found.classes != tuple(classes):
            raise BoxlessError(
                f"{sample.path}: detected with classes {', '.join(found.classes)}, but the ground truth has "
                f"{', '.join(classes)}; bring the dataset to the detector's classes with `with_classes`"
            )


@metric(
    "mAP_11point",
    "VOC 2007: AP at IoU 0.5 as the mean of the best precision at recall 0, 0.1 ... 1 or beyond; "
    "difficult boxes are neither hit nor miss; mean over the classes that have boxes.",
)
def _map_11point(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> NDArray[np.float64]:
    return _voc_aps(detections, samples, classes, "11point")


@metric(
    "mAP_area",
    "VOC 2010 on: AP at IoU 0.5 as the area under the enveloped precision-recall curve; "
    "difficult boxes are neither hit nor miss; mean over the classes that have boxes.",
)
def _map_area(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> NDArray[np.float64]:
    return _voc_aps(detections, samples, classes, "area")


@metric(
    "mAP_50_95",
    "COCO (pycocotools): AP averaged over IoU 0.5, 0.55 ... 0.95 and 101 recall levels, at most 100 detections per "
    "image and class, objects of any size; difficult boxes count as crowds; mean over the classes that have boxes.",
)
def _map_50_95(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> NDArray[np.float64]:
    return coco_ap(*with_boxes(detections, samples), len(classes))


@metric(
    "CorLoc",
    "Deselaers et al. 2012: share of the images showing a class whose best box of it has IoU 0.5 or more "
    "with any of its boxes, difficult or not; images where all are difficult are left out; mean over classes.",
)
def _corloc(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> NDArray[np.float64]:
    return corloc(*with_boxes(detections, samples), len(classes))


@metric(
    "classification_mAP",
    "VOC 2010 on: area under the enveloped precision-recall curve of the images ranked by "
    "class score; images where all objects of a class are difficult are left out for it; mean over classes.",
)
def _classification_map(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> NDArray[np.float64]:
    return classification_ap(
        _image_scores(detections, len(classes)), Dataset("", tuple(classes), tuple(samples)).image_labels()
    )


@metric(
    "pointing_mAP",
    f"Oquab et al. 2015: one point per image and class, correct inside a box grown by {TOLERANCE} px; "
    "area under the enveloped precision-recall curve of the images ranked by class score; mean over classes.",
)
def _pointing_map(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> NDArray[np.float64]:
    if points is None:
        return np.full(len(classes), np.nan)
    found, annotations = with_boxes(detections, samples)
    known = np.array([sample.annotations is not None for sample in samples], np.bool_)
    return pointing_ap(points[known], _image_scores(found, len(classes)), annotations)


def _voc_aps(
    detections: Sequence[Detections], samples: Sequence[Sample], classes: Sequence[str], convention: Convention
) -> NDArray[np.float64]:
    known = with_boxes(detections, samples)
    return np.array([voc_ap(*known, label)[convention] for label in range(len(classes))])


def _image_scores(detections: Sequence[Detections], classes: int) -> FloatArray:
    return np.array([found.image_scores for found in detections], np.float32).reshape(len(detections), classes)


def _object_counts(samples: Sequence[Sample], classes: int) -> list[int] | list[None]:
    ground_truth = [sample.annotations for sample in samples if sample.annotations is not None]
    if not ground_truth:
        return [None] * classes
    labels = np.concatenate([annotations.labels[~annotations.ignore] for annotations in ground_truth])
    return [int(count) for count in np.bincount(labels, minlength=classes)]


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
