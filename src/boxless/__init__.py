"""Boxless: object detectors from image tags.

>>> import boxless
>>> detector = boxless.train("images.csv", "runs/first")  # doctest: +SKIP
>>> boxless.confident(detector.predict("street.jpg")).names  # doctest: +SKIP
['bus', 'person']
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxless.datasets import load_dataset
    from boxless.detector import Detector, confident
    from boxless.doctor import examine
    from boxless.errors import BoxlessError, ImageError
    from boxless.evaluation import diagnose, evaluate
    from boxless.structures import Annotations, Dataset, Detections, Heatmaps, Sample
    from boxless.training.train import train

_HOMES = {
    "load_dataset": "datasets",
    "examine": "doctor",
    "BoxlessError": "errors",
    "ImageError": "errors",
    "diagnose": "evaluation",
    "evaluate": "evaluation",
    "Detector": "detector",
    "confident": "detector",
    "Annotations": "structures",
    "Dataset": "structures",
    "Detections": "structures",
    "Heatmaps": "structures",
    "Sample": "structures",
    "train": "training.train",
}

__all__ = [
    "Annotations",
    "BoxlessError",
    "Dataset",
    "Detections",
    "Detector",
    "Heatmaps",
    "ImageError",
    "Sample",
    "confident",
    "diagnose",
    "evaluate",
    "examine",
    "load_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; what does not need it should not wait for it.
    if name not in _HOMES:
        raise AttributeError(f"module 'boxless' has no attribute '{name}'")
    return getattr(importlib.import_module(f"boxless.{_HOMES[name]}"), name)
