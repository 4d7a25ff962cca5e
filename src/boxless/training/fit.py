"""Fits one network into one run folder, from the last checkpoint on where it was interrupted."""

import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, ProjectConfiguration

from boxless.backbones import fingerprint
from boxless.cache import digest
from boxless.cached_dataset import CachedDataset
from boxless.config import Config, TrainingConfig
from boxless.detector import Detector
from boxless.devices import join_processes, launch_errors
from boxless.distributed import batch_share, on_main_process
from boxless.errors import BoxlessError
from boxless.methods import HeatmapModel
from boxless.network import Network, Shared, build_network, save_network
from boxless.run_folder import FORMAT, MAX_SAMPLE_IMAGES, begin_run, check_run, dataset_digest, finish_run, versions
from boxless.structures import Dataset
from boxless.training.cam_boxes import fit_cam_boxes
from boxless.training.engine import OnEpochEnd, train_model
from boxless.training.tracking import start_trackers
from boxless.wording import counted

logger = logging.getLogger(__name__)

FIXED_MAPS = "fixed-maps"
"""Where a run folder has the maps behind the fixed part of its networks, until it is finished."""


@dataclass
class Run:
    """A network and the folder that it is fitted into.

    Args:
        folder: the run folder.
        network: all parts of the network.
        detector: the network as a detector.
        accelerator: devices, precision, processes and trackers.
        shared: what the network has in common with others, which is not stored again.
        on_epoch_end: see `engine.train_model`.
        manifest: what is written about the run; `begin` fills it.
        seconds: stage -> time it took.
        finished: whether the folder held this very training, finished, when it was begun.
    """

    folder: Path
    network: Network
    detector: Detector
    accelerator: Accelerator
    shared: Shared | None = None
    on_epoch_end: OnEpochEnd | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    finished: bool = False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def create_run(
    folder: Path,
    config: Config,
    classes: Sequence[str],
    *,
    parent: Run | None = None,
    trackers: Sequence[str] = (),
    on_epoch_end: OnEpochEnd | None = None,
) -> Run:
    """Build the network of a run; nothing is written.

    Args:
        folder: the run folder.
        config: of the run.
        classes: class names.
        parent: the run that this one is a part of: networks share what `parent.shared` holds.
        trackers: `tensorboard`, `wandb`.
        on_epoch_end: see `engine.train_model`; that of the parent where there is one.

    Raises:
        BoxlessError: the network cannot be built, or the folder is of another run.
    """
    shared = None if parent is None else parent.shared
    network = build_network(config, len(classes), shared)
    accelerator = _accelerator(config.training, folder, trackers)
    detector = Detector(network, config, classes, accelerator.device, folder.resolve().name)
    check_run(folder, config)
    return Run(folder, network, detector, accelerator, shared, on_epoch_end if parent is None else parent.on_epoch_end)


def begin(run: Run, data: CachedDataset) -> None:
    """Write configuration and manifest; `run.finished` tells whether nothing is left to do.

    Args:
        run: is begun; all processes call this together.
        data: what it is trained on.

    Raises:
        BoxlessError: the folder was begun on other data or weights.
    """
    run.seconds = dict(data.seconds)
    run.manifest = _manifest(data, run.detector.config, run.network)
    run.finished = on_main_process(lambda: begin_run(run.folder, run.detector.config, run.manifest))


def fit(run: Run, data: CachedDataset, monitored: Dataset | None = None) -> Detector:
    """Train the network of a run that was begun, save it, and mark the folder as finished.

    Args:
        run: the run; a finished one only loads.
        data: the images, with boxes where the head is trained on boxes.
        monitored: what to evaluate on after every epoch.

    Raises:
        BoxlessError: see `engine.train_model`.
    """
    accelerator, detector, model = run.accelerator, run.detector, run.network.model
    if run.finished:
        return Detector.load(run.folder, accelerator.device)
    settings = detector.config.model_dump()
    # All networks of a run read the same; the last one leaves nothing behind.
    fixed_maps = (run.folder if run.shared is None else run.shared.folder) / FIXED_MAPS
    start_trackers(accelerator, run.folder, settings, digest(run.manifest["data"] | settings))
    try:
        with run.timed("training"):
            before = train_model(
                accelerator, run.folder, model, data, detector, fixed_maps, monitored, run.on_epoch_end
            )
    except BaseException:
        if accelerator.trackers:
            accelerator.end_training()
        raise
    if accelerator.is_main_process:
        run.seconds["training"] += before
        if isinstance(model, HeatmapModel):
            with run.timed("training"):
                fit_cam_boxes(model, data, detector)
        files = save_network(run.folder, run.network, run.shared)
        if fixed_maps.parent == run.folder:
            shutil.rmtree(fixed_maps, ignore_errors=True)
        seconds = {stage: round(spent, 1) for stage, spent in run.seconds.items()}
        finish_run(run.folder, run.manifest | {"files": files, "seconds": seconds})
    accelerator.wait_for_everyone()
    if accelerator.trackers:
        # It ends the process group too, which further networks of the run still need.
        accelerator.end_training()
    # As a resumed run loads it: accelerate has changed the precision of the network that was trained.
    return Detector.load(run.folder, accelerator.device)


