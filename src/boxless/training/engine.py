"""The loop: a network learns from images that are prepared, pass by pass.

Devices, precision and several processes are accelerate's work.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from boxless.cached_dataset import CachedDataset
from boxless.config import Config, TrainingConfig
from boxless.detector import Detector, confident
from boxless.devices import full_width
from boxless.errors import BoxlessError, ImageError
from boxless.evaluation import evaluate
from boxless.features import Item, Targets, View, collate, views_of
from boxless.images import read_image
from boxless.metrics.summary import CONVENTIONS
from boxless.progress import console, track
from boxless.run_folder import Network, read_checkpoint, read_history, save_checkpoint, write_history
from boxless.structures import Annotations, Dataset
from boxless.training.tracking import log_images


def train_network(
    accelerator: Accelerator,
    run: Path,
    config: Config,
    network: Network,
    ready: CachedDataset,
    detector: Detector,
    monitored: Dataset | None,
) -> None:
    """Train a network, from the last checkpoint on where there is one.

    Args:
        accelerator: has the device and the trackers.
        run: the run folder; takes a checkpoint and a line of history after every pass.
        config: of the run.
        network: its `model` is trained.
        ready: the images, with the boxes that teach where there are any.
        detector: the one that the network is part of.
        monitored: what to evaluate on after every pass.

    Raises:
        BoxlessError: the loss is no number, or a checkpoint is damaged.
    """
    training = config.training
    views = views_of(config.views)
    order = _Order(len(ready.dataset), len(views), config.seed)
    plain_optimizer = optimizer_for(network.model, training)
    done = read_checkpoint(run, network.model, plain_optimizer)
    averages_only = getattr(network.model, "needs_averages_only", False)
    loader = DataLoader(
        TrainingViews(ready, views, averages_only),
        training.batch_size,
        sampler=order,
        collate_fn=collate,
        num_workers=0 if averages_only else training.workers,
    )
    model, optimizer, batches = accelerator.prepare(network.model, plain_optimizer, loader)
    epochs = training.epochs or min(math.ceil(training.steps / len(batches)), EPOCHS)
    history = read_history(run)[:done]
    for epoch in range(done, epochs):
        start = time.perf_counter()
        order.epoch = epoch
        # Dropout too depends on seed and epoch alone; processes of one run differ.
        torch.manual_seed(int(np.random.default_rng((config.seed, epoch, accelerator.process_index)).integers(2**62)))
        model.train()
        # The backbone's batch normalisation keeps its statistics: batches are a few images of few classes.
        network.model.tail.eval()
        with full_width(accelerator.device):
            losses = _epoch(accelerator, model, optimizer, batches, training, epoch, epochs)
        row = {"epoch": epoch + 1, **losses, "lr": optimizer.param_groups[0]["lr"]}
        row["seconds"] = round(time.perf_counter() - start, 2)
        if accelerator.is_main_process:
            row |= _report(accelerator, detector, ready.dataset, monitored, (epoch + 1) * len(batches))
            history.append(row)
            _say(row, epochs)
            write_history(run, history)
            save_checkpoint(run, network.model, plain_optimizer, epoch + 1)
        accelerator.wait_for_everyone()


def _epoch(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader[Any],
    training: TrainingConfig,
    epoch: int,
    epochs: int,
) -> dict[str, float]:
    """One pass over the images; returns the mean of every loss."""
    sums: dict[str, Tensor] = {}
    total_steps = epochs * len(batches)
    bar = track(batches, f"Epoch {epoch + 1}/{epochs}", len(batches), transient=True)
    for step, batch in enumerate(bar):
        done = epoch * len(batches) + step
        # accelerate moves the weights at the end of every pass, however few steps have added up by then.
        moves = epoch * len(batches) + step // training.accumulate * training.accumulate
        for group in optimizer.param_groups:
            group["lr"] = training.lr * _schedule(training, moves / total_steps)
        # How sharp a localizer's maximum is depends on it.
        accelerator.unwrap_model(model).progress = moves / total_steps
        with accelerator.accumulate(model):
            losses = model(batch)
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                raise BoxlessError(f"the loss is {loss.item()} in epoch {epoch + 1}: lower training.lr={training.lr}")
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        if done % 20 == 0:
            values = {f"loss/{name}": value.item() for name, value in losses.items()}
            accelerator.log(values | {"lr": optimizer.param_groups[0]["lr"]}, step=done)
    return {name: round(value.item() / len(batches), 5) for name, value in sums.items()}


def _schedule(training: TrainingConfig, progress: float) -> float:
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if training.schedule == "step":
        return float(0.1 ** sum(progress >= drop for drop in training.drops))
    return 1.0


def optimizer_for(model: torch.nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings ask for, over all weights of a model."""
    if training.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), training.lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(model.parameters(), training.lr, momentum=0.9, weight_decay=training.weight_decay)


