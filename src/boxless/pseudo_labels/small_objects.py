"""Small objects, for which CAMs are too coarse: a detector is compared with itself at a larger scale instead.

A detector is trained on objects of certain sizes (scale normalisation; Singh and Davis, CVPR 2018). Where its
out-of-fold box of a tag is small, it predicts the image once more in a rescaled pass.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.detector import CachedImage, Detector
from boxless.images import read_image
from boxless.memory import release_memory
from boxless.np_box_ops import areas
from boxless.pseudo_labels.consensus import Sizes, consensus
from boxless.pseudo_labels.held_out import map_rows
from boxless.structures import Annotations, BoolArray, IntArray

SMALL_AREA = 0.2
"""Boxes below this share of their image are small."""
RESCALE = 1.5
"""Scale of the rescaled pass over that of the detector's views."""


def rescaled_pass(
    detectors: Sequence[Detector],
    data: CachedDataset,
    folds: IntArray,
    held_out: Sequence[Annotations],
    boxed: Sequence[int],
) -> tuple[list[Annotations], list[BoolArray]]:
    """The out-of-fold boxes, the small ones predicted at a larger scale by the network of their fold.

    Args:
        detectors: of each fold.
        data: the training images.
        folds: of every image.
        held_out: the out-of-fold boxes of every image.
        boxed: classes with enough given boxes, whose small objects these show: they are not rescaled.

    Returns:
        The boxes of every image, and which of them were small.

    Raises:
        ImageError: an image can no longer be read.
    """
    small = [
        (areas(own.boxes) < SMALL_AREA * math.prod(size)) & ~np.isin(own.labels, boxed)
        for own, size in zip(held_out, data.sizes, strict=True)
    ]
    rescaled = list(held_out)
    for fold, detector in enumerate(detectors):
        larger = detector.with_views([replace(view, scale=round(view.scale * RESCALE)) for view in detector.views])
        rows = [row for row in np.flatnonzero(folds == fold).tolist() if small[row].any()]
        predict = partial(_predict, larger, data)
        found = map_rows(predict, larger, rows, "Rescaled pass", extracts_maps=True) if rows else []
        for row, boxes in zip(rows, found, strict=True):
            rescaled[row] = rescaled[row].with_boxes(boxes.boxes, small[row])
    return rescaled, small


def _predict(detector: Detector, data: CachedDataset, row: int) -> Annotations:
    pixels = read_image(data.dataset.samples[row].path)
    maps = [detector.features.extract(pixels, view) for view in detector.views]
    proposals, tags = data.proposals_of(row) if detector.proposals else None, data.tags_of(row)
    boxes = detector.boxes_for_labels(CachedImage(maps, proposals, data.sizes[row]), tags)
    # The largest maps of a run are freed here, and memory would peak at the next ones (docs/lab_book).
    release_memory()
    return Annotations.of(boxes, tags)


def consensus_with_small(
    seeds: Sequence[Annotations],
    held_out: Sequence[Annotations],
    rescaled: Sequence[Annotations],
    small: Sequence[BoolArray],
    sizes: Sizes,
    min_iou: float,
) -> list[Annotations]:
    """`consensus`, in which small boxes are compared with those of the rescaled pass, which are taken as they are.

    Args:
        seeds, held_out, sizes, min_iou: as for `consensus`.
        rescaled, small: what `rescaled_pass` returned for `held_out`.
    """
    first = [seed.with_boxes(own.boxes, which) for seed, own, which in zip(seeds, held_out, small, strict=True)]
    merged = consensus(first, rescaled, sizes, min_iou)
    return [own.with_boxes(larger.boxes, which) for own, larger, which in zip(merged, rescaled, small, strict=True)]
