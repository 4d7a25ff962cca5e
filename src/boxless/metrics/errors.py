"""Kinds of errors: the outcome of the top-scored detections, and which objects they find."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.metrics.summary import check_fit, with_boxes
from boxless.np_box_ops import areas, coverage, iou
from boxless.structures import Annotations, BoolArray, Detections, FloatArray, Sample

Outcome = Literal["correct", "part", "group", "too_large", "poorly_placed", "duplicate", "other_class", "background"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

MIN_IOU = 0.5
"""The least IoU of a detection with the object it finds, as in VOC."""
MIN_OVERLAP = 0.1
"""The least IoU of a localisation error with its object (Hoiem et al. 2012); below it a detection is background."""
CONTAINED_AREA = 2 / 3
"""A box with this share of its area or more inside another counts as contained in it."""

BINS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "size": (("small", "medium", "large"), (32**2, 96**2)),
    "fraction": (("<1%", "1-4%", "4-16%", "16-64%", "64%+"), (0.01, 0.04, 0.16, 0.64)),
    "count": (("1", "2", "3-4", "5+"), (2, 3, 5)),
}
"""Bins of objects by a value: their names and the edges between them; an edge belongs to the bin above it."""
ORDER = ("first", "further")
"""The objects of a class in an image: one of them, and all further ones."""

CONVENTIONS = {
    "top_scored": "Hoiem et al. 2012: evaluated are the K best-scored detections of each class over all images that "
    "have annotations, K being the number of its objects that are not difficult; so methods whose scores have "
    "different units compare, and a class without objects has no detection evaluated.",
    "correct": "IoU of 0.5 or more with an object of the class that no better-scored detection has found; of several "
    "the one of highest IoU. A detection that is not correct, and whose highest IoU of 0.5 or more is with a difficult "
    "object, is left out, and the next best is evaluated in its place.",
    "duplicate": "Not correct, but IoU of 0.5 or more with an object of the class that is found already.",
    "group": "None of the above; two thirds or more of each of two or more objects of the class lie inside the box.",
    "part": "None of the above; two thirds or more of the box lie inside an object of the class, which is larger.",
    "too_large": "None of the above; two thirds or more of an object of the class, which is smaller, lie inside the "
    "box.",
    "poorly_placed": "None of the above; IoU of 0.1 or more with an object of the class (the localisation error of "
    "Hoiem et al. 2012).",
    "other_class": "None of the above; IoU of 0.1 or more with an object of another class of the detector, or two "
    "thirds or more of the box lie inside one.",
    "background": "None of the above; objects of classes that the detector does not know count as background.",
    "rates": "Share of the detections evaluated; over all classes that of the pooled detections, so frequent classes "
    "weigh more.",
    "recall": "Share of the objects that correct detections find; difficult objects are not counted and only decide "
    "the kind of an error. Over all classes the share of the pooled objects.",
    "size": "COCO's, by the area of the ground-truth box in pixels of the image: small below 32 x 32, large from "
    "96 x 96 on; recall_small is the recall of the small ones.",
    "fraction": "By the area of the ground-truth box as a share of the image's.",
    "count": "By the number of objects of the same class in the image, difficult ones not counted.",
    "order": "recall_first: share of the images showing a class in which at least one of its objects is found. "
    "recall_further: of the objects beyond the first of the same class in an image, the share found beyond the first.",
}


def diagnose_detections(
    detections: Sequence[Detections], samples: Sequence[Sample], classes: Sequence[str]
) -> dict[str, Any]:
    """Classify the errors of a detector on images with ground truth.

    Terms and thresholds follow Hoiem, Chodpathumwan, Dai, "Diagnosing Error in Object Detectors", ECCV 2012, and Bolya,
    Foley, Hays, Hoffman, "TIDE", ECCV 2020; their localisation error is split into the kinds that are typical of
    detectors trained from tags: part, group, too large.

    Args:
        detections: one per sample, in the same order.
        samples: the images; those whose annotations are None are left out.
        classes: class names, as the samples' labels index them.

    Returns:
        Over all classes:
        `objects`, `detections`, `found`: numbers of objects not difficult, of detections evaluated, of objects found;
        `outcomes`: name in `OUTCOMES` -> number of detections; and for each `<name>_rate` in [0, 1];
        `recall`, `recall_small`, `recall_first`, `recall_further`: in [0, 1];
        `recall_by`: `size`, `fraction`, `count`, `order` -> bin -> `objects`, `found` and `recall`;
        `classes`: by class name the same keys;
        `images`: number of images with annotations;
        `conventions`: what each of these means, a sentence or two each.
        Rates and recalls are None where their denominator is zero.

    Raises:
        BoxlessError: the detections do not fit the samples, or no sample has annotations.
    """
    check_fit(detections, None, samples, classes)
    found, ground_truth = with_boxes(detections, samples)
    if not found:
        raise BoxlessError("no image has boxes, and a diagnosis needs ground truth")
    tallies = [_tally(found, ground_truth, label) for label in range(len(classes))]
    return {
        **_row(sum(tallies, Counter())),
        "classes": {name: _row(tally) for name, tally in zip(classes, tallies, strict=True)},
        "images": len(found),
        "conventions": dict(CONVENTIONS),
    }


def detection_outcomes(
    detections: Sequence[Detections], annotations: Sequence[Annotations], label: int
) -> tuple[list[Outcome], list[BoolArray], list[tuple[int, int]]]:
    """The outcome of the top-scored detections of one class, and which objects they find; see `CONVENTIONS`.

    Detections are evaluated by falling score over all images, equal scores in the order given (image by image,
    within an image as in its `Detections`).

    Args:
        detections: one per image.
        annotations: ground truth, in the same order.
        label: the class, as both index it.

    Returns:
        The outcome of every detection evaluated, best score first; for every image (objects,) bool, the objects found
        (those of other classes and difficult ones never are); and of every detection evaluated the image and its row
        in that image's `Detections`.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    images, rows = _ranked(detections, label)
    objects = sum(int(_counted(ground_truth, label).sum()) for ground_truth in annotations)
    found = [
        np.zeros(len(ground_truth.labels), np.bool_) for _, ground_truth in zip(detections, annotations, strict=True)
    ]
    outcomes: list[Outcome] = []
    places: list[tuple[int, int]] = []
    for image, row in zip(images.tolist(), rows.tolist(), strict=True):
        if len(outcomes) == objects:
            break
        outcome = _outcome(detections[image].boxes[[row]], annotations[image], label, found[image])
        if outcome is not None:
            outcomes.append(outcome)
            places.append((image, row))
    return outcomes, found, places


