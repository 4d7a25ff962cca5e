"""Recall, number and computing time of proposals."""

import time
from pathlib import Path

import numpy as np

from boxless.config import ProposalConfig
from boxless.errors import BoxlessError
from boxless.images import content_keys, skip_copies
from boxless.logs import log_skipped
from boxless.metrics import iou
from boxless.proposals.store import ProposalStore
from boxless.structures import Dataset


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
    skipped: dict[Path, str] = {}
    keys = content_keys((sample.path for sample in dataset.samples), skipped)
    store = ProposalStore(config)
    skipped |= store.compute({key: path for path, key in keys.items()})
    seconds = time.perf_counter() - start
    skip_copies(skipped, keys)
    log_skipped(skipped)
    counts, best = [], []
    for sample in dataset.samples:
        if sample.path in skipped:
            continue
        boxes = store.load(keys[sample.path])
        counts.append(len(boxes))
        if sample.annotations is not None:
            targets = sample.annotations.boxes[~sample.annotations.ignore]
            best.append(iou(targets, boxes).max(axis=1))
    if not counts:
        raise BoxlessError(f"{dataset.name}: no image can be read; see the reasons above")
    report = {"images": len(counts), "proposals per image": float(np.mean(counts)), "seconds": seconds}
    overlaps = np.concatenate(best) if best else np.empty(0)
    if len(overlaps):
        report |= {f"recall@{level}": float((overlaps >= level).mean()) for level in (0.5, 0.7)}
        report["mean best overlap"] = float(overlaps.mean())
    return report
