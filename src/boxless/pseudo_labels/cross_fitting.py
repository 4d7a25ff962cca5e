"""Out-of-fold predictions (multi-fold multiple-instance learning; Cinbis, Verbeek, Schmid, PAMI 2017).

A network that was trained on the box of an image repeats it. One that was not is independent evidence.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.config import Config
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.pseudo_labels.consensus import classes_never_kept, consensus, label_sets
from boxless.pseudo_labels.given import needs_no_label, with_given
from boxless.pseudo_labels.held_out import boxes_for_tags
from boxless.pseudo_labels.mosaic import training_set
from boxless.pseudo_labels.snapping import snap_all
from boxless.structures import Annotations, IntArray
from boxless.training.fit import Run, fit_network
from boxless.wording import counted

logger = logging.getLogger(__name__)

FIRST_ROUND_STEPS = 2 / 3
"""Training steps of the first round, over those of the next."""

LabelSets = Callable[[Sequence[int], CachedDataset], list[list[Annotations]]]
"""From the rows of images, and these images, to the sets of pseudo labels that a network is trained on."""


@dataclass(frozen=True)
class CrossFitting:
    """What all rounds of cross-fitting have in common.

    Args:
        run: of the final detector; the networks are runs within its folder and share what it shares.
        data: the training images, with tags and proposals; given boxes are trained on.
        tagged: the same images with the tags that have no given box, which are predicted.
        folds: of every image, see `draw_folds`.
        config: of the networks; those of the first round have `first_round_config`.
        boxed: classes whose seeds come from given boxes, see `snap_all`.
    """

    run: Run
    data: CachedDataset
    tagged: CachedDataset
    folds: IntArray
    config: Config
    boxed: Sequence[int]


def draw_folds(data: CachedDataset, number: int, seed: int) -> IntArray:
    """The fold of every image, from 0 on; (images,).

    Images whose boxes are given for all tags have none, -1: nothing of them is predicted, and every network is trained
    on them.

    Raises:
        BoxlessError: there are fewer images than folds.
    """
    if (images := len(set(data.keys))) < number:
        raise BoxlessError(
            f"{data.dataset.name}: {counted(images, 'image is', 'images are')} too few for {number} folds; take cam"
        )
    predicted = [not needs_no_label(sample) for sample in data.dataset.samples]
    # Copies of an image share a fold, or a network would predict an image that it was trained on.
    unique = list(dict.fromkeys(compress(data.keys, predicted)))
    order = np.random.default_rng(seed).permutation(len(unique))
    folds = dict(zip(unique, order % min(number, max(len(unique), 1)), strict=True))
    return np.array([folds[key] if own else -1 for key, own in zip(data.keys, predicted, strict=True)])


def first_round(fitting: CrossFitting, seed: Sequence[Annotations]) -> tuple[list[Detector], list[Annotations]]:
    """The round whose networks are trained on the boxes of the first seed.

    Args:
        fitting: the images and the settings of the networks.
        seed: for each image the boxes of its tags without a given box.

    Returns:
        See `_cross_fit`.
    """
    config = first_round_config(fitting.config)
    return _cross_fit(fitting, 1, config, lambda rows, _: [[seed[row] for row in rows]])


def later_round(
    fitting: CrossFitting,
    number: int,
    seeds: Sequence[Sequence[Annotations]],
    held_out: Sequence[Annotations],
    no_consensus: Sequence[int],
) -> tuple[list[Detector], list[Annotations]]:
    """A round whose networks are trained on the consensus of the first seed with out-of-fold predictions.

    Args:
        fitting: the images and the settings of the networks.
        number: of the round, from 2 on.
        seeds: of every seed the boxes as for `first_round`.
        held_out: the out-of-fold predictions of the round before.
        no_consensus: classes without consensus, which are trained on the boxes of all seeds, see
            `consensus.label_sets`.

    Returns:
        See `_cross_fit`.
    """

    def sets_of(rows: Sequence[int], training: CachedDataset) -> list[list[Annotations]]:
        own_seeds, others = [[boxes[row] for row in rows] for boxes in seeds], [held_out[row] for row in rows]
        merged = consensus(own_seeds[0], others, training.sizes, fitting.config.pseudo_labels.consensus_iou)
        sets = label_sets(merged, own_seeds, sorted({*no_consensus, *classes_never_kept(merged, fitting.boxed)}))
        return [snap_all(labels, training, fitting.boxed) for labels in sets]

    return _cross_fit(fitting, number, fitting.config, sets_of)


def _cross_fit(
    fitting: CrossFitting, number: int, config: Config, sets_of: LabelSets
) -> tuple[list[Detector], list[Annotations]]:
    """Train a network for each fold on the images of the others, and predict the boxes of the fold's tags.

    Args:
        fitting: the images.
        number: of the round.
        config: of its networks.
        sets_of: gives what the networks are trained on.

    Returns:
        The networks, and for each image the boxes of its tags without a given box; none for images of no fold.
    """
    run, folds, fold_count = fitting.run, fitting.folds, int(fitting.folds.max()) + 1
    detectors, predictions = [], [Annotations.empty()] * len(fitting.data)
    for fold in range(fold_count):
        logger.info("Round %d, fold %d of %d: training on the other folds", number, fold + 1, fold_count)
        rest, fold_rows = (np.flatnonzero(which).tolist() for which in (folds != fold, folds == fold))
        training = fitting.data.subset(rest)
        training = training.with_each([with_given(labels, training) for labels in sets_of(rest, training)])
        detector = fit_network(run.folder / f"fold-{number}-{fold + 1}", config, training, run, training_set)
        with run.timed("pseudo labels"):
            predicted = boxes_for_tags(detector, fitting.tagged, fold_rows, "Out-of-fold predictions")
        for row, boxes in zip(fold_rows, predicted, strict=True):
            predictions[row] = boxes
        detectors.append(detector)
    return detectors, predictions


def first_round_config(config: Config) -> Config:
    """The settings of the networks of the first round, from those of the others: seeds are worth less training."""
    training = config.training
    shorter = {"steps": math.ceil(training.steps * FIRST_ROUND_STEPS)}
    if training.epochs is not None:
        shorter["epochs"] = math.ceil(training.epochs * FIRST_ROUND_STEPS)
    # Mosaics need consensus labels.
    return config.model_copy(
        update={
            "pseudo_labels": config.pseudo_labels.model_copy(update={"mosaics": 0}),
            "training": training.model_copy(update=shorter),
        }
    )
