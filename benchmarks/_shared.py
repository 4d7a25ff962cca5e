"""What the benchmarks share: how a spread is written, and what they ran on."""

import os
import platform
from collections.abc import Iterable

import torch


def machine() -> str:
    """Processor, cores and PyTorch, in a line."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__} on {torch.get_num_threads()} threads"
    )


def spread(values: Iterable[float | None], digits: int = 1) -> str:
    """Mean and range of those that are defined; empty where none is."""
    defined = [value for value in values if value is not None]
    if not defined:
        return ""
    text = f"{sum(defined) / len(defined):.{digits}f}"
    return text if len(defined) == 1 else f"{text} ({min(defined):.{digits}f}-{max(defined):.{digits}f})"
