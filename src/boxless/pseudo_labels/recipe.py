"""Boxes for the tags of every image: those of the heatmaps, where heads taught by other images agree.

A head that has learned from an image's own box would only repeat it; one that has not is a second opinion (multi-fold
multiple-instance learning; Cinbis, Verbeek, Schmid, PAMI 2017). The boxes of all heatmaps teach the heads of the first
round, those that were agreed on the heads of the next, which know better.

Heatmaps are coarse, so of objects under a fifth of the image a head of the last round is compared with itself
instead: with what it sees from closer by.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from accelerate.utils import broadcast_object_list
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.config import PseudoLabelConfig
from boxless.detector import Detector
from boxless.devices import full_width, one_thread_a_image
from boxless.errors import BoxlessError
from boxless.images import read_image
from boxless.methods.mining import snap
from boxless.metrics.boxes import areas
from boxless.progress import console, give_back, track_threads
from boxless.pseudo_labels.consensus import consensus
from boxless.structures import Annotations, BoolArray, Dataset, IntArray


class RescaledBoxes(NamedTuple):
    """What the same head sees of an image from closer by.

    Args:
        row: of the image.
        small: (M,), which of its boxes were small.
        boxes: all M of them from closer by.
    """

    row: int
    small: BoolArray
    boxes: Annotations


def find_boxes(
    ready: CachedDataset,
    config: PseudoLabelConfig,
    seed: int,
    localizer: Detector,
    teach: Callable[[int, int, CachedDataset], Detector],
) -> CachedDataset:
    """Give every tag of every image a box.

    Args:
        ready: the images, with tags and proposals.
        config: number of folds, and what counts as agreement.
        seed: decides which image is in which fold.
        localizer: gives the first boxes.
        teach: trains the head of a round and fold, both counted from one, with the boxes of all images
            that are not in the fold.

    Returns:
        The same images with boxes; those that the opinions differ on are marked difficult.

    Raises:
        BoxlessError: there are fewer images than folds.
    """
    folds = _folds(ready, config.folds, seed)
    first = _snapped(ready, boxes_for_tags(localizer, ready, range(len(folds)), "Boxes of heatmaps"))
    second, closer = first, list[RescaledBoxes]()
    for turn in range(1, config.rounds + 1):
        before, second = second, list(first)
        for fold in range(config.folds):
            others, own = np.flatnonzero(folds != fold).tolist(), np.flatnonzero(folds == fold).tolist()
            console.print(
                f"Second opinion {fold + 1} of {config.folds}, round {turn} of {config.rounds}", highlight=False
            )
            boxes = [first[row] for row in others]
            if turn > 1:
                # Within what teaches, or all that is kept of a rare class may lie in the other fold.
                merged = consensus(boxes, [before[row] for row in others], config.agreement)
                boxes = _snapped(ready.part(others), merged)
            detector = teach(turn, fold + 1, ready.part(others, boxes))
            opinions = boxes_for_tags(detector, ready, own, "Second opinion")
            for row, found in zip(own, opinions, strict=True):
                second[row] = found
            if turn == config.rounds:
                closer += rescaled_pass(detector, ready, own, opinions)
    boxes = _snapped(ready, _merged(first, second, config.agreement, closer))
    return ready.part(range(len(boxes)), boxes)


def agreement(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How many of the pseudo boxes of each class are agreed on, for the manifest: `kept` of `all`."""
    boxes = [sample.annotations for sample in dataset.samples if sample.annotations is not None]
    found = {}
    for label, name in enumerate(dataset.classes):
        of_class = [own.ignore[own.labels == label] for own in boxes]
        found[name] = {"kept": sum(int((~part).sum()) for part in of_class), "all": sum(map(len, of_class))}
    return found


def teaching(ready: CachedDataset) -> CachedDataset:
    """Only the images whose boxes teach something: an object, or that there is none at all.

    Raises:
        BoxlessError: there is no such image.
    """
    rows = []
    for row, sample in enumerate(ready.dataset.samples):
        boxes = sample.annotations
        if boxes is not None and (not boxes.ignore.all() or not (sample.tags or sample.unsure)):
            rows.append(row)
    if not rows:
        raise BoxlessError(f"{ready.dataset.name}: no image that can be read has a tag or box to learn from")
    return ready.part(rows)


