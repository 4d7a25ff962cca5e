"""From tags to a detector: which network learns from what, in which order."""

import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from boxless.backbones import fingerprint
from boxless.cache import digest
from boxless.cached_dataset import CachedDataset, prepare
from boxless.config import Config, FastRCNNConfig, FCOSConfig, MILConfig, TrainingConfig, read_yaml, resolve
from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.features import views_of
from boxless.methods import BoxSupervisedDetector, Localizer
from boxless.methods.presets import DEFAULT_METHOD, preset
from boxless.methods.refinement import mining
from boxless.progress import announce, console
from boxless.pseudo_labels.mosaic import mosaics
from boxless.pseudo_labels.recipe import agreement, find_boxes, teaching
from boxless.run_folder import (
    FOLD,
    FORMAT,
    LOCALIZER,
    MOSAICS,
    Network,
    begin_run,
    build_network,
    check_run,
    dataset_digest,
    finish_run,
    read_history,
    read_manifest,
    save_network,
    versions,
)
from boxless.structures import Dataset
from boxless.training.engine import train_network
from boxless.training.fitting import fit_outlines, fit_pca
from boxless.training.tracking import check_trackers, start_trackers


def train(
    data: Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    method: str | None = None,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    options: Sequence[str] = (),
    seed: int | None = None,
    backbone: str | None = None,
    trackers: Sequence[str] = (),
) -> Detector:
    """Train a detector from image-level tags; boxes, where the data has them, are not looked at.

    The one exception has to be asked for: with the setting `supervision=boxes` true boxes teach the heads, which is the
    ceiling that tags are measured against. The manifest and every evaluation then say so.

    The same call on an unfinished run folder goes on after its last whole epoch and ends, on the CPU, with the same
    weights as one that was never stopped; on a finished one it only loads.

    Args:
        data: a dataset, or a path that `load_dataset` takes.
        out: the run folder.
        method: a preset; by default that of `config`, else `seeded`.
        split: of the data at `data`.
        classes: train for these only.
        config: YAML file laid over the preset.
        options: `key=value` settings laid over both, such as `training.epochs=8`.
        seed: of weights, order and dropout; on the CPU the same seed gives the same bits.
        backbone: name of the backbone.
        trackers: `tensorboard`, `wandb`.

    Raises:
        BoxlessError: a setting, the data, or the run folder does not fit. Settings are checked before any work starts.
    """
    run = Path(out)
    settings = _settings(method, config, options, seed, backbone)
    check_trackers(trackers)
    dataset = announce(_training_set(data, split, classes))
    monitored = _monitored(data, settings, dataset.classes)
    if settings.supervision == "boxes":
        _check_boxes(dataset)
        console.print("[bold yellow]Trained with true boxes (supervision=boxes): a ceiling, not a result from tags.[/]")
    else:
        # From here on nothing of the training set carries a box.
        dataset = dataset.tags_only()
    _check_tags(dataset)
    detector = _run(dataset, run, settings, trackers, monitored)
    _tell_time(read_manifest(run)["seconds"])
    return detector


def _run(
    data: Dataset | CachedDataset,
    run: Path,
    settings: Config,
    trackers: Sequence[str] = (),
    monitored: Dataset | None = None,
    leader: BoxSupervisedDetector | None = None,
) -> Detector:
    """Train one network.

    Args:
        data: what it learns from; a run within a run is given what that one has prepared.
        run: its folder.
        settings: its own.
        trackers: see `train`.
        monitored: what to evaluate on after every epoch.
        leader: has learned what is in an image and what describes a cell: given to the heads of second opinions, whose
            images have pseudo boxes.
    """
    dataset = data.dataset if isinstance(data, CachedDataset) else data
    network = build_network(settings, len(dataset.classes))
    accelerator = _accelerator(settings.training, run, trackers)
    detector = Detector(network, settings, dataset.classes, accelerator.device, run.resolve().name)
    with accelerator.main_process_first():
        check_run(run, settings)
        ready = data if isinstance(data, CachedDataset) else _prepared(data, settings, detector)
        manifest = _manifest(ready, settings, network)
        finished = begin_run(run, settings, manifest)
    if finished:
        console.print(f"{run}: already trained; to train anew delete it or choose another --out", highlight=False)
        return Detector.load(run)
    seconds = dict(ready.seconds)
    if isinstance(network.model, BoxSupervisedDetector):
        ready, spent, found = _lessons(network.model, ready, run, settings, detector, leader)
        seconds |= spent
        manifest |= found
    start_trackers(accelerator, run, settings.model_dump(), digest(manifest["data"] | settings.model_dump()))
    train_network(accelerator, run, settings, network, ready, detector, monitored)
    seconds["training"] = sum(row["seconds"] for row in read_history(run))
    if isinstance(network.model, Localizer):
        seconds["training"] += fit_outlines(network.model, ready, detector)
    if accelerator.is_main_process:
        save_network(run, network)
        finish_run(run, manifest | {"seconds": {stage: round(spent, 1) for stage, spent in seconds.items()}})
    accelerator.wait_for_everyone()
    if trackers:
        # It ends the processes' group too, which runs within a run still need.
        accelerator.end_training()
    # As a resumed run loads it: accelerate has changed the precision of the network that was trained.
    return Detector.load(run, accelerator.device)


