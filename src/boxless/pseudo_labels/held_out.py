"""The best box of each tag, for seeds and out-of-fold predictions, and out-of-fold class scores for calibration."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.calibration import Calibration, choose_images, fit_calibration
from boxless.detector import Detector
from boxless.devices import one_thread_per_image
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

    return map_tags(
        lambda row, tags: detector.boxes_for_labels(detector.read(data, row), tags), detector, data, rows, description
    )


def map_tags(
    find: Callable[[int, IntArray], FloatArray],
    detector: Detector,
    data: CachedDataset,
    rows: Sequence[int],
    description: str,
) -> list[Annotations]:
    """A box for every tag of these images; those without tags are not read.

    Args:
        find: gives the boxes (tags, 4) of the tags of a row.
        detector: that it uses.
        data: the images.
        rows: which of them.
        description: of the progress bar.
    """

    def boxes_of(row: int) -> Annotations:
        tags = data.tags_of(row)
        return Annotations.of(find(row, tags), tags) if len(tags) else Annotations.empty()

    return map_rows(boxes_of, detector, rows, description)


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
        detector: Detector = detectors[folds[row]]
        return detector.class_scores(detector.read(data, row))

    found = map_rows(predict, detectors[0], rows.tolist(), "Calibration")
    scores = np.array(found, np.float32).reshape(len(rows), image_labels.shape[1])
    known = (~np.isnan(image_labels[candidates])).sum(axis=0)
    shares = (image_labels[candidates] == 1).sum(axis=0) / np.maximum(known, 1)
    return fit_calibration(scores, image_labels[rows], shares)


def map_rows(
    predict: Callable[[int], T],
    detector: Detector,
    rows: Sequence[int],
    description: str,
    *,
    extracts_maps: bool = False,
) -> list[T]:
    """`predict` for each row, in threads; every process predicts a share of them, and all train on the same.

    Args:
        predict: called with each row.
        detector: that it uses.
        rows: of the images.
        description: of the progress bar.
        extracts_maps: whether it extracts feature maps, which is not done in `full_width`.
    """
    context = one_thread_per_image(detector.device) if extracts_maps else detector.in_parallel()
    with context as threads:
        return in_shares(lambda share: list(map_threads(predict, share, description, threads)), rows)
