"""The training loop: a model is trained on cached data, epoch by epoch.

Devices, precision and several processes are accelerate's work.
"""

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import DataLoader

from boxless.cached_dataset import CachedDataset
from boxless.config import Config, TrainingConfig
from boxless.detector import Detector
from boxless.devices import full_width
from boxless.distributed import batch_share
from boxless.errors import BoxlessError, CancelledError, ImageError
from boxless.evaluation import evaluate
from boxless.features import Batch, Item, collate
from boxless.images import read_image
from boxless.methods import Model
from boxless.metrics.summary import CONVENTIONS
from boxless.process import cores
from boxless.progress import track
from boxless.run_folder import read_checkpoint, read_history, save_checkpoint, write_history
from boxless.structures import Dataset
from boxless.training.estimate import estimate, trained_weights
from boxless.training.tracking import log_images
from boxless.training.training_views import TrainingOrder, TrainingViews, epoch_rows, training_views
from boxless.views import views_of
from boxless.wording import counted

logger = logging.getLogger(__name__)

TRACKED_IMAGES = 6
"""Images that the trackers get after every epoch."""
MAX_EPOCHS = 100
"""Most passes over a small set to reach the number of steps: more would only overfit."""
MAX_EPOCH_LINES = 20
"""Most epochs that are logged; the history has them all."""
MAX_WORKERS = 8
"""Most processes that read ahead of a GPU unless `training.workers` says otherwise; more would wait for the disk."""


@dataclass(frozen=True)
class _Plan:
    """How long to train.

    Args:
        first: the epoch that this process begins with, later than 0 where a run is resumed.
        epochs: number of them all.
        steps: in each epoch.
        batch_size: images a step in each process.
        accumulate: steps an update of the weights.
    """

    first: int
    epochs: int
    steps: int
    batch_size: int
    accumulate: int


OnEpochEnd = Callable[[dict[str, Any]], object]
"""Gets what the history gets of an epoch, with the run folder as `run` and their number as `epochs`; False cancels."""


def train_model(
    accelerator: Accelerator,
    run: Path,
    model: Model,
    data: CachedDataset,
    detector: Detector,
    fixed_maps: Path,
    monitored: Dataset | None = None,
    on_epoch_end: OnEpochEnd | None = None,
) -> float:
    """Train a model, from the last checkpoint on where there is one; returns the seconds of the epochs before it.

    Args:
        accelerator: has the device and the trackers.
        run: the run folder; takes a checkpoint and a line of history after every epoch.
        model: is trained.
        data: the images, with boxes to train on where the head needs them.
        detector: the one that the model is part of.
        fixed_maps: the folder for what `Model.fixed_part` makes of the maps.
        monitored: what to evaluate on after every epoch.
        on_epoch_end: called after every epoch, in the main process.

    Raises:
        BoxlessError: the loss is not finite, or a checkpoint is damaged.
        CancelledError: `on_epoch_end` returned False.
    """
    config, training = detector.config, detector.config.training
    views = views_of(config.views)
    order = TrainingOrder(epoch_rows(data.dataset), len(views), config.seed)
    plain_optimizer = optimizer_for(model, training)
    done = read_checkpoint(run, model, plain_optimizer)
    items = training_views(model, data, views, fixed_maps)
    plan = _plan(training, accelerator.num_processes, len(order), done)
    # accelerate keeps one number for the whole process, and networks within a run have their own.
    accelerator.gradient_accumulation_steps = plan.accumulate
    if done < plan.epochs:
        _log_plan(accelerator, model, items, order, plan, config)
    loader = _loader(items, order, plan.batch_size, training.workers, accelerator.device)
    wrapped, optimizer, batches = accelerator.prepare(model, plain_optimizer, loader)
    history = read_history(run)[:done]
    for epoch in range(done, plan.epochs):
        start, order.epoch = time.perf_counter(), epoch
        _seed(config.seed, epoch, accelerator.process_index, loader.persistent_workers and epoch > done)
        wrapped.train()
        # The backbone's batch normalisation keeps its statistics: batches are a few images of few classes.
        model.tail.eval()
        with full_width(accelerator.device):
            losses = _train_epoch(accelerator, wrapped, optimizer, batches, training, epoch, plan)
        row: dict[str, Any] = {"epoch": epoch + 1, **losses, "lr": optimizer.param_groups[0]["lr"]}
        row["seconds"] = round(time.perf_counter() - start, 2)
        if accelerator.is_main_process:
            row |= _evaluate_epoch(accelerator, detector, data.dataset, monitored, (epoch + 1) * plan.steps)
            history.append(row)
            _log_epoch(row, plan.epochs)
            write_history(run, history)
            save_checkpoint(run, model, plain_optimizer, epoch + 1)
        accelerator.wait_for_everyone()
        _call_back(accelerator, on_epoch_end, {**row, "run": run, "epochs": plan.epochs})
    return float(sum(row["seconds"] for row in history[:done]))


