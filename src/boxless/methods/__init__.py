"""How boxes are learned from tags. A method is a composition of heads, not a class of its own: see `presets`."""

from boxless.methods.dense import DenseDetector
from boxless.methods.detector import WeakDetector
from boxless.methods.evidence import Evidence
from boxless.methods.fast_rcnn import FastRCNN
from boxless.methods.localizer import Localizer
from boxless.methods.presets import PRESETS, Model, build_model, preset
from boxless.methods.taught import TaughtDetector

__all__ = [
    "PRESETS",
    "DenseDetector",
    "Evidence",
    "FastRCNN",
    "Localizer",
    "Model",
    "TaughtDetector",
    "WeakDetector",
    "build_model",
    "preset",
]