def _folds(ready: CachedDataset, number: int, seed: int) -> IntArray:
    """The fold of every image, from 0 on; (images,)."""
    # Copies of an image share one fold, or a head would judge what it has learned from.
    unique = list(dict.fromkeys(ready.keys))
    if len(unique) < number:
        raise BoxlessError(f"{ready.dataset.name}: {len(unique)} image(s) are too few for {number} folds; take cam")
    parts = dict(zip(unique, np.random.default_rng(seed).permutation(len(unique)) % number, strict=True))
    return np.array([parts[key] for key in ready.keys])


def boxes_for_tags(
    detector: Detector, ready: CachedDataset, rows: Sequence[int], description: str
) -> list[Annotations]:
    """The likeliest box of every tag of these images."""

    def boxes_for_labels(row: int) -> Annotations:
        return _likeliest(detector, ready, row, [ready.map(row, view) for view in detector.views])

    with full_width(detector.device):
        return _in_threads(boxes_for_labels, detector, rows, description)


def rescaled_pass(
    detector: Detector, ready: CachedDataset, rows: Sequence[int], opinions: Sequence[Annotations]
) -> list[RescaledBoxes]:
    """The likeliest boxes of images with a small one, in views `RESCALE` times as large.

    A head knows objects of the size that it has learned from (scale normalisation; Singh and Davis, CVPR 2018).

    Args:
        detector: gave the opinions.
        ready: the images.
        rows: of some of them.
        opinions: the likeliest boxes of each of these.

    Returns:
        One for every image that has a small box.

    Raises:
        ImageError: an image can no longer be read.
    """
    small = {
        row: areas(opinion.boxes) < SMALL * math.prod(ready.sizes[row])
        for row, opinion in zip(rows, opinions, strict=True)
    }
    near = detector.with_views([replace(view, scale=round(view.scale * RESCALE)) for view in detector.views])

    def boxes_for_labels(row: int) -> Annotations:
        pixels = read_image(ready.dataset.samples[row].path)
        found = _likeliest(near, ready, row, [near.features.extract(pixels, view) for view in near.views])
        # Larger maps than any before leave more behind, and memory would peak here (docs/experiments.md).
        give_back()
        return found

    wanted = [row for row in rows if small[row].any()]
    if not wanted:
        return []
    # Not in full width, as maps of many sizes are extracted.
    found = _in_threads(boxes_for_labels, near, wanted, "A closer look")
    return [RescaledBoxes(row, small[row], boxes) for row, boxes in zip(wanted, found, strict=True)]


SMALL = 0.2
"""Boxes under this share of their image are looked at again from closer by."""
RESCALE = 1.5
"""How much larger the image is then."""


def _likeliest(detector: Detector, ready: CachedDataset, row: int, maps: Sequence[Tensor]) -> Annotations:
    labels = np.array(sorted(ready.dataset.samples[row].tags), np.int64)
    boxes = np.zeros((0, 4), np.float32)
    if len(labels):
        proposals = ready.boxes(row) if detector.proposals else None
        boxes = detector.boxes_for_labels(maps, proposals, ready.sizes[row], labels.tolist())
    return Annotations(boxes, labels, np.zeros(len(labels), np.bool_))


def _in_threads(
    boxes_for_labels: Callable[[int], Annotations], detector: Detector, rows: Sequence[int], description: str
) -> list[Annotations]:
    with one_thread_a_image(detector.device) as threads:
        found = list(track_threads(boxes_for_labels, rows, description, threads))
    # Of several processes all are taught what the first one found, or their heads would learn from boxes that differ.
    return list(broadcast_object_list(found))


def _merged(
    first: Sequence[Annotations], second: Sequence[Annotations], least: float, closer: Sequence[RescaledBoxes]
) -> list[Annotations]:
    """What two opinions agree on; of small boxes those seen from closer by, where the second had them before."""
    first, second = list(first), list(second)
    for row, small, found in closer:
        first[row], second[row] = _mixed(small, second[row], first[row]), _mixed(small, found, second[row])
    merged = consensus(first, second, least)
    for row, small, found in closer:
        merged[row] = _mixed(small, found, merged[row])
    return merged


def _mixed(chosen: BoolArray, boxes: Annotations, others: Annotations) -> Annotations:
    """These boxes of an image where they are chosen, and the others where not."""
    return replace(others, boxes=np.where(chosen[:, None], boxes.boxes, others.boxes))


def _snapped(ready: CachedDataset, boxes: Sequence[Annotations]) -> list[Annotations]:
    """Boxes of every image, moved onto the edges that its proposals end at."""
    return [replace(found, boxes=snap(found.boxes, ready.boxes(row))) for row, found in enumerate(boxes)]
