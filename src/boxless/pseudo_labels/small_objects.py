"""Small objects, for which CAMs are too coarse: a detector is compared with itself at a larger scale instead.

A detector is trained on objects of certain sizes (scale normalisation; Singh and Davis, CVPR 2018). Where its
out-of-fold box of a tag is small, it predicts the image once more in a rescaled pass.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.images import read_image
from boxless.memory import release_memory
from boxless.metrics.boxes import areas
from boxless.pseudo_labels.consensus import Sizes, consensus
from boxless.pseudo_labels.held_out import best_boxes, map_rows
from boxless.structures import Annotations, BoolArray, IntArray

SMALL_AREA = 0.2
"""Boxes below this share of their image are small."""
RESCALE = 1.5
"""Scale of the rescaled pass over that of the detector's views."""


class RescaledBoxes(NamedTuple):
    """The boxes of an image at the larger scale.

    Args:
        row: of the image.
        small: (M,), which of its out-of-fold boxes were small.
        boxes: all M of them from the rescaled pass.
    """

    row: int
    small: BoolArray
    boxes: Annotations


def rescaled_pass(
    detectors: Sequence[Detector],
    data: CachedDataset,
    folds: IntArray,
    held_out: Sequence[Annotations],
    boxed: Sequence[int] = (),
) -> list[RescaledBoxes]:
    """The boxes of images with a small one, predicted at a larger scale by the network of their fold.

    Args:
        detectors: of each fold.
        data: the training images.
        folds: of every image.
        held_out: the out-of-fold boxes of every image.
        boxed: classes with enough given boxes, whose small objects these show: they are not rescaled.

    Raises:
        ImageError: an image can no longer be read.
    """
    rescaled = []
    for fold, detector in enumerate(detectors):
        small = {
            row: (areas(held_out[row].boxes) < SMALL_AREA * math.prod(data.sizes[row]))
            & ~np.isin(held_out[row].labels, boxed)
            for row in np.flatnonzero(folds == fold).tolist()
        }
        larger = detector.with_views([replace(view, scale=round(view.scale * RESCALE)) for view in detector.views])
        rows = [row for row in small if small[row].any()]
        # Outside of `full_width`, as maps of many sizes are extracted.
        found = map_rows(partial(_predict, larger, data), larger, rows, "Rescaled pass") if rows else []
        rescaled += [RescaledBoxes(row, small[row], boxes) for row, boxes in zip(rows, found, strict=True)]
    return rescaled


def _predict(detector: Detector, data: CachedDataset, row: int) -> Annotations:
    pixels = read_image(data.dataset.samples[row].path)
    found = best_boxes(detector, data, row, [detector.features.extract(pixels, view) for view in detector.views])
    # The largest maps of a run are freed here, and memory would peak at the next ones (docs/lab_book).
    release_memory()
    return found


def consensus_with_small(
    seeds: Sequence[Annotations],
    held_out: Sequence[Annotations],
    rescaled: Sequence[RescaledBoxes],
    sizes: Sizes,
    min_iou: float,
) -> list[Annotations]:
    """`consensus`, in which small boxes are compared with those of the rescaled pass, which are taken as they are."""
    seeds = list(seeds)
    for row, small, _ in rescaled:
        seeds[row] = seeds[row].with_boxes(held_out[row].boxes, small)
    return with_rescaled(consensus(seeds, with_rescaled(held_out, rescaled), sizes, min_iou), rescaled)


def with_rescaled(labels: Sequence[Annotations], rescaled: Sequence[RescaledBoxes]) -> list[Annotations]:
    """Boxes of every image, with those of the rescaled pass where they were small."""
    replaced = list(labels)
    for row, small, found in rescaled:
        replaced[row] = replaced[row].with_boxes(found.boxes, small)
    return replaced
