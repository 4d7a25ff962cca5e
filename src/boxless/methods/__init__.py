"""How boxes are learned from tags. A method is a composition of heads, not a class of its own: see `presets`."""

from boxless.methods.box_supervised import TaughtDetector
from boxless.methods.cam import Localizer
from boxless.methods.fast_rcnn import FastRCNN
from boxless.methods.fcos import DenseDetector
from boxless.methods.mil import WeakDetector
from boxless.methods.outputs import Evidence
from boxless.methods.presets import PRESETS, Model, build_model, preset

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
