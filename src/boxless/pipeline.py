"""From a dataset to a trained detector."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from boxless.cached_dataset import CachedDataset, cache_together
from boxless.config import Config, ProposalConfig, read_yaml, resolve
from boxless.datasets import load_dataset, open_dataset
from boxless.datasets.labels import with_labels
from boxless.detector import Detector
from boxless.devices import default_device, join_processes
from boxless.distributed import batch_share, on_main_process
from boxless.errors import BoxlessError
from boxless.evaluation import in_classes
from boxless.files import expand_user
from boxless.logs import log_warnings
from boxless.methods import DEFAULT_METHOD, preset
from boxless.network import build_network
from boxless.progress import progress_bars
from boxless.proposals import GENERATORS
from boxless.proposals.choice import choose_proposals
from boxless.pseudo_labels import SEEDS
from boxless.pseudo_labels.mosaic import training_set
from boxless.pseudo_labels.recipe import cross_fitting_config, fit_shared, make_pseudo_labels, method_config
from boxless.run_folder import MANIFEST, read_config, read_manifest, write_training_images
from boxless.structures import Dataset
from boxless.training.engine import OnEpochEnd
from boxless.training.fit import Run, begin, create_run, fit
from boxless.training.tracking import check_trackers
from boxless.views import views_of
from boxless.wording import counted, duration

logger = logging.getLogger(__name__)


def train(
    data: Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    method: str | None = None,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    options: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    backbone: str | None = None,
    trackers: Sequence[str] = (),
    on_epoch_end: OnEpochEnd | None = None,
    progress: bool = True,
) -> Detector:
    """Train a detector on image-level tags; boxes, where the data has them, are not read.

    The exceptions: with `supervision=boxes` the ground truth is trained on, which gives the fully supervised upper
    bound; boxes in `labels` are trained on beside tags. The manifest and every evaluation state what was used.

    The same call on an unfinished run folder continues after its last finished epoch and ends, on the CPU, with the
    same weights as an uninterrupted one. A finished folder is loaded, once the cache has what training would read.

    >>> detector = train("tags.csv", "runs/first", settings={"training": {"steps": 1200}})  # doctest: +SKIP

    Args:
        data: a dataset, or a path that `load_dataset` takes.
        out: the run folder.
        labels: reviewed tags, unknown tags, boxes, counts and points, which override those of the data
            (`datasets.labels.with_labels`); boxes may choose other proposals (`proposals.choice`).
        method: a name in `methods.PRESETS`; by default that of `config`, else `seeded`.
        split: of the data at `data`.
        classes: train for these only.
        config: YAML file laid over the preset.
        options: `key=value` settings laid over both, such as `training.epochs=8`.
        settings: nested settings laid over all of these, such as `{"training": {"epochs": 8}}`.
        seed: of initial weights, order and dropout; on the CPU the same seed gives the same bits.
        backbone: name of the backbone.
        trackers: `tensorboard`, `wandb`.
        on_epoch_end: called after every epoch of every network of the run with its losses, `epoch`, `epochs`, `seconds`
            and the network's folder as `run`; training is cancelled if it returns False.
        progress: whether to show progress bars.

    Raises:
        BoxlessError: a setting, the data, or the run folder does not fit. Settings are checked before any work starts.
        CancelledError: `on_epoch_end` returned False; the same call resumes the run.
    """
    with progress_bars(progress):
        resolved = _resolve(method, config, options, settings, seed, backbone)
        check_trackers(trackers)
        dataset = on_main_process(lambda: _load_training_data(data, split, classes, labels, resolved))
        monitored = on_main_process(lambda: _monitored(data, resolved, dataset.classes))
        resolved = _with_proposals(resolved, dataset, expand_user(out))
        run = create_run(expand_user(out), resolved, dataset.classes, trackers=trackers, on_epoch_end=on_epoch_end)
        with _own_random_state(run.detector.device):
            detector = _train(run, dataset, monitored)
        _log_time("Trained", read_manifest(run.folder)["seconds"])
        return detector


def prepare(
    data: Dataset | str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    method: str | None = None,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    options: Sequence[str] = (),
    backbone: str | None = None,
    share: tuple[int, int] = (1, 1),
) -> CachedDataset:
    """Compute the proposals and feature maps that `train` reads of images, for all of them or a share.

    Cached results are reused, on other machines too if they share the cache folder. Mosaics are not prepared: they
    depend on the pseudo labels.

    Args:
        data, labels, method, split, classes, config, options, backbone: as for `train`.
        share: i and n: every n-th image, from the i-th on.

    Raises:
        BoxlessError: see `train`; or there is no such share, or it has no image.
    """
    first, step = share
    if not 1 <= first <= step:
        raise BoxlessError(f"share={share}: takes i and n with i from 1 to n, such as (3, 8)")
    resolved = _resolve(method, config, options, None, None, backbone)
    dataset = on_main_process(lambda: _load_training_data(data, split, classes, labels, resolved))
    own = replace(dataset, samples=dataset.samples[first - 1 :: step])
    if not own.samples:
        images = counted(len(dataset), "image")
        raise BoxlessError(f"{dataset.name}: {images}, of which share {first}/{step} has none; give fewer shares")
    resolved = _with_proposals(resolved, dataset)
    network = build_network(resolved, len(dataset.classes))
    cached = _cache(own, Detector(network, resolved, dataset.classes, default_device(), dataset.name))
    _log_time("Prepared", cached.seconds)
    return cached


def _check_batches(config: Config, processes: int) -> None:
    """Check, before any work starts, that processes can share the batches of the networks within a run."""
    if not config.head.box_supervised:
        return
    inner = [method_config(config, "cam")]
    if config.uses_pseudo_labels:
        inner.append(cross_fitting_config(config))
    try:
        for own in inner:
            batch_share(own.training, processes)
    except BoxlessError:
        sizes = " and ".join(str(own.training.batch_size) for own in inner)
        raise BoxlessError(
            f"{config.method} trains further networks in batches of {sizes} images, which {processes} processes cannot "
            "share evenly: start as many as divide these numbers"
        ) from None


def _own_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Restore the caller's random state after the block: of the CPU, and of GPUs where one is used."""
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" else []
    return torch.random.fork_rng(devices=gpus)