def fit_network(
    folder: Path,
    config: Config,
    data: CachedDataset,
    parent: Run,
    augment: Callable[[CachedDataset, Run], CachedDataset] | None = None,
) -> Detector:
    """Create, begin and fit one network in one folder, as a part of another run; a finished one only loads.

    Args:
        folder: the run folder.
        config: of the network.
        data: the training images.
        parent: the run that it is a part of.
        augment: makes the images that the network is trained on, such as `mosaic.training_set`.

    Raises:
        BoxlessError: see `create_run`, `begin` and `fit`.
    """
    run = create_run(folder, config, data.dataset.classes, parent=parent)
    begin(run, data)
    return fit(run, data if augment is None or run.finished else augment(data, run))


def _accelerator(training: TrainingConfig, run: Path, trackers: Sequence[str]) -> Accelerator:
    # accelerate keeps the precision of a process's first run for its second.
    AcceleratorState._reset_state()
    processes = join_processes().num_processes
    try:
        with launch_errors():
            return Accelerator(
                mixed_precision="no" if training.precision == "fp32" else training.precision,
                # Not as a number, which a variable of the environment would override.
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=batch_share(training, processes)[1]),
                log_with=list(trackers) or None,
                project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run)),
                # From pinned memory batches are copied to a GPU while it computes.
                dataloader_config=DataLoaderConfiguration(non_blocking=torch.cuda.is_available()),
            )
    except ValueError as error:
        raise BoxlessError(f"training.precision={training.precision}: {error}") from None


def _supervision(dataset: Dataset, config: Config) -> str:
    """What is trained on, in words: the setting, unless a person said more than tags."""
    given = [sample.given for sample in dataset.samples if sample.given is not None]
    said = {
        "boxes": sum(len(own.right.boxes) > 0 for own in given),
        "rejected boxes": sum(len(own.wrong.boxes) > 0 for own in given),
        "counts": sum(len(sample.counts) > 0 for sample in dataset.samples),
        "points": sum(len(sample.points) > 0 for sample in dataset.samples),
    }
    if config.supervision == "boxes" or not any(said.values()):
        return config.supervision
    parts = [f"{what} on {images:,} of them" for what, images in said.items() if images]
    return ", ".join([f"tags on {counted(len(dataset), 'image')}", *parts])


def _program(file: Path) -> str:
    # Of `python -m boxless` it is the file of the module.
    return file.parent.name if file.name == "__main__.py" else file.name


def _manifest(data: CachedDataset, config: Config, network: Network) -> dict[str, Any]:
    # With several sets of labels an image occurs several times.
    rows = {sample.path: row for row, sample in reversed(list(enumerate(data.dataset.samples)))}
    images = data.subset(sorted(rows.values()))
    dataset = images.dataset
    # Pseudo labels follow from the rest, to the last bit on one machine only.
    given = dataset if config.supervision == "boxes" else dataset.without_annotations()
    return {
        "format": FORMAT,
        "method": config.method,
        "supervision": _supervision(given, config),
        "seed": config.seed,
        "classes": list(dataset.classes),
        "data": {
            "name": dataset.name,
            "images": len(dataset),
            "tags": dict(zip(dataset.classes, (dataset.image_labels() == 1).sum(axis=0).tolist(), strict=True)),
            "digest": dataset_digest(given, images.keys),
        },
        # Of these `boxless export` needs pixels.
        "sample_images": [
            str(sample.path.absolute()) for sample in dataset.samples[:: -(-len(dataset) // MAX_SAMPLE_IMAGES)]
        ],
        "skipped": {str(path): reason for path, reason in data.skipped.items()},
        "weights": {
            "source": network.backbone.source,
            "licence": network.backbone.licence,
            "frozen": fingerprint(network.frozen),
        },
        "command": shlex.join([_program(Path(sys.argv[0])), *sys.argv[1:]]),
        "versions": versions(),
        "seconds": data.seconds,
        "finished": False,
    }
