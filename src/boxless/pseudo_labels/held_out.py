"""What networks predict for images that they were not trained on, or that gives seeds: the boxes of their tags, and the
scores that are calibrated."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.calibration import Calibration, choose_images, fit_calibration
from boxless.detector import Detector
from boxless.devices import full_width, one_thread_per_image
from boxless.distributed import in_shares
from boxless.parallel import map_threads
from boxless.structures import Annotations, FloatArray, IntArray

T = TypeVar("T")


def boxes_for_tags(detector: Detector, data: CachedDataset, rows: Sequence[int], description: str) -> list[Annotations]:
    """The best box of every tag of these images; the tags are known, so classes are not predicted.

    Args:
        detector: predicts the boxes.
        data: the images.
        rows: which of them.
        description: of the progress bar.
    """

    def predict(row: int) -> Annotations:
        return best_boxes(detector, data, row, data.maps(row, detector.views))

    with full_width(detector.device):
        return map_rows(predict, detector, rows, description)


def best_boxes(detector: Detector, data: CachedDataset, row: int, maps: Sequence[Tensor]) -> Annotations:
    """The best box of every tag of an image, by the maps of every view of the detector."""
    labels = np.array(sorted(data.dataset.samples[row].tags), np.int64)
    if not len(labels):
        return Annotations.empty()
    proposals = data.proposals_of(row) if detector.proposals else None
    return Annotations.of(detector.boxes_for_labels(maps, proposals, data.sizes[row], labels.tolist()), labels)


def calibrated(detectors: Sequence[Detector], data: CachedDataset, folds: IntArray, seed: int) -> Calibration:
    """The calibration of scores that fits out-of-fold predictions of some images to their tags; no box is read.

    Args:
        detectors: of each fold, trained on the others; one at least.
        data: the training images.
        folds: of every image, see `cross_fitting.draw_folds`; those of none are left out.
        seed: of the choice of images.
    """
    image_labels, candidates = data.dataset.image_labels(), np.flatnonzero(folds >= 0)
    rows = choose_images(image_labels, candidates, seed)

    def predict(row: int) -> FloatArray:
        detector = detectors[folds[row]]
        proposals = data.proposals_of(row) if detector.proposals else None
        scores: FloatArray = detector.class_scores(data.maps(row, detector.views), proposals, data.sizes[row])
        return scores

    with full_width(detectors[0].device):
        found = map_rows(predict, detectors[0], rows.tolist(), "Calibration")
    scores = np.array(found, np.float32).reshape(len(rows), image_labels.shape[1])
    known = (~np.isnan(image_labels[candidates])).sum(axis=0)
    shares = (image_labels[candidates] == 1).sum(axis=0) / np.maximum(known, 1)
    return fit_calibration(scores, image_labels[rows], shares)


def map_rows(predict: Callable[[int], T], detector: Detector, rows: Sequence[int], description: str) -> list[T]:
    """`predict` for each row, in threads; every process predicts a share of them, and all train on the same."""
    with one_thread_per_image(detector.device) as threads:
        return in_shares(lambda share: list(map_threads(predict, share, description, threads)), rows)
