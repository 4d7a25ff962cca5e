"""An exported detector that is written by hand: a class for each colour, whose scores are the means of map cells."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from boxless.runtime import OUTPUTS
from boxless.runtime_file import FORMAT, KEY

CLASSES = ("red", "green", "blue")
CELLS = 4
"""Cells of its map along each side of the image."""


def write_detector(path: Path, name: str = "drawn", least: float = 0.3) -> Path:
    """Write the file; boxes that score less than `least` are left out."""
    metadata = {
        "format": FORMAT,
        "name": name,
        "method": "student",
        "supervision": "tags",
        "untrusted": {},
        "classes": CLASSES,
        "views": [{"scale": 64, "flipped": False}],
        "selection": {"min_score": least, "nms": 0.4, "vote": False, "max_boxes": 20},
        "proposals": None,
    }
    model = helper.make_model(_graph(), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {KEY: json.dumps(metadata)})
    path.write_bytes(model.SerializeToString())
    return path


def _graph() -> Any:
    start = np.arange(CELLS, dtype=np.float32) / CELLS
    left, top = (side.ravel() for side in np.meshgrid(start, start))
    cells = np.stack([left, top, left + 1 / CELLS, top + 1 / CELLS], axis=1)[None]
    constants = {
        "whole": np.float32(255),
        "size": np.array([1, 3, CELLS, CELLS]),
        "places": np.array([2, 3]),
        "rows": np.array([1, 3, CELLS**2]),
        "sides": np.array([2, 1, 2, 1]),
        "cells": cells,
    }
    nodes = [
        ("Cast", ["images"], "numbers", {"to": TensorProto.FLOAT}),
        ("Div", ["numbers", "whole"], "parts", {}),
        ("Transpose", ["parts"], "planes", {"perm": [0, 3, 1, 2]}),
        ("Resize", ["planes", "", "", "size"], "resized", {"mode": "linear", "antialias": 1}),
        ("ReduceMax", ["resized", "places"], "image_scores", {"keepdims": 0}),
        ("Reshape", ["resized", "rows"], "by_class", {}),
        ("Transpose", ["by_class"], "scores", {"perm": [0, 2, 1]}),
        ("Shape", ["images"], "shape", {}),
        ("Gather", ["shape", "sides"], "pixels", {}),
        ("Cast", ["pixels"], "extent", {"to": TensorProto.FLOAT}),
        ("Mul", ["cells", "extent"], "boxes", {}),
    ]
    return helper.make_graph(
        [helper.make_node(kind, given, [made], **options) for kind, given, made, options in nodes],
        "drawn",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in OUTPUTS],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
