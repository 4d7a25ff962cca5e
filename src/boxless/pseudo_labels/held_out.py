"""Boxes of the tags of images, predicted by a network that was not trained on these images or whose boxes are seeds."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.devices import full_width, one_thread_per_image
from boxless.distributed import in_shares
from boxless.parallel import map_threads
from boxless.structures import Annotations


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
    boxes = np.zeros((0, 4), np.float32)
    if len(labels):
        proposals = data.boxes(row) if detector.proposals else None
        boxes = detector.boxes_for_labels(maps, proposals, data.sizes[row], labels.tolist())
    return Annotations(boxes, labels, np.zeros(len(labels), np.bool_))


def map_rows(
    predict: Callable[[int], Annotations], detector: Detector, rows: Sequence[int], description: str
) -> list[Annotations]:
    """`predict` for each row, in threads; every process predicts a share of them, and all train on the same."""
    with one_thread_per_image(detector.device) as threads:
        return in_shares(lambda share: list(map_threads(predict, share, description, threads)), rows)
