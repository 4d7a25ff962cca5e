"""Where a detector is right and wrong: what its confident detections are, and which objects they find."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.metrics.boxes import areas, coverage, iou
from boxless.metrics.summary import check_fit
from boxless.structures import Annotations, BoolArray, Detections, FloatArray, Sample

Outcome = Literal["correct", "part", "group", "too_large", "poorly_placed", "duplicate", "other_class", "background"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

FOUND = 0.5
"""The least IoU of a detection with the object it finds, as in VOC."""
TOUCHES = 0.1
"""The least IoU of a box that has to do with an object (Hoiem et al. 2012)."""
CONTAINED_AREA = 2 / 3
"""What lies in something with this share of its area or more counts as inside."""

BINS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "size": (("small", "medium", "large"), (32**2, 96**2)),
    "fraction": (("<1%", "1-4%", "4-16%", "16-64%", "64%+"), (0.01, 0.04, 0.16, 0.64)),
    "count": (("1", "2", "3-4", "5+"), (2, 3, 5)),
}
"""Objects are sorted by a value into named bins; an edge belongs to the bin above it."""
ORDER = ("first", "further")
"""The objects of a class in an image: one, and those beyond it."""

CONVENTIONS = {
    "confident": "Hoiem et al. 2012: judged are the K best-scored detections of each class over all images that have "
    "annotations, K being the number of its objects that are not difficult; so methods whose scores have different "
    "units compare, and a class without objects has no detection judged.",
    "correct": "IoU of 0.5 or more with an object of the class that no better-scored detection has found; of several "
    "the one of highest IoU. Where the highest IoU of 0.5 or more is with a difficult object instead, the detection is "
    "left out and the next best is judged in its place.",
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
    "rates": "Share of the detections judged; over all classes that of the pooled detections, so frequent classes "
    "weigh more.",
    "recall": "Share of the objects that correct detections find; difficult objects count nowhere but in what is wrong "
    "with a detection. Over all classes that of the pooled objects.",
    "size": "COCO's, by the area of the true box in pixels of the image: small below 32 x 32, large from "
    "96 x 96 on; recall_small is the recall of the small ones.",
    "fraction": "By the area of the true box as a share of the image's.",
    "count": "By how many objects of the same class are in the image, difficult ones not counted.",
    "order": "recall_first: share of the images showing a class in which one of its objects or more is found. "
    "recall_further: of the objects beyond one of the same class in an image, the share found beyond one.",
}


def diagnose_detections(
    detections: Sequence[Detections], samples: Sequence[Sample], classes: Sequence[str]
) -> dict[str, Any]:
    """Tell where a detector is right and wrong on images whose objects are known.

    Terms and thresholds follow Hoiem, Chodpathumwan, Dai, "Diagnosing Error in Object Detectors", ECCV 2012, and Bolya,
    Foley, Hays, Hoffman, "TIDE", ECCV 2020; their localisation error is told apart into what detectors learned from
    tags do: part, group, too large.

    Args:
        detections: what was found, one per sample and in the same order.
        samples: the images; those whose annotations are None are left out.
        classes: class names, as the samples' labels index them.

    Returns:
        Over all classes:
        `objects`, `detections`, `found`: numbers of objects not difficult, of detections judged, of objects found;
        `outcomes`: name in `OUTCOMES` -> number of detections; and for each `<name>_rate` in [0, 1];
        `recall`, `recall_small`, `recall_first`, `recall_further`: in [0, 1];
        `recall_by`: `size`, `fraction`, `count`, `order` -> bin -> `objects`, `found` and `recall`;
        `classes`: by class name the same keys;
        `images`: number of images with annotations;
        `conventions`: what each of it means, a sentence or two each.
        Rates and recalls are None where there is nothing to take a share of.

    Raises:
        BoxlessError: the detections do not fit the samples, or no sample has annotations.
    """
    check_fit(detections, None, samples, classes)
    known = [row for row, sample in enumerate(samples) if sample.annotations is not None]
    if not known:
        raise BoxlessError("no image has boxes: a diagnosis needs to know where the objects are")
    found = [detections[row] for row in known]
    ground_truth = [sample.annotations for sample in samples if sample.annotations is not None]
    tallies = [_tally(found, ground_truth, label) for label in range(len(classes))]
    return {
        **_row(sum(tallies, Counter())),
        "classes": {name: _row(tally) for name, tally in zip(classes, tallies, strict=True)},
        "images": len(known),
        "conventions": dict(CONVENTIONS),
    }


def judge(
    detections: Sequence[Detections], annotations: Sequence[Annotations], label: int
) -> tuple[list[Outcome], list[BoolArray], list[tuple[int, int]]]:
    """What the confident detections of one class are, and which objects they find; see `CONVENTIONS`.

    Detections are taken by falling score over all images, equal scores in the order given (image by image,
    within an image as in its `Detections`).

    Args:
        detections: what was found, one per image.
        annotations: the true boxes, in the same order.
        label: the class, as both index it.

    Returns:
        The outcome of every detection judged, best first; for every image (objects,) bool, the objects found (those
        of other classes and difficult ones never are); and of every detection judged the image and its row in that
        image's `Detections`.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    images, rows = _ranked(detections, label)
    wanted = sum(int(_counting(ground_truth, label).sum()) for ground_truth in annotations)
    found = [
        np.zeros(len(ground_truth.labels), np.bool_) for _, ground_truth in zip(detections, annotations, strict=True)
    ]
    outcomes: list[Outcome] = []
    places: list[tuple[int, int]] = []
    for image, row in zip(images.tolist(), rows.tolist(), strict=True):
        if len(outcomes) == wanted:
            break
        outcome = _outcome(detections[image].boxes[[row]], annotations[image], label, found[image])
        if outcome is not None:
            outcomes.append(outcome)
            places.append((image, row))
    return outcomes, found, places