def _seed(seed: int, epoch: int, process: int, workers_run: bool) -> None:
    """Seed torch, and so dropout, from the seed of the run, the epoch and the process."""
    torch.manual_seed(int(np.random.default_rng((seed, epoch, process)).integers(2**62)))
    if workers_run:
        # A loader draws a number when it starts its workers, or has none.
        torch.empty((), dtype=torch.int64).random_()


def _plan(training: TrainingConfig, processes: int, images: int, done: int) -> _Plan:
    """The plan for the images of an epoch; epochs do not depend on the number of processes."""
    batch_size, accumulate = batch_share(training, processes)
    epochs = training.epochs or min(math.ceil(training.steps / math.ceil(images / training.batch_size)), MAX_EPOCHS)
    return _Plan(done, epochs, math.ceil(images / (batch_size * processes)), batch_size, accumulate)


def _loader(
    items: TrainingViews, order: TrainingOrder, batch_size: int, workers: int | None, device: torch.device
) -> DataLoader[Any]:
    """Batches of one process, read ahead of the step by so many workers; by none where averages are kept in memory."""
    on_gpu = device.type == "cuda"
    if workers is None:
        workers = min(MAX_WORKERS, cores()) if on_gpu else 0
    if items.averages_only:
        workers = 0
    return DataLoader(
        items,
        batch_size,
        sampler=order,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=on_gpu,
        # OpenCV's own threads, which do not survive a fork, would only compete with the workers.
        worker_init_fn=_single_threaded if workers else None,
        # From Python 3.14 on, workers would otherwise run the user's script again, and each copy the backbone.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        persistent_workers=workers > 0,
    )


def _collate(items: list[Item] | BoxlessError) -> Batch | BoxlessError:
    """A batch, or the error of `TrainingViews.__getitems__`."""
    return items if isinstance(items, BoxlessError) else collate(items)


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(1)


def _call_back(accelerator: Accelerator, on_epoch_end: OnEpochEnd | None, row: dict[str, Any]) -> None:
    """Call back in the main process; all processes get its answer, so that they stop together.

    Raises:
        CancelledError: it was False.
    """
    if on_epoch_end is None:
        return
    answer = on_epoch_end(row) if accelerator.is_main_process else None
    stops = [isinstance(answer, bool | np.bool_) and not answer]
    if broadcast_object_list(stops)[0]:
        epoch = f"epoch {row['epoch']} of {row['epochs']}"
        raise CancelledError(f"{row['run']}: cancelled after {epoch}; the same call resumes it")


