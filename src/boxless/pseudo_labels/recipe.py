"""How image tags become the boxes that a detector is trained on: the steps in order.

    cam        1  A linear classifier of the tags gives class activation maps, another one local CAMs.
               2  Objectness, fitted without boxes, tells where objects end: one CAM box a tag.
    seeds      3  A box of the first seed for each tag, snapped to proposals, and of the others where they are needed;
                  of classes with enough given boxes those that a network predicts which is trained on them.
    held_out   4  Cross-fitting, in rounds: networks trained on the labels of the other folds predict the box of every
                  tag. The first round is trained on the first seed, the next on its consensus with out-of-fold
                  predictions or, if these rarely agree, on all boxes of the seeds; on those of local CAMs only if these
                  classify held-out images well (`local_cam_errors`).
    rescaled   5  Small objects: the same networks predict at a larger scale.
    labels     6  The consensus of what was predicted by different means, or all of it if that rarely agrees, snapped to
                  proposals.

Boxes that a person has given are ground truth: wherever something is trained they take the place of the pseudo labels
of their image and class, and no step predicts these anew. Where a person counted objects or pointed at them, the last
networks of step 4 predict a box of each (`counted`).

What the networks have in common, the frozen backbone, the CAM and the principal components, is `Shared`: computed once,
stored once, and handed from step to step.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.torch import load_file

from boxless.cached_dataset import CachedDataset
from boxless.config import Config, resolve
from boxless.detector import Detector
from boxless.distributed import on_main_process
from boxless.methods import BoxSupervised, preset
from boxless.network import Shared, save_weights
from boxless.pseudo_labels.consensus import (
    HELD_OUT_COPIES,
    class_agreement,
    classes_never_kept,
    classes_without_consensus,
    consensus,
    kept_labels,
    label_sets,
)
from boxless.pseudo_labels.counted import with_counted
from boxless.pseudo_labels.cross_fitting import CrossFitting, draw_folds, first_round, later_round
from boxless.pseudo_labels.given import (
    given_alone,
    replace_classes,
    seed_classes,
    with_given,
    without_given,
)
from boxless.pseudo_labels.held_out import boxes_for_tags, calibrated
from boxless.pseudo_labels.local_cam_errors import local_cams_classify_well
from boxless.pseudo_labels.mosaic import training_set
from boxless.pseudo_labels.seeds import LOCAL_CAM_SEEDS, SEEDS
from boxless.pseudo_labels.small_objects import consensus_with_small, rescaled_pass
from boxless.pseudo_labels.snapping import snap_all
from boxless.run_folder import BACKBONE, CAM_RUN, WEIGHTS, read_manifest
from boxless.structures import Annotations
from boxless.training.fit import Run, fit_network
from boxless.trust import trust_warning, untrusted_classes
from boxless.views import views_of
from boxless.wording import counted

logger = logging.getLogger(__name__)

PCA, GIVEN, HELD_OUT_ERRORS = "pca.safetensors", "given", "held_out_errors.json"
"""Where a run folder has the principal components, the run of the network that is trained on given boxes alone, and
what `local_cam_errors` measured."""
PCA_IMAGES = 100
"""Images that principal components are fitted to; more change nothing (docs/lab_book)."""


def fit_shared(run: Run, data: CachedDataset) -> Detector:
    """Steps 1 and 2, and the principal components: what every network of a run needs before it is trained.

    Args:
        run: of the final detector, which gets the CAM and the principal components too.
        data: the training images; only their tags are used.

    Returns:
        The CAM.
    """
    config, network = run.detector.config, run.network
    assert isinstance(network.model, BoxSupervised)
    files = {"frozen": run.folder / BACKBONE}
    if run.accelerator.is_main_process and not files["frozen"].exists():
        save_weights(network.frozen, files["frozen"])
    run.shared = Shared(run.folder, network.backbone, network.frozen, files)
    cam = fit_network(run.folder / CAM_RUN, method_config(config, "cam"), data.tags_only(), run)
    run.seconds["cam"] = read_manifest(run.folder / CAM_RUN)["seconds"]["training"]
    network.model.cam.load_state_dict(cam.model.state_dict())
    files = {**files, "model.cam": run.folder / CAM_RUN / WEIGHTS, "model.pca": run.folder / PCA}
    with run.timed("cam"), run.accelerator.main_process_first():
        # Networks that an interrupted run has finished were trained on these components.
        if not files["model.pca"].exists():
            _fit_pca(network.model, data, config)
            save_weights(network.model.pca, files["model.pca"])
    network.model.pca.load_state_dict(load_file(files["model.pca"]))
    run.shared = replace(run.shared, files=files)
    return cam


def make_pseudo_labels(run: Run, data: CachedDataset, cam: Detector) -> CachedDataset:
    """Steps 3 to 6: the training images with their pseudo labels, once for every set of them."""
    rules, boxed = run.detector.config.pseudo_labels, seed_classes(data.dataset)
    folds, networks = draw_folds(data, rules.folds, run.detector.config.seed), cross_fitting_config(run.detector.config)
    fitting = CrossFitting(run, data, without_given(data), folds, networks, boxed)
    predicted = _predicted_from_given(fitting) if boxed else None

    first = rules.seeds[0]
    seeds = {first: _seed_boxes(first, fitting, cam, predicted)}
    detectors, held_out = first_round(fitting, seeds[first])
    no_consensus = classes_without_consensus(consensus(seeds[first], held_out, data.sizes, rules.consensus_iou), boxed)
    if no_consensus:
        seeds |= {name: _seed_boxes(name, fitting, cam, predicted) for name in _further_seeds(run, data, cam)}
    for number in range(2, rules.rounds + 1):
        detectors, held_out = later_round(fitting, number, list(seeds.values()), held_out, no_consensus)

    with run.timed("pseudo labels"):
        rescaled, small = rescaled_pass(detectors, fitting.tagged, folds, held_out, boxed)
        merged = consensus_with_small(seeds[first], held_out, rescaled, small, data.sizes, rules.consensus_iou)
        never_kept = classes_never_kept(merged, boxed)
        predictions = [*seeds.values(), *[rescaled] * HELD_OUT_COPIES]
        sets = label_sets(merged, predictions, sorted({*no_consensus, *never_kept}))
        sets = with_counted(sets, detectors, fitting.tagged, folds)
        sets = [with_given(snap_all(labels, data, boxed), data) for labels in sets]
    _calibrate(fitting, detectors)
    run.manifest["seeds"] = list(seeds)
    agreement = class_agreement(seeds[first], held_out, data.sizes, len(data.dataset.classes))
    # Of classes with given boxes both predictions come from these, so their agreement tells nothing.
    _record(run, data.with_boxes(merged), [None if label in boxed else one for label, one in enumerate(agreement)])
    _log_consensus(data.dataset.classes, list(seeds), no_consensus, never_kept)
    return data.with_each(sets)


def _seed_boxes(
    name: str, fitting: CrossFitting, cam: Detector, predicted: Sequence[Annotations] | None
) -> list[Annotations]:
    """The boxes of a seed, snapped to proposals; of classes with enough given boxes those that are `predicted`."""
    with fitting.run.timed("pseudo labels"):
        boxes = snap_all(SEEDS.find(name)(fitting.tagged, cam), fitting.data)
    return boxes if predicted is None else replace_classes(boxes, predicted, fitting.boxed)


def _calibrate(fitting: CrossFitting, detectors: Sequence[Detector]) -> None:
    """Put the calibration into the manifest of a method whose scores are like those of the cross-fitted networks."""
    run, data = fitting.run, fitting.data
    if detectors and run.detector.config.head.scores_proposals:
        with run.timed("calibration"):
            fitted_to = calibrated(detectors, data, fitting.folds, run.detector.config.seed)
        run.manifest["calibration"] = fitted_to.by_class(data.dataset.classes)


def _log_consensus(
    classes: Sequence[str], seeds: Sequence[str], no_consensus: Sequence[int], never_kept: Sequence[int]
) -> None:
    """Log which classes are trained without consensus, and on what."""
    if no_consensus:
        logger.info(
            "Consensus is skipped: seeds and out-of-fold boxes agreed on too few tags in round 1. Training on the "
            "seeds %s and on out-of-fold boxes",
            ", ".join(seeds),
        )
    elif never_kept:
        logger.info(
            "No pseudo label of %s was kept: training on its boxes of seed %s and its out-of-fold boxes",
            ", ".join(classes[label] for label in never_kept),
            seeds[0],
        )


def _further_seeds(run: Run, data: CachedDataset, cam: Detector) -> list[str]:
    """The names of the seeds after the first; those of local CAMs only where these classify held-out images well."""
    config = run.detector.config
    names, errors = list(config.pseudo_labels.seeds[1:]), run.folder / HELD_OUT_ERRORS
    if LOCAL_CAM_SEEDS.isdisjoint(names):
        return names
    with run.timed("pseudo labels"):
        # Processes whose devices round differently must not train on different seeds.
        trained_on = on_main_process(lambda: local_cams_classify_well(data, cam, config.seed, errors))
    return names if trained_on else [name for name in names if name not in LOCAL_CAM_SEEDS]


def _record(run: Run, merged: CachedDataset, agreement: Sequence[float | None]) -> None:
    """Put into the manifest on how many labels predictions agree, and how well for each class, and log both."""
    # From the manifests, so that networks that were trained before an interruption count too.
    fitted = [file.parent for file in run.folder.glob("fold-*/manifest.json")]
    run.seconds["cross-fitting"] = sum(sum(read_manifest(fold)["seconds"].values()) for fold in fitted)
    counts = kept_labels(merged.dataset)
    pairs = zip(counts.items(), agreement, strict=True)
    run.manifest["pseudo_labels"] = {name: {**own, "agreement": value} for (name, own), value in pairs}
    if untrusted := untrusted_classes(run.manifest):
        logger.warning(trust_warning(untrusted))
    kept, number = (sum(count[key] for count in counts.values()) for key in ("kept", "all"))
    min_iou = run.detector.config.pseudo_labels.consensus_iou
    logger.info("Predictions agree on %d of %d boxes (chance-corrected IoU >= %g)", kept, number, min_iou)


def _predicted_from_given(fitting: CrossFitting) -> list[Annotations]:
    """The boxes of all tags without a given box, by a network that is trained on the given ones alone."""
    run, boxed = fitting.run, given_alone(fitting.data)
    images = sum(bool(sample.tags) for sample in boxed.dataset.samples)
    logger.info("Training on the given boxes of %s", counted(images, "image"))
    detector = fit_network(run.folder / GIVEN, fitting.config, boxed, run, training_set)
    run.seconds["given boxes"] = sum(read_manifest(run.folder / GIVEN)["seconds"].values())
    with run.timed("given boxes"):
        return boxes_for_tags(detector, fitting.tagged, range(len(fitting.tagged)), "Seeds from given boxes")


def cross_fitting_config(config: Config) -> Config:
    """The settings of the networks that are cross-fitted: those of the run if it scores proposals, else of `seeded`."""
    if config.head.scores_proposals:
        return config
    # All networks of a run share their principal components.
    shared = config.model_dump(include={"proposals", "pseudo_labels"})
    return method_config(config, "seeded", head={"pca_dims": config.head.model_dump()["pca_dims"]}, **shared)


def method_config(config: Config, method: str, **own: Any) -> Config:
    """The settings of another method on the same feature maps."""
    return resolve(
        preset(method),
        seed=config.seed,
        backbone=config.backbone.model_dump(),
        views=config.views.model_dump(),
        # Batches and steps are of the other method.
        training=config.training.model_dump(include={"precision", "workers"}),
        **own,
    )


def _fit_pca(model: BoxSupervised, data: CachedDataset, config: Config) -> None:
    rows = np.random.default_rng(config.seed).permutation(len(data))[:PCA_IMAGES].tolist()
    view = views_of(config.views)[0]
    model.pca.fit(data.map(row, view).float() for row in rows)