def _ranked(detections: Sequence[Detections], label: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Image of every detection of a class and its row there, best first."""
    # The empty first entries let concatenation serve where there is no image at all.
    images, rows, scores = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)], [np.zeros(0, np.float32)]
    for image, found in enumerate(detections):
        of_class = np.flatnonzero(found.labels == label)
        images.append(np.full(len(of_class), image))
        rows.append(of_class)
        scores.append(found.scores[of_class])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(images)[order], np.concatenate(rows)[order]


def _counting(ground_truth: Annotations, label: int) -> BoolArray:
    return np.asarray((ground_truth.labels == label) & ~ground_truth.ignore)


def _outcome(box: FloatArray, ground_truth: Annotations, label: int, found: BoolArray) -> Outcome | None:
    """What one box (1, 4) is, None if it is left out; an object that it finds is marked in `found`."""
    own, overlaps = ground_truth.labels == label, iou(box, ground_truth.boxes)[0]
    hits = own & (overlaps >= FOUND)
    free = hits & ~ground_truth.ignore & ~found
    if free.any():
        found[np.where(free, overlaps, 0).argmax()] = True
        return "correct"
    if hits.any():
        return None if ground_truth.ignore[np.where(hits, overlaps, 0).argmax()] else "duplicate"
    # With an IoU below 0.5, what lies by two thirds inside another box is smaller than it.
    within = coverage(box, ground_truth.boxes)[0] >= CONTAINED_AREA
    held = own & (coverage(ground_truth.boxes, box)[:, 0] >= CONTAINED_AREA)
    touching = overlaps >= TOUCHES
    if held.sum() > 1:
        return "group"
    if (own & within).any():
        return "part"
    if held.any():
        return "too_large"
    if (own & touching).any():
        return "poorly_placed"
    # Of the own class nothing is left that is touched or around the box.
    return "other_class" if (touching | within).any() else "background"


def _tally(detections: Sequence[Detections], annotations: Sequence[Annotations], label: int) -> Counter[Any]:
    """Numbers of one class, to be added to those of others.

    Keys are outcomes, and (kind, bin, "objects" or "found") with the kinds of `BINS` and "order".
    """
    outcomes, found, _ = judge(detections, annotations, label)
    tally: Counter[Any] = Counter(outcomes)
    for detected, ground_truth, taken in zip(detections, annotations, found, strict=True):
        counting = _counting(ground_truth, label)
        objects, hits = areas(ground_truth.boxes[counting]), taken[counting]
        if not len(objects):
            continue
        width, height = detected.size
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
    """The numbers of a tally as `diagnose_detections` gives them."""
    outcomes = {outcome: tally[outcome] for outcome in OUTCOMES}
    kinds = {kind: names for kind, (names, _) in BINS.items()} | {"order": ORDER}
    by = {
        kind: {name: _recall(tally[kind, name, "objects"], tally[kind, name, "found"]) for name in names}
        for kind, names in kinds.items()
    }
    judged = sum(outcomes.values())
    whole = _recall(*(sum(row[what] for row in by["order"].values()) for what in ("objects", "found")))
    return {
        "objects": whole["objects"],
        "detections": judged,
        "found": whole["found"],
        **{f"{outcome}_rate": number / judged if judged else None for outcome, number in outcomes.items()},
        "recall": whole["recall"],
        "recall_small": by["size"]["small"]["recall"],
        "recall_first": by["order"]["first"]["recall"],
        "recall_further": by["order"]["further"]["recall"],
        "outcomes": outcomes,
        "recall_by": by,
    }


def _recall(objects: int, found: int) -> dict[str, Any]:
    return {"objects": objects, "found": found, "recall": found / objects if objects else None}
