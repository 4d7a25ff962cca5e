"""The methods by name: each is a set of settings, a composition of a head and what it is trained with."""

from typing import Any

from boxless.registry import Registry

DEFAULT_METHOD = "seeded"

PRESETS: Registry[dict[str, Any]] = Registry("method")
"""Nested settings by method; everything else is at its default."""

_SELECTIVE_SEARCH = {"generator": "selective_search"}
"""The proposals of the papers; the softmax over proposals is tuned to their number (docs/lab_book)."""

PRESETS["seeded"] = {
    "head": {"kind": "fast_rcnn"},
    "inference": {"nms": 0.3, "vote": True},
    "training": {"steps": 600, "batch_size": 8, "lr": 5e-4},
}
PRESETS["student"] = {
    "head": {"kind": "fcos"},
    "inference": {"nms": 0.3, "vote": True},
    "training": {"steps": 900, "batch_size": 8, "lr": 1e-3},
}
PRESETS["cam"] = {
    "head": {"kind": "cam", "objectness": True},
    "training": {"steps": 3000, "batch_size": 16, "lr": 3e-3},
}
PRESETS["oquab"] = {
    # The adaptation layer over frozen features; head.kernel=3 widens it, at nine times its cost.
    "head": {"kind": "oquab", "hidden": (256,), "sharpness": (0.2, 5)},
    # The paper rescales images at random by 0.7 to 1.4 in training (section 4); 1.4 would cost more to extract than
    # both of these.
    "views": {"scales": (358, 512)},
    "inference": {"views": {"scales": (512,)}},
    "training": {"steps": 600, "batch_size": 16, "lr": 1e-3},
}
PRESETS["wsddn"] = {
    "proposals": _SELECTIVE_SEARCH,
    "head": {"kind": "mil", "spatial_weight": 1e-4},
    "training": {"steps": 600},
}
PRESETS["contextlocnet"] = {
    # The paper uses RoIPool on VGG-F. On maps of a deep network maxima of the object leak into the context region and
    # peaks dominate; averages over locations of unit RMS avoid both (docs/lab_book).
    "proposals": _SELECTIVE_SEARCH,
    "head": {"kind": "mil", "contrast": True, "unit_rms": True, "pool": 1, "hidden": (), "sample": 256},
    # Several scales in training and at test, as in the paper; most of the gain is the smaller one's.
    "views": {"scales": (358, 512)},
    "training": {"steps": 600, "lr": 3e-4},
}
PRESETS["oicr"] = {
    "proposals": _SELECTIVE_SEARCH,
    # The authors' streams have no temperature.
    "head": {"kind": "mil", "temperature": 1, "distinct": True, "refinement": {}},
    "inference": {"nms": 0.3},
    "training": {"steps": 600},
}
PRESETS["pcl"] = {
    "proposals": _SELECTIVE_SEARCH,
    "head": {"kind": "mil", "temperature": 1, "distinct": True, "refinement": {"mining": "clusters"}},
    "inference": {"nms": 0.3},
    "training": {"steps": 600},
}
PRESETS["mist"] = {
    # Without the paper's Concrete DropBlock, whose blocks are as large as this grid; head.drop_block=true head.pool=7
    # adds it.
    "proposals": _SELECTIVE_SEARCH,
    "head": {"kind": "mil", "temperature": 1, "refinement": {"mining": "spread", "box_regression": True}},
    "inference": {"nms": 0.3},
    "training": {"steps": 600},
}


def preset(name: str) -> dict[str, Any]:
    """Settings of a method by name.

    Raises:
        BoxlessError: there is no such method.
    """
    return {"method": name, **PRESETS.find(name)}
