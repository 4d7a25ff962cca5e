"""Recall, number and computing time of proposals."""

import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxless.config import ProposalConfig
from boxless.errors import BoxlessError
from boxless.images import content_keys, skip_copies
from boxless.logs import log_skipped
from boxless.np_box_ops import iou
from boxless.proposals.store import ProposalStore
from boxless.structures import Annotations, Dataset, Sample


def report_proposals(dataset: Dataset, config: ProposalConfig) -> dict[str, float]:
    """Compute a dataset's proposals and measure them.

    Args:
        dataset: the images; recall is measured if they have boxes.
        config: generator and filters.

    Returns:
        `images`; `proposals per image`; `seconds` this call took (next to none if all were cached); and over all
        ground-truth boxes that are not ignored `recall@0.5` and `recall@0.7` (fraction with a proposal of that IoU)
        and `mean best overlap` (MABO of Uijlings et al., IJCV 2013, section 5.1, but averaged over boxes instead of
        classes).

    Raises:
        BoxlessError: no image can be read, or the cache folder cannot be written.
    """
    start = time.perf_counter()
    found = best_overlaps(dataset.samples, attrgetter("annotations"), config)
    seconds = time.perf_counter() - start
    log_skipped(found.skipped)
    if not found.counts:
        raise BoxlessError(f"{dataset.name}: no image can be read; see the reasons above")
    report = {"images": len(found.counts), "proposals per image": float(np.mean(found.counts)), "seconds": seconds}
    if len(found.overlaps):
        report |= {f"recall@{level}": float((found.overlaps >= level).mean()) for level in (0.5, 0.7)}
        report["mean best overlap"] = float(found.overlaps.mean())
    return report


class Overlaps(NamedTuple):
    """How the proposals of images cover their boxes.

    Args:
        counts: number of proposals of each image that can be read.
        overlaps: the best IoU of every box that is not ignored with a proposal, float64.
        skipped: images that cannot be read -> reason.
    """

    counts: list[int]
    overlaps: NDArray[np.float64]
    skipped: dict[Path, str]


def best_overlaps(
    samples: Sequence[Sample], boxes_of: Callable[[Sample], Annotations | None], config: ProposalConfig
) -> Overlaps:
    """Compute the proposals of images and compare them with boxes.

    Args:
        samples: the images.
        boxes_of: the boxes of an image to compare with, or None.
        config: generator and filters.

    Raises:
        BoxlessError: the cache folder cannot be written.
    """
    skipped: dict[Path, str] = {}
    keys = content_keys((sample.path for sample in samples), skipped)
    store = ProposalStore(config)
    skipped |= store.compute({key: path for path, key in keys.items()})
    skip_copies(skipped, keys)
    counts, best = list[int](), [np.empty(0)]
    for sample in (sample for sample in samples if sample.path not in skipped):
        proposals, boxes = store.load(keys[sample.path]), boxes_of(sample)
        counts.append(len(proposals))
        if boxes is not None:
            best.append(iou(boxes.boxes[~boxes.ignore], proposals).max(axis=1))
    return Overlaps(counts, np.concatenate(best), skipped)
