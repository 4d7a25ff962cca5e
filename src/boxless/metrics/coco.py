"""Average precision as COCO computes it (Lin et al., ECCV 2014; pycocotools' `COCOeval`)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boxless.np_box_ops import coverage, iou
from boxless.structures import Annotations, BoolArray, Detections, FloatArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100
"""Per image and class."""


def coco_ap(detections: Sequence[Detections], annotations: Sequence[Annotations], classes: int) -> NDArray[np.float64]:
    """AP50:95 of every class: the mean over ten IoU thresholds and 101 recall levels, for objects of any size.

    As in pycocotools: in each image the detections of a class are matched by descending score, those of equal score in
    the order given. Each takes, among the ground-truth boxes that are still free, the one of highest IoU, which must
    reach the threshold; of equal IoUs the last. So unlike in VOC, a detection whose best match is taken may match
    another object. A box with `ignore` set counts as a crowd: it is no object to find, it may match any number of
    detections that have no other match, its overlap is measured as a share of the detection's area, and a detection
    that it matches is neither a hit nor a miss.

    Args:
        detections: one per image.
        annotations: ground truth, in the same order.
        classes: the number of classes.

    Returns:
        (classes,) float64 in [0, 1]; NaN where every box of the class, if there is any, has `ignore` set.

    Raises:
        ValueError: `detections` and `annotations` differ in length.
    """
    pairs = list(zip(detections, annotations, strict=True))
    return np.array([_class_ap(pairs, label) for label in range(classes)], np.float64)


def _class_ap(pairs: Sequence[tuple[Detections, Annotations]], label: int) -> float:
    scores: list[FloatArray] = [np.zeros(0, np.float32)]
    hits, ignored = ([np.zeros((len(IOU_THRESHOLDS), 0), np.bool_)] for _ in range(2))
    objects = 0
    for found, ground_truth in pairs:
        own = ground_truth.labels == label
        objects += int(np.sum(own & ~ground_truth.ignore))
        rows = np.flatnonzero(found.labels == label)
        if len(rows):
            rows = rows[np.argsort(-found.ranking_scores[rows], kind="stable")][:MAX_DETECTIONS]
            scores.append(found.ranking_scores[rows])
            outcome = _match(found.boxes[rows], ground_truth.boxes[own], ground_truth.ignore[own])
            hits.append(outcome[0])
            ignored.append(outcome[1])
    if not objects:
        return float("nan")
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit, ignore = np.concatenate(hits, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
    return _mean_precision(np.cumsum(hit, axis=1), np.cumsum(~hit & ~ignore, axis=1), objects)


def _match(boxes: FloatArray, objects: FloatArray, crowd: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Which detections of one class in one image are hits, and which match a crowd: two of (thresholds, N) bool.

    Args:
        boxes: (N, 4), best score first.
        objects: (M, 4), ground truth.
        crowd: (M,), which of these are crowds.
    """
    hits, ignored = (np.zeros((len(IOU_THRESHOLDS), len(boxes)), np.bool_) for _ in range(2))
    if not len(objects):
        return hits, ignored
    overlaps = np.where(crowd, coverage(boxes, objects), iou(boxes, objects))
    free = np.tile(~crowd, (len(IOU_THRESHOLDS), 1))
    last = len(objects) - 1
    # The other detections match nothing at any threshold.
    for row in np.flatnonzero(overlaps.max(axis=1) >= IOU_THRESHOLDS[0]):
        enough = overlaps[row] >= IOU_THRESHOLDS[:, None]
        candidates = np.where(enough & free, overlaps[row], -1)
        best = last - candidates[:, ::-1].argmax(axis=1)
        hit = (enough & free).any(axis=1)
        free[hit, best[hit]] = False
        hits[:, row] = hit
        ignored[:, row] = ~hit & (enough & crowd).any(axis=1)
    return hits, ignored


def _mean_precision(hits: NDArray[np.int_], misses: NDArray[np.int_], objects: int) -> float:
    """The mean of the interpolated precision over all IoU thresholds and recall levels.

    Args:
        hits: (thresholds, N), how many hits there are among the best detection, the best two, and so on.
        misses: (thresholds, N), likewise.
        objects: how many there are to find.
    """
    # As pycocotools does, against a division by zero where the best detections are all ignored.
    precision = hits / (hits + misses + np.spacing(1))
    best_beyond = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, best in zip(hits / objects, best_beyond, strict=True):
        total += np.append(best, 0)[np.searchsorted(recall, RECALL_LEVELS)].sum()
    return float(total / (len(IOU_THRESHOLDS) * len(RECALL_LEVELS)))
