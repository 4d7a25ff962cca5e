"""Which proposals to train on where a person has given boxes: small objects need small proposals."""

import logging
from operator import attrgetter

import numpy as np

from boxless.config import ProposalConfig
from boxless.proposals.report import best_overlaps
from boxless.structures import Dataset
from boxless.wording import counted

logger = logging.getLogger(__name__)

SMALL = ProposalConfig(size=200, min_side=8, min_area=0.002)
"""Regions are grouped on a smaller image, which keeps small ones apart, and fewer of them are dropped."""
MIN_GAIN = 0.01
"""Least gain in mean best overlap for which `SMALL` is taken, chosen on single runs (docs/lab_book/given_boxes.md)."""
MIN_BOXES = 20
"""With fewer boxes the default stays."""
MAX_IMAGES = 100
"""At most so many of the images with given boxes are measured."""


def choose_proposals(dataset: Dataset, config: ProposalConfig, begun: ProposalConfig | None = None) -> ProposalConfig:
    """The settings of proposals to train with: `SMALL` where its proposals cover the given boxes better.

    Compared is the mean over the given boxes of their best IoU with a proposal (mean best overlap, see
    `report.report_proposals`). No other boxes are read.

    Args:
        dataset: the images, of which a person gave boxes or did not (`Sample.given`).
        config: the settings. If any was set explicitly, even to its default, they are returned unchanged.
        begun: the settings with which this run was begun earlier, which stay; None for a new one.

    Returns:
        `config` or `SMALL`.

    Raises:
        BoxlessError: the cache folder cannot be written, or a cached entry is lost.
    """
    boxed = [sample for sample in dataset.samples if sample.given is not None and sample.given.labels]
    if config.model_fields_set or not boxed:
        return config
    if begun in (config, SMALL):
        return begun
    rows = np.random.default_rng(0).permutation(len(boxed))[:MAX_IMAGES]
    measured, boxes_of = [boxed[row] for row in rows.tolist()], attrgetter("given.right")
    default = best_overlaps(measured, boxes_of, config).overlaps
    if len(default) < MIN_BOXES:
        return config
    small = best_overlaps(measured, boxes_of, SMALL).overlaps
    chosen = SMALL if small.mean() - default.mean() >= MIN_GAIN else config
    logger.info(
        "Mean best overlap of %s with proposals: %.3f by default, %.3f with %s; %s are used",
        counted(len(default), "given box"),
        default.mean(),
        small.mean(),
        " ".join(f"proposals.{name}={value}" for name, value in SMALL.model_dump(exclude_unset=True).items()),
        "these" if chosen is SMALL else "those of the default",
    )
    return chosen