class TrainingViews(TorchDataset[Item]):
    """Views of the training images, by (row, view), with the boxes that teach where the dataset has any.

    Where averages of the maps are enough they are kept, a few kilobytes an image, and the map of a view is read once.
    """

    def __init__(self, ready: CachedDataset, views: Sequence[View], averages_only: bool) -> None:
        self.ready = ready
        self.views = views
        # One tensor for all, (views, images, channels): as many small ones between the maps that are read and let go
        # would leave the heap in pieces, and memory would grow by gigabytes. NaN where a map was not yet read.
        self.averages: Tensor | None = None
        self.averages_only = averages_only
        self.image_labels = torch.from_numpy(ready.dataset.image_labels())

    def __getitem__(self, index: tuple[int, int]) -> Item:
        row, view = index[0], self.views[index[1]]
        sample, size = self.ready.dataset.samples[row], self.ready.sizes[row]
        boxes = None
        if self.ready.proposals is not None:
            boxes = torch.from_numpy(view.boxes(self.ready.boxes(row), *size))
        width, height = view.size(*size)
        targets = None if sample.annotations is None else _truth(sample.annotations, view, size)
        if not self.averages_only:
            return Item(self.ready.map(row, view), (height, width), boxes, self.image_labels[row], targets)
        return Item(self._average(index)[:, None, None], (1, 1), boxes, self.image_labels[row])

    def _average(self, index: tuple[int, int]) -> Tensor:
        """The mean over a view's map, (C,)."""
        row, view = index
        if self.averages is None or self.averages[view, row, 0].isnan():
            features = self.ready.map(row, self.views[view])
            if self.averages is None:
                self.averages = torch.full((len(self.views), len(self.ready.keys), len(features)), torch.nan)
            self.averages[view, row] = features.float().mean(dim=(1, 2))
        return self.averages[view, row]


def _truth(annotations: Annotations, view: View, size: tuple[int, int]) -> Targets:
    boxes = view.boxes(annotations.boxes, *size)
    return Targets(*map(torch.from_numpy, (boxes, annotations.labels, annotations.ignore)))


class _Order(Sampler[tuple[int, int]]):
    """Which image comes when, in which view: drawn from seed and epoch alone, so a resumed run goes on the same."""

    def __init__(self, images: int, views: int, seed: int) -> None:
        self.images, self.views, self.seed = images, views, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        rows, views = random.permutation(self.images), random.integers(self.views, size=self.images)
        return zip(rows.tolist(), views.tolist(), strict=True)


def _report(
    accelerator: Accelerator, detector: Detector, dataset: Dataset, monitored: Dataset | None, step: int
) -> dict[str, float]:
    """Evaluate on the monitored split and send images to the trackers; nothing of it flows back into training."""
    detector.model.eval()
    scores: dict[str, float] = {}
    if monitored is not None:
        result = evaluate(detector, monitored)
        scores = {key: value for key, value in result.items() if key in CONVENTIONS and value is not None}
        by_class = {
            f"AP/{name}": row["mAP_area"] for name, row in result["classes"].items() if row["mAP_area"] is not None
        }
        accelerator.log(
            {f"{detector.config.training.monitor}/{key}": value for key, value in (scores | by_class).items()}, step
        )
    if accelerator.trackers:
        looks = []
        for sample in (monitored or dataset).samples[:IMAGES]:
            try:
                pixels = read_image(sample.path)
            except ImageError:
                # The evaluation has told of it.
                continue
            found, heatmaps = detector.look(pixels)
            looks.append((sample.path.stem, pixels, confident(found), heatmaps))
        log_images(accelerator, looks, step)
    return scores


IMAGES = 6
"""How many images the trackers get after every epoch."""
EPOCHS = 100
"""Most passes over a small set that is to give many steps: more would only learn it by heart."""
LINES = 20
"""Most epochs that are told of in the terminal; the history has them all."""


def _say(row: dict[str, Any], epochs: int) -> None:
    if row["epoch"] % math.ceil(epochs / LINES) and row["epoch"] != epochs:
        return
    rest = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "epoch")
    console.print(f"epoch {row['epoch']}/{epochs}  {rest}", highlight=False)
