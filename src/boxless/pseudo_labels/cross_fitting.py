"""Out-of-fold predictions (multi-fold multiple-instance learning; Cinbis, Verbeek, Schmid, PAMI 2017).

A network that was trained on the box of an image repeats it. One that was not is independent evidence.
"""

import logging
import math
from collections.abc import Sequence
from itertools import compress

import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.config import Config
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.pseudo_labels.consensus import classes_never_kept, consensus, label_sets
from boxless.pseudo_labels.given import needs_no_label, with_given, without_given
from boxless.pseudo_labels.held_out import boxes_for_tags
from boxless.pseudo_labels.mosaic import with_mosaics
from boxless.pseudo_labels.snapping import snap_all
from boxless.structures import Annotations, IntArray
from boxless.training.fit import Run, fit_network
from boxless.wording import counted

logger = logging.getLogger(__name__)

FIRST_ROUND_STEPS = 2 / 3
"""Training steps of the first round, over those of the next."""


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


def cross_fit(
    data: CachedDataset,
    seeds: Sequence[Sequence[Annotations]],
    held_out: Sequence[Annotations] | None,
    folds: IntArray,
    config: Config,
    run: Run,
    round_: int,
    boxed: Sequence[int],
    no_consensus: Sequence[int],
) -> tuple[list[Detector], list[Annotations]]:
    """Train a network for each fold on the images of the others, and predict the boxes of the fold's tags.

    Args:
        data: the training images, with tags and proposals.
        seeds: of every seed the boxes of the tags without a given box; given boxes are trained on too.
        held_out: out-of-fold predictions of the round before; networks are trained on their consensus with the first
            seed. None in the first round, whose networks are trained on the first seed.
        folds: of every image.
        config: of networks of a later round; the first is trained for less, see `fold_config`.
        run: of the final detector; the networks are runs within its folder and share what it shares.
        round_: from 1 on.
        boxed: classes whose seeds come from given boxes, see `snap_all`.
        no_consensus: classes without it, which are trained on the boxes of all seeds, see `consensus.label_sets`.

    Returns:
        The networks, and for each image the boxes of its tags without a given box.
    """
    config = fold_config(config, round_)
    detectors, predictions, tagged = [], list(seeds[0]), without_given(data)
    for fold in range(int(folds.max()) + 1):
        rest, own = np.flatnonzero(folds != fold).tolist(), np.flatnonzero(folds == fold).tolist()
        logger.info("Round %d, fold %d of %d: training on the other folds", round_, fold + 1, int(folds.max()) + 1)
        training, own_seeds = data.subset(rest), [[boxes[row] for row in rest] for boxes in seeds]
        sets = own_seeds[:1]
        if held_out is not None:
            others, min_iou = [held_out[row] for row in rest], config.pseudo_labels.consensus_iou
            merged = consensus(own_seeds[0], others, training.sizes, min_iou)
            sets = label_sets(merged, own_seeds, sorted({*no_consensus, *classes_never_kept(merged, boxed)}))
            sets = [snap_all(labels, training, boxed) for labels in sets]
        training = training.with_each([with_given(labels, training) for labels in sets])
        folder = run.folder / f"fold-{round_}-{fold + 1}"
        detector = fit_network(folder, config, training, run, with_mosaics)
        with run.timed("pseudo labels"):
            predicted = boxes_for_tags(detector, tagged, own, "Out-of-fold predictions")
        for row, boxes in zip(own, predicted, strict=True):
            predictions[row] = boxes
        detectors.append(detector)
    return detectors, predictions


def fold_config(config: Config, round_: int) -> Config:
    """Settings of the networks of a round, from those of a method that scores proposals."""
    if round_ > 1:
        return config
    training = config.training
    shorter = {"steps": math.ceil(training.steps * FIRST_ROUND_STEPS)}
    if training.epochs is not None:
        shorter["epochs"] = math.ceil(training.epochs * FIRST_ROUND_STEPS)
    # Mosaics need consensus labels, and seeds are worth less training.
    return config.model_copy(
        update={
            "pseudo_labels": config.pseudo_labels.model_copy(update={"mosaics": 0}),
            "training": training.model_copy(update=shorter),
        }
    )