def _ranked(detections: Sequence[Detections], label: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Image of every detection of a class and its row there, best score first."""
    # Without the empty first entries concatenation would fail where there is no image.
    images, rows, scores = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)], [np.zeros(0, np.float32)]
    for image, found in enumerate(detections):
        of_class = np.flatnonzero(found.labels == label)
        images.append(np.full(len(of_class), image))
        rows.append(of_class)
        scores.append(found.ranking_scores[of_class])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(images)[order], np.concatenate(rows)[order]


def _counted(ground_truth: Annotations, label: int) -> BoolArray:
    return np.asarray((ground_truth.labels == label) & ~ground_truth.ignore)


def _outcome(box: FloatArray, ground_truth: Annotations, label: int, found: BoolArray) -> Outcome | None:
    """The outcome of one box (1, 4), None if it is left out; an object that it finds is marked in `found`."""
    own, overlaps = ground_truth.labels == label, iou(box, ground_truth.boxes)[0]
    hits = own & (overlaps >= MIN_IOU)
    free = hits & ~ground_truth.ignore & ~found
    if free.any():
        found[np.where(free, overlaps, 0).argmax()] = True
        return "correct"
    if hits.any():
        return None if ground_truth.ignore[np.where(hits, overlaps, 0).argmax()] else "duplicate"
    # With an IoU below 0.5, a box with two thirds of its area inside another is the smaller one.
    within = coverage(box, ground_truth.boxes)[0] >= CONTAINED_AREA
    contains = own & (coverage(ground_truth.boxes, box)[:, 0] >= CONTAINED_AREA)
    overlapping = overlaps >= MIN_OVERLAP
    if contains.sum() > 1:
        return "group"
    if (own & within).any():
        return "part"
    if contains.any():
        return "too_large"
    if (own & overlapping).any():
        return "poorly_placed"
    # Objects of the own class have led to an outcome above.
    return "other_class" if (overlapping | within).any() else "background"


def _tally(detections: Sequence[Detections], annotations: Sequence[Annotations], label: int) -> Counter[Any]:
    """Counts of one class, which can be added to those of others.

    Keys are outcomes, and (kind, bin, "objects" or "found") with the kinds of `BINS` and "order".
    """
    outcomes, found, _ = detection_outcomes(detections, annotations, label)
    tally: Counter[Any] = Counter(outcomes)
    for predicted, ground_truth, hit in zip(detections, annotations, found, strict=True):
        counted = _counted(ground_truth, label)
        objects, hits = areas(ground_truth.boxes[counted]), hit[counted]
        if not len(objects):
            continue
        width, height = predicted.size
        values = {
            "size": objects,
            "fraction": objects / (width * height),
            "count": np.full(len(objects), len(objects)),
        }
        for kind, (names, edges) in BINS.items():
            bins = np.digitize(values[kind], edges)
            tally.update((kind, names[i], "objects") for i in bins)
            tally.update((kind, names[i], "found") for i in bins[hits])
        for what, number in (("objects", len(objects)), ("found", int(hits.sum()))):
            tally["order", "first", what] += min(number, 1)
            tally["order", "further", what] += max(number - 1, 0)
    return tally


def _row(tally: Counter[Any]) -> dict[str, Any]:
    """The counts as `diagnose_detections` gives them."""
    outcomes = {outcome: tally[outcome] for outcome in OUTCOMES}
    kinds = {kind: names for kind, (names, _) in BINS.items()} | {"order": ORDER}
    by = {
        kind: {name: _recall(tally[kind, name, "objects"], tally[kind, name, "found"]) for name in names}
        for kind, names in kinds.items()
    }
    evaluated = sum(outcomes.values())
    total = _recall(*(sum(row[what] for row in by["order"].values()) for what in ("objects", "found")))
    return {
        "objects": total["objects"],
        "detections": evaluated,
        "found": total["found"],
        **{f"{outcome}_rate": number / evaluated if evaluated else None for outcome, number in outcomes.items()},
        "recall": total["recall"],
        "recall_small": by["size"]["small"]["recall"],
        "recall_first": by["order"]["first"]["recall"],
        "recall_further": by["order"]["further"]["recall"],
        "outcomes": outcomes,
        "recall_by": by,
    }


def _recall(objects: int, found: int) -> dict[str, Any]:
    return {"objects": objects, "found": found, "recall": found / objects if objects else None}
