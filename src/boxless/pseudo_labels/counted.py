"""Boxes of the objects that a person counted or pointed at: several for a tag, where every other tag has one.

A count tells one group from several objects: chosen are so many boxes that hardly overlap and are likeliest together
(count-based region selection; C-WSL, Gao et al., ECCV 2018). A point tells where an object is: of the boxes that hold
it the likeliest is chosen (Papadopoulos et al., CVPR 2017).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.np_box_ops import coverage
from boxless.pseudo_labels.given import at_rejected, contains_points, points_on
from boxless.pseudo_labels.held_out import map_rows
from boxless.structures import Annotations, BoolArray, FloatArray, IntArray, Sample

MAX_SHARED = 0.3
"""Boxes of two objects share at most this part of the smaller one: a group and one of its objects share more."""
MIN_SCORE = 0.1
"""Least score of a counted object, over the best of its class in the image: others are mostly wrong."""
OTHER_POINT = 0.1
"""Factor of the score of a box for every other point in it: it may hold a group."""


def with_counted(
    sets: Sequence[Sequence[Annotations]], detectors: Sequence[Detector], data: CachedDataset, folds: IntArray
) -> list[list[Annotations]]:
    """Replace the pseudo labels of counted or pointed-at tags by boxes that the network of their fold predicts.

    If it predicts none, the pseudo label stays and is ignored. Other images are not predicted.

    Args:
        sets: of pseudo labels of each image.
        detectors: of each fold, trained on the others.
        data: the training images, with the tags that need pseudo labels.
        folds: of every image.
    """
    replaced = [list(labels) for labels in sets]
    for fold, detector in enumerate(detectors):
        own = np.flatnonzero(folds == fold).tolist()
        rows = [row for row in own if counted_tags(data.dataset.samples[row])]
        if not rows:
            continue
        found = map_rows(partial(_predict, detector, data), detector, rows, "Counted objects")
        for row, boxes in zip(rows, found, strict=True):
            for labels in replaced:
                labels[row] = _replaced(labels[row], boxes, counted_tags(data.dataset.samples[row]))
    return replaced


def counted_tags(sample: Sample) -> list[int]:
    """The tags of an image of which several objects were counted, or with a point, in order."""
    pointed = {point.label for point in sample.points}
    return sorted(
        tag for tag in sample.tags if tag in pointed or (tag in sample.counts and sample.counts[tag].number > 1)
    )


def _replaced(labels: Annotations, boxes: Annotations, tags: Sequence[int]) -> Annotations:
    without_box = np.isin(labels.labels, list(set(tags) - set(boxes.labels.tolist())))
    rest = replace(labels, ignore=labels.ignore | without_box)[~np.isin(labels.labels, boxes.labels)]
    return Annotations.merge([rest, boxes])


def _predict(detector: Detector, data: CachedDataset, row: int) -> Annotations:
    """The boxes of the counted tags of an image."""
    sample = data.dataset.samples[row]
    found = detector.postprocess(detector.read(data, row))
    found = found[~at_rejected(found.boxes, found.labels, sample)]
    objects = []
    for tag in counted_tags(sample):
        own = found[found.labels == tag]
        number = sample.counts[tag].number if tag in sample.counts else 1
        rows = choose_objects(own.boxes, own.scores, number, points_on(sample, tag))
        objects.append(Annotations.of(own.boxes[rows], own.labels[rows]))
    return Annotations.merge(objects)


def choose_objects(boxes: FloatArray, scores: FloatArray, number: int, points: FloatArray) -> list[int]:
    """Rows of the boxes that are the objects of a class: one for each point, and others up to `number` in all.

    No two of them share more than `MAX_SHARED` of the smaller one. Those beside the points hold none of these and score
    `MIN_SCORE` of the best; of the sets that begin with one of them and go on with the best that fits, the one with the
    highest product of scores is taken, in which an object without a box scores as low as one may: a group and a box
    beside it are less likely than both of its objects, and one object without the other likelier than two of its parts.

    Args:
        boxes: (N, 4), xyxy pixels, of one class, after non-maximum suppression.
        scores: (N,), positive, the highest first.
        number: of objects.
        points: (P, 2), x and y in pixels, on different objects.
    """
    shared = coverage(boxes, boxes)
    apart = (np.maximum(shared, shared.T) <= MAX_SHARED) & ~np.eye(len(boxes), dtype=np.bool_)
    inside = contains_points(boxes, points)
    held = inside.sum(axis=1)
    chosen = list[int]()
    for point in range(len(points)):
        fitting = np.flatnonzero(inside[:, point] & apart[:, chosen].all(axis=1))
        if len(fitting):
            chosen.append(int(fitting[(scores[fitting] * OTHER_POINT ** held[fitting]).argmax()]))
    floor = MIN_SCORE * scores.max(initial=0)
    free = np.flatnonzero((held == 0) & apart[:, chosen].all(axis=1) & (scores >= floor))
    sets = [_continued(int(start), free, apart, number - len(points)) for start in free]
    return chosen + max(sets, key=lambda rows: sum(math.log(scores[row] / floor) for row in rows), default=[])


def _continued(start: int, rows: IntArray, apart: BoolArray, number: int) -> list[int]:
    """So many of these rows, the first ones that are apart from `start` and each other."""
    chosen = list[int]()
    for row in (start, *rows.tolist()):
        if len(chosen) < number and apart[row, chosen].all():
            chosen.append(row)
    return chosen