def _train_epoch(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader[Any],
    training: TrainingConfig,
    epoch: int,
    plan: _Plan,
) -> dict[str, float]:
    """One pass over the images; returns the mean of every loss, over all processes."""
    sums: dict[str, Tensor] = {}
    total_steps = plan.epochs * plan.steps
    bar = track(batches, f"Epoch {epoch + 1}/{plan.epochs}", plan.steps, transient=True)
    for step, batch in enumerate(bar):
        if isinstance(batch, BoxlessError):
            raise batch
        done = epoch * plan.steps + step
        # accelerate updates the weights at the end of every epoch, however few steps have accumulated by then.
        updated = epoch * plan.steps + step // plan.accumulate * plan.accumulate
        rate = training.lr * _schedule(training, updated / total_steps)
        if training.warmup_steps:
            updates = epoch * math.ceil(plan.steps / plan.accumulate) + step // plan.accumulate
            rate *= _warmup(updates / training.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1)
        accelerator.unwrap_model(model).progress = updated / total_steps
        with accelerator.accumulate(model):
            losses = model(batch)
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                raise BoxlessError(f"the loss is {loss.item()} in epoch {epoch + 1}: lower training.lr={training.lr}")
            # accelerate divides by `accumulate`, also where the last update of an epoch is of fewer steps.
            gathered = min(plan.accumulate, plan.steps - step // plan.accumulate * plan.accumulate)
            accelerator.backward(loss * (plan.accumulate / gathered))
            optimizer.step()
            optimizer.zero_grad()
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        if done % 20 == 0:
            values = {f"loss/{name}": value.item() for name, value in losses.items()}
            accelerator.log(values | {"lr": optimizer.param_groups[0]["lr"]}, step=done)
    totals = accelerator.reduce(torch.stack(list(sums.values())), "mean")
    return {name: round(total / plan.steps, 5) for name, total in zip(sums, totals.tolist(), strict=True)}


def _schedule(training: TrainingConfig, progress: float) -> float:
    if training.drops is None:
        return 0.5 * (1 + math.cos(math.pi * progress))
    return float(0.1 ** sum(progress >= drop for drop in training.drops))


def _warmup(progress: float) -> float:
    """Factor of the learning rate when this fraction of the warm-up is done: from a third to 1 along a line."""
    return min(1.0, (1 + 2 * progress) / 3)


def optimizer_for(model: torch.nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings ask for, over all weights of a model.

    With `training.bias_lr_factor` biases are a group of their own: without weight decay, and with `lr_factor`, by which
    the training loop multiplies the learning rate.
    """
    groups: Any = model.parameters()
    if training.bias_lr_factor is not None:
        biases = [value for name, value in model.named_parameters() if name.rpartition(".")[2] == "bias"]
        others = [value for name, value in model.named_parameters() if name.rpartition(".")[2] != "bias"]
        groups = [{"params": others}, {"params": biases, "weight_decay": 0, "lr_factor": training.bias_lr_factor}]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, training.lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(groups, training.lr, momentum=0.9, weight_decay=training.weight_decay)


def _evaluate_epoch(
    accelerator: Accelerator, detector: Detector, dataset: Dataset, monitored: Dataset | None, step: int
) -> dict[str, float]:
    """Evaluate on the monitored split and send images to the trackers; training does not depend on the result."""
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
        results = []
        for sample in (monitored or dataset).samples[:TRACKED_IMAGES]:
            try:
                pixels = read_image(sample.path)
            except ImageError:
                # Evaluation and caching have reported it.
                continue
            found, heatmaps = detector.predict_with_heatmaps(pixels)
            results.append((sample.id, pixels, found.confident(), heatmaps))
        log_images(accelerator, results, step)
    return scores


def _log_plan(
    accelerator: Accelerator, model: Model, items: TrainingViews, order: TrainingOrder, plan: _Plan, config: Config
) -> None:
    """Log what is trained, how much there is to do, and what the first images of an epoch need as a step."""
    rows = [row for row, _ in order][: plan.batch_size]
    with full_width(accelerator.device):
        need = estimate(accelerator, model, items, rows, config.training)
    if not accelerator.is_main_process:
        return
    processes, epochs = accelerator.num_processes, plan.epochs - plan.first
    images = plan.batch_size * processes
    each = counted(images, "image")
    if processes > 1:
        each += f", {plan.batch_size} in each of {processes} processes"
    logger.info(
        "Training %s weights of %s: %s of %s of %s; about %.1f min and %.1f GB of memory",
        f"{trained_weights(model):,}",
        config.method,
        counted(epochs, "epoch"),
        counted(plan.steps, "step"),
        each,
        need.seconds * epochs * plan.steps / 60,
        need.memory / 1e9,
    )


def _log_epoch(row: dict[str, Any], epochs: int) -> None:
    if row["epoch"] % math.ceil(epochs / MAX_EPOCH_LINES) and row["epoch"] != epochs:
        return
    rest = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "epoch")
    logger.info("epoch %d/%d  %s", row["epoch"], epochs, rest)