def _train(run: Run, dataset: Dataset, monitored: Dataset | None) -> Detector:
    data = _cache(dataset, run.detector)
    # Again, for the images that can be read.
    _check_tags(data.dataset, run.detector.config)
    resumed = (run.folder / MANIFEST).exists()
    begin(run, data)
    if resumed and not run.finished:
        logger.info("%s: continues a training that was stopped", run.folder)
    if not run.finished and run.accelerator.is_main_process:
        write_training_images(run.folder, data.keys)
    if run.manifest["supervision"] not in ("tags", "boxes"):
        logger.info("Trained on: %s", run.manifest["supervision"])
    if run.finished:
        logger.info("%s: already trained; to train anew delete it or choose another --out", run.folder)
    elif run.detector.config.head.box_supervised:
        cam = fit_shared(run, data)
        if run.detector.config.uses_pseudo_labels:
            data = make_pseudo_labels(run, data, cam)
        data = training_set(data, run)
    return fit(run, data, monitored)


def _cache(dataset: Dataset, detector: Detector) -> CachedDataset:
    """The feature maps and proposals that all networks of a run read."""
    config = detector.config
    views, proposals = views_of(config.views), detector.proposals
    if config.uses_pseudo_labels:
        # Cross-fitted networks predict in their test views; pseudo labels are snapped to proposals.
        views, proposals = views + views_of(cross_fitting_config(config).test_views), config.proposals
    return cache_together(dataset, detector.features, list(dict.fromkeys(views)), proposals)


def _resolve(
    method: str | None,
    config: str | os.PathLike[str] | None,
    options: Sequence[str],
    settings: Mapping[str, Any] | None,
    seed: int | None,
    backbone: str | None,
) -> Config:
    file = None if config is None else expand_user(config)
    named = None if file is None else read_yaml(file).get("method")
    # A preset is a composition: its name cannot be changed beside it.
    twice = any(option.startswith("method=") for option in options) or "method" in (settings or {})
    if twice or (method and named and method != named):
        raise BoxlessError(
            f"the method is given twice: --method {method or DEFAULT_METHOD}, and in the settings; give it once"
        )
    layers = {**(settings or {})}
    if unknown := set(layers) - set(Config.model_fields):
        raise BoxlessError(
            f"settings: no such section as {', '.join(sorted(map(str, unknown)))}; there are "
            f"{', '.join(Config.model_fields)}"
        )
    if backbone is not None:
        own = layers.get("backbone")
        layers["backbone"] = {**(own if isinstance(own, Mapping) else {}), "name": backbone}
    if seed is not None:
        layers["seed"] = seed
    resolved = resolve(preset(method or named or DEFAULT_METHOD), file, options, **layers)
    # Parts that are looked up by name later are looked up once before any work starts.
    resolved.head.check()
    GENERATORS.find(resolved.proposals.generator)
    for name in resolved.pseudo_labels.seeds:
        SEEDS.find(name)
    _check_batches(resolved, join_processes().num_processes)
    return resolved


