"""Settings of proposals for the boxes that a person has given: small objects need small proposals."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxless.config import ProposalConfig
from boxless.images import content_keys, skip_copies
from boxless.metrics import iou
from boxless.proposals.store import ProposalStore
from boxless.structures import Dataset, Sample
from boxless.wording import counted

logger = logging.getLogger(__name__)

SMALL = ProposalConfig(size=200, min_side=8, min_area=0.002)
"""Regions are grouped on a smaller image, which keeps small ones apart, and fewer of them are dropped."""
MIN_GAIN = 0.01
"""In mean best overlap, from which `SMALL` is taken. It decides as mAP does on the development sets, see
docs/lab_book/proposals.md."""
MIN_BOXES, MAX_IMAGES = 20, 100
"""Fewer given boxes decide nothing; so many images are enough."""


def fitted_to_given(dataset: Dataset, config: ProposalConfig) -> ProposalConfig:
    """The settings of proposals to train with: `SMALL` where it covers the given boxes clearly better.

    What covers a box is its best overlap with a proposal; the mean over boxes is compared (Uijlings et al., IJCV 2013,
    section 5.1).

    Args:
        dataset: the images; only the boxes that a person gave of them are read (`Sample.given`).
        config: the settings otherwise. Any that was chosen, even as its default, keeps all of them as they are.

    Raises:
        BoxlessError: the cache folder cannot be written.
    """
    boxed = [sample for sample in dataset.samples if sample.given is not None and sample.given.labels]
    boxes = sum(len(sample.given.right.boxes) for sample in boxed if sample.given is not None)
    if config.model_fields_set or boxes < MIN_BOXES:
        return config
    some = boxed[:: -(-len(boxed) // MAX_IMAGES)]
    default, small = (mean_best_overlap(some, settings) for settings in (config, SMALL))
    fitted = SMALL if small >= default + MIN_GAIN else config
    logger.info(
        "Proposals of the given boxes: mean best overlap %.2f by default, %.2f of small ones (%s); %s are used, on %s",
        default,
        small,
        " ".join(f"proposals.{name}={getattr(SMALL, name)}" for name in sorted(SMALL.model_fields_set)),
        "small ones" if fitted is SMALL else "those of the default",
        counted(len(some), "image"),
    )
    return fitted


def mean_best_overlap(samples: Sequence[Sample], config: ProposalConfig) -> float:
    """The mean, over the given boxes of images, of their best IoU with a proposal; of images that can be read.

    Returns:
        From 0 to 1; 0 if no image can be read, which training reports.
    """
    skipped: dict[Path, str] = {}
    keys, store = content_keys((sample.path for sample in samples), skipped), ProposalStore(config)
    skipped |= store.compute({key: path for path, key in keys.items()})
    skip_copies(skipped, keys)
    best = [
        iou(sample.given.right.boxes, store.load(keys[sample.path])).max(axis=1)
        for sample in samples
        if sample.given is not None and sample.path not in skipped
    ]
    return float(np.concatenate(best).mean()) if best else 0.0
