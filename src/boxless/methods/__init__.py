"""How boxes are learned from tags. A method is a composition of heads, not a class of its own: see `presets`."""

from boxless.methods.box_supervised import BoxSupervisedDetector
from boxless.methods.cam import Localizer
from boxless.methods.fast_rcnn import FastRCNN
from boxless.methods.fcos import FCOS
from boxless.methods.mil import MILDetector
from boxless.methods.outputs import ViewOutput
from boxless.methods.presets import PRESETS, Model, build_model, preset

__all__ = [
    "FCOS",
    "PRESETS",
    "BoxSupervisedDetector",
    "FastRCNN",
    "Localizer",
    "MILDetector",
    "Model",
    "ViewOutput",
    "build_model",
    "preset",
]
