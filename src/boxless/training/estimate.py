"""How long a training will take, and how much memory: measured in trial steps before it starts."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from boxless.config import TrainingConfig
from boxless.errors import BoxlessError
from boxless.features import Batch, collate
from boxless.memory import peak_memory
from boxless.methods import Model
from boxless.training.training_views import TrainingViews


class Estimate(NamedTuple):
    """What a training will need.

    Args:
        seconds: of a step, on the mean over the views; the optimizer's share, which is small, is left out.
        memory: most bytes at the same time, on the GPU where the model is on one, else of the process.
    """

    seconds: float
    memory: float


def estimate(
    accelerator: Accelerator,
    model: Model,
    items: TrainingViews,
    rows: Sequence[int],
    training: TrainingConfig,
) -> Estimate:
    """Run forward and backward for one batch at every scale; weights and buffers stay as they are.

    Call it before accelerate wraps the model: processes would wait for each other's gradients. Random numbers are
    drawn; the training loop seeds every epoch anew.

    Args:
        accelerator: has device and precision.
        model: on that device.
        items: views of the training images.
        rows: images whose steps are timed, as many as a step has in this process.
        training: the optimizer's settings.

    Raises:
        BoxlessError: a step does not fit into the GPU's memory.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    model.tail.eval()
    numbers = {view.scale: number for number, view in reversed(list(enumerate(items.views)))}
    largest = max(numbers)
    # At one scale square images have the largest maps.
    squarest = np.argsort([-min(size) / max(size) for size in items.data.sizes], kind="stable")[: len(rows)].tolist()
    try:
        _trial(accelerator, model, items, [(row, numbers[largest]) for row in squarest])
    except torch.cuda.OutOfMemoryError:
        raise BoxlessError(
            f"a step at {largest} px does not fit into the memory of the GPU: lower training.batch_size="
            f"{training.batch_size}, raise training.accumulate={training.accumulate} and training.steps="
            f"{training.steps} by the same factor, or lower views.scales"
        ) from None
    for number in numbers.values():
        # Averages of maps are kept from the first time on.
        collate([items[row, number] for row in rows])
    seconds = [_trial(accelerator, model, items, [(row, number) for row in rows]) for number in numbers.values()]
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return Estimate(float(np.mean(seconds)), _peak(accelerator.device) + _optimizer_bytes(accelerator, model, training))


def _trial(accelerator: Accelerator, model: Model, items: TrainingViews, indices: Sequence[tuple[int, int]]) -> float:
    """Seconds that one step takes without the optimizer, reading included."""
    start = time.perf_counter()
    batch: Batch = collate([items[index] for index in indices]).to(accelerator.device)
    with accelerator.autocast():
        losses = model(batch)
        assert isinstance(losses, dict)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    # A GPU works ahead of the program until a number is asked for.
    [value.grad for value in model.parameters() if value.grad is not None][-1].sum().item()
    model.zero_grad()
    return time.perf_counter() - start


def trained_weights(model: Model) -> int:
    """Number of the weights that are trained."""
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


def _optimizer_bytes(accelerator: Accelerator, model: Model, training: TrainingConfig) -> int:
    """What is kept of every weight from the first update on."""
    # AdamW keeps two numbers and SGD one; processes gather gradients in a copy.
    numbers = (2 if training.optimizer == "adamw" else 1) + int(accelerator.num_processes > 1)
    return trained_weights(model) * 4 * numbers


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
