"""All metrics of one evaluation in one dictionary, ready for JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.metrics.classification import classification_ap
from boxless.metrics.corloc import corloc
from boxless.metrics.pointing import TOLERANCE, pointing_ap
from boxless.metrics.voc import voc_ap
from boxless.structures import Dataset, Detections, FloatArray, Sample

CONVENTIONS = {
    "mAP_11point": "VOC 2007: AP at IoU 0.5 as the mean of the best precision at recall 0, 0.1 ... 1 or beyond; "
    "difficult boxes are neither hit nor miss; mean over the classes that have boxes.",
    "mAP_area": "VOC 2010 on: AP at IoU 0.5 as the area under the enveloped precision-recall curve; "
    "difficult boxes are neither hit nor miss; mean over the classes that have boxes.",
    "CorLoc": "Deselaers et al. 2012: share of the images showing a class whose best box of it has IoU 0.5 or more "
    "with any of its boxes, difficult or not; images where all are difficult are left out; mean over classes.",
    "classification_mAP": "VOC 2010 on: area under the enveloped precision-recall curve of the images ranked by "
    "class score; images where all objects of a class are difficult are left out for it; mean over classes.",
    "pointing_mAP": f"Oquab et al. 2015: one point per image and class, right inside a box grown by {TOLERANCE} px; "
    "area under the enveloped precision-recall curve of the images ranked by class score; mean over classes.",
}


def evaluate_detections(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> dict[str, Any]:
    """Measure a detector on images whose ground truth is known.

    Metrics that need boxes are taken over the samples that have annotations (an empty `Annotations` says that nothing
    is there, None that nobody knows), classification over all.

    Args:
        detections: what was found, one per sample and in the same order.
        points: (samples, classes, 2) float32, x and y in pixels, see `pointing_ap`; None if there are no maps.
        samples: the images.
        classes: class names, as the samples' tags and labels index them.

    Returns:
        `mAP_11point`, `mAP_area`, `CorLoc`, `classification_mAP`, `pointing_mAP`: in [0, 1], the mean over the classes
        for which it is defined, or None where there is none;
        `classes`: by class name the same keys, `images` (images tagged with the class) and `objects` (true boxes not
        difficult; None where no sample has annotations);
        `images`: number of samples;
        `conventions`: what each metric means, a sentence each.

    Raises:
        BoxlessError: detections, points or classes do not fit the samples.
    """
    check_fit(detections, points, samples, classes)
    metrics = _metrics_by_class(detections, points, samples, classes)
    images = [sum(label in sample.tags for sample in samples) for label in range(len(classes))]
    objects = _object_counts(samples, len(classes))
    by_class = {
        name: {key: _or_none(values[label]) for key, values in metrics.items()}
        | {"images": images[label], "objects": objects[label]}
        for label, name in enumerate(classes)
    }
    means = {key: _mean(values) for key, values in metrics.items()}
    return means | {"classes": by_class, "images": len(samples), "conventions": dict(CONVENTIONS)}


def upper_bound(result: dict[str, Any]) -> str:
    """What to say beside the numbers of a ceiling, by the `supervision` that `evaluate` and `diagnose` put there."""
    return ", by a detector trained with true boxes" if result["supervision"] == "boxes" else ""


def check_fit(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> None:
    """See that detections, points (None: there are none) and classes fit the samples.

    Raises:
        BoxlessError: they do not.
    """
    if len(detections) != len(samples):
        raise BoxlessError(f"{len(detections)} detections for {len(samples)} images: give one per image, in order")
    expected = (len(samples), len(classes), 2)
    if points is not None and points.shape != expected:
        raise BoxlessError(f"points have shape {points.shape}: (images, classes, 2) is {expected} here")
    for found, sample in zip(detections, samples, strict=True):
        if found.classes != tuple(classes):
            raise BoxlessError(
                f"{sample.path}: detected with classes {', '.join(found.classes)}, but the ground truth has "
                f"{', '.join(classes)}; bring the dataset to the detector's classes with `with_classes`"
            )


def _metrics_by_class(
    detections: Sequence[Detections], points: FloatArray | None, samples: Sequence[Sample], classes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Every metric as (classes,) float64, NaN where it is not defined."""
    shape = len(samples), len(classes)
    targets = Dataset("", tuple(classes), tuple(samples)).image_labels()
    scores = np.array([found.image_scores for found in detections], np.float32).reshape(shape)
    known = [row for row, sample in enumerate(samples) if sample.annotations is not None]
    ground_truth = [sample.annotations for sample in samples if sample.annotations is not None]
    found = [detections[row] for row in known]
    aps = [voc_ap(found, ground_truth, label) for label in range(len(classes))]
    return {
        "mAP_11point": np.array([ap["11point"] for ap in aps]),
        "mAP_area": np.array([ap["area"] for ap in aps]),
        "CorLoc": corloc(found, ground_truth, len(classes)),
        "classification_mAP": classification_ap(scores, targets),
        "pointing_mAP": np.full(len(classes), np.nan)
        if points is None
        else pointing_ap(points[known], scores[known], ground_truth),
    }


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