def _load_training_data(
    data: Dataset | str | os.PathLike[str],
    split: str | None,
    classes: Sequence[str] | None,
    labels: str | os.PathLike[str] | None,
    config: Config,
) -> Dataset:
    """The images with all that training may read of them: given boxes, and others only with `supervision=boxes`."""
    dataset = open_dataset(data, split, classes)
    if labels is not None:
        dataset = with_labels(dataset, labels, None if isinstance(data, Dataset) else expand_user(data))
    if config.supervision == "boxes" and (labels is not None or any(sample.given for sample in dataset.samples)):
        raise BoxlessError("--labels and supervision=boxes, which trains on all boxes of the data: give one of them")
    log_warnings(dataset)
    if config.supervision == "boxes":
        _check_boxes(dataset)
        logger.warning("Training on ground-truth boxes (supervision=boxes): a fully supervised upper bound")
        dataset = replace(dataset, samples=tuple(replace(one, counts={}, points=()) for one in dataset.samples))
    else:
        dataset = _usable(dataset, config)
    _check_tags(dataset, config)
    return dataset


def _with_proposals(config: Config, dataset: Dataset, folder: Path | None = None) -> Config:
    """The settings with the proposals that suit the given boxes; those of a run that was begun in the folder stay."""

    def choose() -> ProposalConfig:
        begun = None
        if folder is not None and (folder / MANIFEST).exists():
            # First, as it tells of a run of another version.
            read_manifest(folder)
            begun = read_config(folder).proposals
        return choose_proposals(dataset, config.proposals, begun)

    return config.model_copy(update={"proposals": on_main_process(choose)})


def _usable(dataset: Dataset, config: Config) -> Dataset:
    """Tags, and what a person labelled where the method is trained on boxes."""
    if config.head.box_supervised:
        return dataset.without_annotations()
    said = {
        "Given boxes": sum(sample.given is not None for sample in dataset.samples),
        "Counts or points": sum(bool(sample.counts or sample.points) for sample in dataset.samples),
    }
    for what, images in said.items():
        if images:
            whose = counted(images, "image")
            logger.warning("%s of %s are not used: %s is trained on tags alone", what, whose, config.method)
    return dataset.tags_only()


def _monitored(data: Dataset | str | os.PathLike[str], config: Config, classes: Sequence[str]) -> Dataset | None:
    if config.training.monitor is None:
        return None
    if isinstance(data, Dataset):
        raise BoxlessError("training.monitor names a split of a path; here a dataset was given: evaluate it afterwards")
    return in_classes(classes, log_warnings(load_dataset(data, config.training.monitor)))


def _check_tags(dataset: Dataset, config: Config) -> None:
    image_labels = dataset.image_labels()
    if not (image_labels == 1).any():
        raise BoxlessError(f"{dataset.name}: no image has a tag; there is nothing to train on")
    # Boxes tell an object from its background in any image.
    one_class = len(dataset.classes) == 1 and config.supervision != "boxes"
    if one_class and not (image_labels == 0).any():
        raise BoxlessError(
            f"{dataset.name}: no image is known not to show '{dataset.classes[0]}', the one class, which then cannot "
            "be told from its background; add images that do not show it"
        )


def _check_boxes(dataset: Dataset) -> None:
    bare = [sample.path for sample in dataset.samples if sample.annotations is None]
    if bare:
        raise BoxlessError(
            f"{dataset.name}: supervision=boxes needs boxes on every image, and {len(bare)} of {len(dataset)} have "
            f"none, such as {bare[0]}; without this setting tags are enough"
        )


def _log_time(done: str, seconds: Mapping[str, float]) -> None:
    total = max(sum(seconds.values()), 1e-9)
    parts = [f"{stage} {spent / 60:.1f} min ({spent / total:.0%})" for stage, spent in seconds.items()]
    logger.info("%s in %s: %s", done, duration(total), ", ".join(parts))