def _prepared(dataset: Dataset, settings: Config, detector: Detector) -> CachedDataset:
    """The maps and proposals that a run, and all runs within it, read."""
    # Second opinions are asked in the views of inference where they are of the same method.
    views = views_of(settings.views) + (detector.views if isinstance(settings.head, FastRCNNConfig) else ())
    proposals = settings.proposals if settings.pseudo else detector.proposals
    ready = prepare(dataset, detector.features, list(dict.fromkeys(views)), proposals)
    # Of those that can be read.
    _check_tags(ready.dataset)
    return ready


def _lessons(
    model: BoxSupervisedDetector,
    ready: CachedDataset,
    run: Path,
    settings: Config,
    detector: Detector,
    leader: BoxSupervisedDetector | None,
) -> tuple[CachedDataset, dict[str, float], dict[str, Any]]:
    """What teaches a head: images with boxes. The model is given all that it does not learn.

    Returns:
        The images, what took how many seconds, and what the manifest says of the boxes.
    """
    seconds: dict[str, float] = {}
    manifest = {}
    if leader is not None:
        model.follow(leader)
    else:
        localizer = _localizer(ready, run, settings)
        seconds["localizer"] = read_manifest(run / LOCALIZER)["seconds"]["training"]
        assert isinstance(localizer.model, Localizer)
        model.start_from(localizer.model)
        fit_pca(model, ready, views_of(settings.views)[0], settings.seed)
        if settings.pseudo:
            ready, spent = _with_pseudo_boxes(ready, run, settings, localizer, model)
            seconds |= spent
            manifest["pseudo_labels"] = agreement(ready.dataset)
    start = time.perf_counter()
    ready = _with_mosaics(teaching(ready), run, settings, detector)
    seconds["mosaics"] = time.perf_counter() - start
    # Pseudo boxes end at the edges of proposals, which the detector itself need not read.
    return replace(ready, proposals=ready.proposals if detector.proposals else None), seconds, manifest


def _localizer(ready: CachedDataset, run: Path, settings: Config) -> Detector:
    """Train the classifier whose heatmaps give the first boxes: a run of its own within the run folder."""
    everything = ready.part(range(len(ready.keys)))
    bare = replace(everything, dataset=ready.dataset.tags_only(), proposals=None)
    return _run(bare, run / LOCALIZER, _within(settings, "cam"))


def _within(settings: Config, method: str, **own: Any) -> Config:
    """The settings of a run within a run: those of another method, on the same maps."""
    return resolve(
        preset(method),
        seed=settings.seed,
        backbone=settings.backbone.model_dump(),
        views=settings.views.model_dump(),
        # accelerate keeps these for the whole process.
        training=settings.training.model_dump(include={"precision", "accumulate", "workers"}),
        **own,
    )


def _teacher(settings: Config, turn: int) -> Config:
    """The settings of the heads that give second opinions: those of `seeded`, whichever head the boxes are for.

    All heads of a run share their principal components.
    """
    if isinstance(settings.head, FCOSConfig):
        shared = settings.model_dump(include={"proposals", "pseudo_labels"})
        settings = _within(settings, "seeded", head={"components": settings.head.components}, **shared)
    if turn > 1:
        return settings
    # Pieces of images want boxes that were agreed on, and of boxes that were not, less is to be learned.
    boxes = settings.pseudo_labels.model_copy(update={"mosaics": 0})
    training = settings.training.model_copy(update={"steps": math.ceil(settings.training.steps * FIRST)})
    return settings.model_copy(update={"pseudo_labels": boxes, "training": training})


FIRST = 2 / 3
"""Steps of the first round's heads, over those of the second's."""


def _with_mosaics(ready: CachedDataset, run: Path, settings: Config, detector: Detector) -> CachedDataset:
    """The images, and beside them some that are put together from pieces of those with one sure box."""
    views = views_of(settings.views)
    most, scale = settings.pseudo_labels.mosaics, max(settings.views.scales)
    with PartialState().main_process_first():
        composed = mosaics(ready.dataset.samples, most, settings.seed, scale, run / MOSAICS)
        if not composed:
            return ready
        dataset = replace(ready.dataset, samples=composed)
        proposals = ready.proposals.config if ready.proposals else None
        return ready.joined(prepare(dataset, detector.features, views, proposals))


