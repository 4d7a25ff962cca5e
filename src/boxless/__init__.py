"""Boxless: object detectors from image tags.

>>> import boxless
>>> detector = boxless.train("tags.csv", "runs/first")  # doctest: +SKIP
>>> detector.predict("street.jpg").names  # doctest: +SKIP
['bus', 'person']
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxless.datasets import load_dataset
    from boxless.detector import Detector
    from boxless.doctor import examine
    from boxless.errors import BoxlessError, CancelledError, ImageError
    from boxless.evaluation import diagnose, evaluate
    from boxless.pipeline import train
    from boxless.structures import Annotations, Dataset, Detection, Detections, Heatmaps, Sample

_HOMES = {
    "load_dataset": "datasets",
    "examine": "doctor",
    "BoxlessError": "errors",
    "CancelledError": "errors",
    "ImageError": "errors",
    "diagnose": "evaluation",
    "evaluate": "evaluation",
    "Detector": "detector",
    "Annotations": "structures",
    "Dataset": "structures",
    "Detection": "structures",
    "Detections": "structures",
    "Heatmaps": "structures",
    "Sample": "structures",
    "train": "pipeline",
}

__all__ = [
    "Annotations",
    "BoxlessError",
    "CancelledError",
    "Dataset",
    "Detection",
    "Detections",
    "Detector",
    "Heatmaps",
    "ImageError",
    "Sample",
    "diagnose",
    "evaluate",
    "examine",
    "load_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, and not every part needs it.
    if name not in _HOMES:
        raise AttributeError(f"module 'boxless' has no attribute '{name}'")
    return getattr(importlib.import_module(f"boxless.{_HOMES[name]}"), name)
