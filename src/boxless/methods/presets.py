"""The methods by name: each is a set of settings, not a class of its own."""

from typing import Any

from torch import nn

from boxless.backbones import Backbone
from boxless.config import Config, FastRCNNConfig, FCOSConfig, LocalizerConfig
from boxless.errors import BoxlessError
from boxless.methods.cam import Localizer
from boxless.methods.fast_rcnn import FastRCNN
from boxless.methods.fcos import FCOS
from boxless.methods.mil import MILDetector

Model = Localizer | MILDetector | FastRCNN | FCOS

DEFAULT_METHOD = "seeded"

SELECTIVE_SEARCH = {"generator": "selective_search"}
"""The proposals of the papers; the softmax over proposals is tuned to their number (docs/experiments.md)."""

PRESETS: dict[str, dict[str, Any]] = {
    "cam": {
        "head": {"kind": "localizer", "pooling": "average", "objectness": True},
        "training": {"steps": 3000, "batch_size": 16, "lr": 3e-3},
    },
    "oquab": {
        # The adaptation layer over frozen features; head.kernel=3 widens it, at nine times its cost.
        "head": {"kind": "localizer", "pooling": "max", "hidden": (256,), "sharpness": (0.2, 5), "threshold": 0.1},
        # The paper rescales images at random by 0.7 to 1.4 in training (section 4); 1.4 would cost more to extract
        # than both of these.
        "views": {"scales": (358, 512)},
        "inference": {"views": {"scales": (512,)}},
        "training": {"steps": 600, "batch_size": 16, "lr": 1e-3},
    },
    "wsddn": {
        "proposals": SELECTIVE_SEARCH,
        "head": {"kind": "detector", "spatial_weight": 1e-4},
        "training": {"steps": 600},
    },
    "contextlocnet": {
        # The paper pools with RoIPool on VGG-F. On maps of a deep network maxima leak into the frame and peaks win;
        # averages over equalised cells do not (docs/experiments.md).
        "proposals": SELECTIVE_SEARCH,
        "head": {
            "kind": "detector",
            "contrast": True,
            "unit_rms": True,
            "pooling": "average",
            "pool": 1,
            "hidden": (),
            "sample": 256,
        },
        # Several scales in training and at test, as in the paper; most of what they bring is the smaller one's.
        "views": {"scales": (358, 512)},
        "training": {"steps": 600, "lr": 3e-4},
    },
    "oicr": {
        "proposals": SELECTIVE_SEARCH,
        # The authors' streams have no temperature.
        "head": {"kind": "detector", "temperature": 1, "refinement": {"stages": 3}},
        "inference": {"nms": 0.3},
        "training": {"steps": 600},
    },
    "pcl": {
        "proposals": SELECTIVE_SEARCH,
        "head": {
            "kind": "detector",
            "temperature": 1,
            "refinement": {"stages": 3, "mining": "clusters", "bags": True},
        },
        "inference": {"nms": 0.3},
        "training": {"steps": 600},
    },
    "mist": {
        # Without the paper's Concrete DropBlock, whose blocks are as large as this grid; head.drop_block=true
        # head.pool=7 has it.
        "proposals": SELECTIVE_SEARCH,
        "head": {
            "kind": "detector",
            "temperature": 1,
            "refinement": {"stages": 3, "mining": "spread", "regress": "all"},
        },
        "inference": {"nms": 0.3},
        "training": {"steps": 600},
    },
    "seeded": {
        "head": {"kind": "fast_rcnn"},
        "inference": {"nms": 0.3, "vote": True, "parts": True},
        "training": {"steps": 600, "batch_size": 8, "lr": 5e-4},
    },
    "student": {
        "head": {"kind": "dense"},
        "inference": {"nms": 0.3, "vote": True, "parts": True},
        "training": {"steps": 900, "batch_size": 8, "lr": 1e-3},
    },
}


def preset(name: str) -> dict[str, Any]:
    """Settings of a method by name.

    Raises:
        BoxlessError: there is no such method.
    """
    if name not in PRESETS:
        raise BoxlessError(f"method '{name}' is unknown; there are {', '.join(PRESETS)}")
    return {"method": name, **PRESETS[name]}


def build_model(config: Config, backbone: Backbone, tail: nn.Sequential, classes: int) -> Model:
    """The trained part of a run: the backbone's last stages and the method's head.

    Raises:
        BoxlessError: the composition does not fit the backbone or the number of classes.
    """
    if isinstance(config.head, LocalizerConfig):
        early = backbone.level_channels[0] if config.head.objectness else 0
        return Localizer(tail, backbone.channels, config.head, classes, early)
    if isinstance(config.head, FastRCNNConfig):
        return FastRCNN(backbone, config.head, classes)
    if isinstance(config.head, FCOSConfig):
        return FCOS(backbone, config.head, classes)
    return MILDetector(tail, backbone, config.head, classes)
