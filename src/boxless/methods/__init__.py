"""Models, one a file, and what they are made of. Importing this package registers every `head.kind`."""

from boxless.methods.base import Model, ViewOutput
from boxless.methods.box_supervised import BoxSupervised, BoxSupervisedConfig
from boxless.methods.cam import CAM, CAMConfig, HeatmapModel
from boxless.methods.fast_rcnn import FastRCNN, FastRCNNConfig
from boxless.methods.fcos import FCOS, FCOSConfig
from boxless.methods.mil import MILConfig, MILDetector
from boxless.methods.oquab import Oquab, OquabConfig
from boxless.methods.presets import DEFAULT_METHOD, PRESETS, preset

__all__ = [
    "CAM",
    "DEFAULT_METHOD",
    "FCOS",
    "PRESETS",
    "BoxSupervised",
    "BoxSupervisedConfig",
    "CAMConfig",
    "FCOSConfig",
    "FastRCNN",
    "FastRCNNConfig",
    "HeatmapModel",
    "MILConfig",
    "MILDetector",
    "Model",
    "Oquab",
    "OquabConfig",
    "ViewOutput",
    "preset",
]
