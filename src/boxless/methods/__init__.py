"""How boxes are learned from tags. A method is a composition of heads, not a class of its own: see `presets`."""

from boxless.methods.detector import WeakDetector
from boxless.methods.evidence import Evidence
from boxless.methods.localizer import Localizer
from boxless.methods.presets import PRESETS, build_model, preset

__all__ = ["PRESETS", "Evidence", "Localizer", "WeakDetector", "build_model", "preset"]
