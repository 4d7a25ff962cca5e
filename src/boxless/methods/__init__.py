"""How boxes are learned from tags. A method is a composition of heads, not a class of its own: see `presets`."""

from boxless.methods.detector import WeakDetector
from boxless.methods.evidence import Evidence
from boxless.methods.fast_rcnn import FastRCNN
from boxless.methods.localizer import Localizer
from boxless.methods.presets import PRESETS, Model, build_model, preset

__all__ = ["PRESETS", "Evidence", "FastRCNN", "Localizer", "Model", "WeakDetector", "build_model", "preset"]