def _with_pseudo_boxes(
    ready: CachedDataset, run: Path, settings: Config, localizer: Detector, leader: BoxSupervisedDetector
) -> tuple[CachedDataset, dict[str, float]]:
    """The images with pseudo boxes, and what took how many seconds.

    The heads that give second opinions are runs within the run folder.
    """
    assert not ready.dataset.has_boxes
    opinions: list[Path] = []
    start, elsewhere = time.perf_counter(), 0.0

    def teach(turn: int, fold: int, part: CachedDataset) -> Detector:
        nonlocal elsewhere
        begun = time.perf_counter()
        opinions.append(run / f"{FOLD}-{turn}-{fold}")
        detector = _run(part, opinions[-1], _teacher(settings, turn), leader=leader)
        elsewhere += time.perf_counter() - begun
        return detector

    found = find_boxes(ready, settings.pseudo_labels, settings.seed, localizer, teach)
    spent = {"pseudo boxes": time.perf_counter() - start - elsewhere}
    # Their own word, as a resumed run finds some of them trained.
    spent["second opinions"] = sum(sum(read_manifest(opinion)["seconds"].values()) for opinion in opinions)
    counts = agreement(found.dataset).values()
    kept, number = (sum(count[key] for count in counts) for key in ("kept", "all"))
    console.print(f"{kept} of {number} pseudo boxes agree", highlight=False)
    return found, spent


def _settings(
    method: str | None,
    config: str | os.PathLike[str] | None,
    options: Sequence[str],
    seed: int | None,
    backbone: str | None,
) -> Config:
    file = None if config is None else Path(config)
    # A preset is a composition: its name cannot be changed beside it.
    named = None if file is None else read_yaml(file).get("method")
    if any(option.startswith("method=") for option in options) or (method and named and method != named):
        raise BoxlessError(
            f"the method is given twice: --method {method or DEFAULT_METHOD}, and in the settings; give it once"
        )
    backbone_settings = None if backbone is None else {"name": backbone}
    settings = resolve(preset(method or named or DEFAULT_METHOD), file, options, seed=seed, backbone=backbone_settings)
    if isinstance(settings.head, MILConfig) and settings.head.refinement is not None:
        # Only training needs the rule, so a run whose rule was added from outside loads anywhere.
        mining(settings.head.refinement.mining)
    return settings


def _training_set(data: Dataset | str | os.PathLike[str], split: str | None, classes: Sequence[str] | None) -> Dataset:
    if not isinstance(data, Dataset):
        return load_dataset(data, split, classes)
    if split is not None:
        raise BoxlessError(f"split={split} names a part of a path; here a dataset was given, which is one part already")
    return data if classes is None else data.with_classes(classes)


def _tell_time(seconds: Mapping[str, float]) -> None:
    total = max(sum(seconds.values()), 1e-9)
    parts = [f"{stage} {spent / 60:.1f} min ({spent / total:.0%})" for stage, spent in seconds.items()]
    console.print(f"Where the time went: {', '.join(parts)}", highlight=False)


def _monitored(data: Dataset | str | os.PathLike[str], config: Config, classes: Sequence[str]) -> Dataset | None:
    if config.training.monitor is None:
        return None
    if isinstance(data, Dataset):
        raise BoxlessError("training.monitor names a split of a path; here a dataset was given: evaluate it afterwards")
    return load_dataset(data, config.training.monitor).with_classes(classes, strict=False)


def _check_tags(dataset: Dataset) -> None:
    targets = dataset.image_labels()
    if not (targets == 1).any():
        raise BoxlessError(f"{dataset.name}: no image has a tag; there is nothing to learn from")
    if len(dataset.classes) == 1 and not (targets == 0).any():
        raise BoxlessError(
            f"{dataset.name}: every image has the one tag '{dataset.classes[0]}': nothing tells it from its "
            "background; add images without it"
        )


def _check_boxes(dataset: Dataset) -> None:
    bare = [sample.path for sample in dataset.samples if sample.annotations is None]
    if bare:
        raise BoxlessError(
            f"{dataset.name}: supervision=boxes needs boxes on every image, and {len(bare)} of {len(dataset)} have "
            f"none, such as {bare[0]}; without this setting tags are enough"
        )


def _accelerator(training: TrainingConfig, run: Path, trackers: Sequence[str]) -> Accelerator:
    # accelerate keeps the precision of a process's first run, which need not be that of its second.
    AcceleratorState._reset_state()
    try:
        return Accelerator(
            mixed_precision="no" if training.precision == "fp32" else training.precision,
            gradient_accumulation_steps=training.accumulate,
            log_with=list(trackers) or None,
            project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run)),
            # The others wait while one process prepares the images, which may take hours.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))],
        )
    except ValueError as error:
        raise BoxlessError(f"training.precision={training.precision}: {error}") from None


def _manifest(ready: CachedDataset, config: Config, network: Network) -> dict[str, Any]:
    dataset = ready.dataset
    # Pseudo boxes follow from the rest, to the last bit on one machine only.
    given = dataset if config.supervision == "boxes" else dataset.tags_only()
    return {
        "format": FORMAT,
        "method": config.method,
        "supervision": config.supervision,
        "seed": config.seed,
        "classes": list(dataset.classes),
        "data": {"name": dataset.name, "images": len(dataset), "digest": dataset_digest(given, ready.keys)},
        "skipped": {str(path): reason for path, reason in ready.skipped.items()},
        "weights": {
            "source": network.backbone.source,
            "licence": network.backbone.licence,
            "frozen": fingerprint(network.frozen),
        },
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
        "seconds": ready.seconds,
        "finished": False,
    }
