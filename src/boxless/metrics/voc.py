"""Average precision as PASCAL VOC's devkit computes it (Everingham et al., IJCV 2010; VOCevaldet.m, VOCap.m)."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boxless.np_box_ops import iou
from boxless.structures import Annotations, BoolArray, Detections, FloatArray, IntArray

Convention = Literal["11point", "area"]

# The devkit's doubles for 0:0.1:1. MATLAB computes the fourth as 3 * 0.1, which is above 0.3: a recall of 3/10 misses
# it.
_LEVELS = np.array([0, 0.1, 0.2, 3 * 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])


def voc_ap(
    detections: Sequence[Detections], annotations: Sequence[Annotations], label: int, iou_threshold: float = 0.5
) -> dict[Convention, float]:
    """Average precision of one class over many images, in both conventions.

    Args:
        detections: one per image.
        annotations: ground truth, in the same order.
        label: the class, as both index it.
        iou_threshold: the least IoU of a match, in (0, 1].

    Returns:
        AP in [0, 1] by convention, see `average_precision`; NaN where no box of the class is other than difficult.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    return ranked_ap(*ranking(detections, annotations, label, iou_threshold))


def ranking(
    detections: Sequence[Detections], annotations: Sequence[Annotations], label: int, iou_threshold: float = 0.5
) -> tuple[FloatArray, BoolArray, int]:
    """The boxes of one class over many images, best score first, and which of them are hits.

    As VOCevaldet.m: boxes are evaluated by falling score (`Detections.ranking_scores`) over all images, equal scores in
    the order given (image by image, within an image as in its `Detections`). Each is matched to the ground-truth box of
    highest IoU *before* the check whether that one is still free. At or above the threshold, it is a hit where the
    ground-truth box is free, a miss where it is matched already, and neither where it is difficult; below the threshold
    it is a miss. Recall counts the boxes that are not difficult.

    Args:
        detections: one per image.
        annotations: ground truth, in the same order.
        label: the class, as both index it.
        iou_threshold: the least IoU of a match, in (0, 1].

    Returns:
        (N,) float32 scores, falling; (N,) bool, which of these are hits; and the number of objects to find. Boxes that
        are neither hit nor miss are left out.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    # Without the empty first entries concatenation would fail where there is no image.
    scores, ranks = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    matches, difficult = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    offset = 0
    for found, ground_truth in zip(detections, annotations, strict=True):
        predicted, objects = found.labels == label, ground_truth.labels == label
        scores.append(found.scores[predicted])
        ranks.append(found.ranking_scores[predicted])
        matches.append(_best_match(found.boxes[predicted], ground_truth.boxes[objects], iou_threshold, offset))
        difficult.append(ground_truth.ignore[objects])
        offset += int(objects.sum())
    order = np.argsort(-np.concatenate(ranks), kind="stable")
    return _hits(np.concatenate(scores)[order], np.concatenate(matches)[order], np.concatenate(difficult))


def ranked_ap(scores: NDArray[np.floating[Any]], hits: BoolArray, positives: int) -> dict[Convention, float]:
    """Average precision of a ranking, in both conventions.

    Args:
        scores: (N,), higher comes first; equal scores stay in the order given, as in the devkit.
        hits: (N,) bool, whether each entry is a true positive; the others are false positives.
        positives: how many there are to find.

    Returns:
        AP by convention; NaN where there is nothing to find.
    """
    if not positives:
        return {"11point": np.nan, "area": np.nan}
    recall, precision = precision_recall(hits[np.argsort(-scores, kind="stable")], positives)
    return {
        "11point": average_precision(recall, precision, "11point"),
        "area": average_precision(recall, precision, "area"),
    }


def precision_recall(hits: BoolArray, positives: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The precision-recall curve of a ranking.

    Args:
        hits: (N,) bool, whether each entry is a true positive, best score first.
        positives: how many there are to find, 1 or more.

    Returns:
        Recall and precision, each (N,) float64 in [0, 1], after the first entry, the second, and so on.
    """
    found = np.cumsum(hits)
    return found / positives, found / np.arange(1, len(found) + 1)


def average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64], convention: Convention) -> float:
    """Average precision of a precision-recall curve.

    Both conventions first replace each precision by the best one at this recall or beyond.

    Args:
        recall: (N,) float64, not falling: after the first entry of the ranking, the second, and so on.
        precision: (N,) float64 at the same entries.
        convention: "11point", the mean of the precision at recall 0, 0.1 ... 1 (VOC 2007 to 2009; the levels are the
            devkit's floating-point numbers); or "area", the area under the steps (VOC 2010 on).

    Returns:
        AP in [0, 1]; precision is 0 at recall that the ranking never reaches, so an empty ranking has 0.
    """
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    if convention == "area":
        return float(np.diff(recall, prepend=0) @ best_beyond)
    first_reaching = np.searchsorted(recall, _LEVELS)
    return float(np.append(best_beyond, 0)[first_reaching].mean())


def _best_match(
    boxes: NDArray[np.float32], objects: NDArray[np.float32], iou_threshold: float, offset: int
) -> IntArray:
    """Index of the object (M, 4) that each box (N, 4) matches, counted from `offset`; -1 where every IoU is too low."""
    if not len(objects):
        return np.full(len(boxes), -1, np.int64)
    overlaps = iou(boxes, objects)
    return np.where(overlaps.max(axis=1) >= iou_threshold, overlaps.argmax(axis=1) + offset, -1)


def _hits(scores: FloatArray, matches: IntArray, difficult: BoolArray) -> tuple[FloatArray, BoolArray, int]:
    """What `ranking` gives, from boxes best first, the object that each matches (-1: none), and which are difficult."""
    ignored = np.isin(matches, np.flatnonzero(difficult))
    scores, matches = scores[~ignored], matches[~ignored]
    hits = np.zeros(len(matches), np.bool_)
    hits[np.unique(matches, return_index=True)[1]] = True
    return scores, hits & (matches >= 0), int(np.sum(~difficult))
