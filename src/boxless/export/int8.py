"""An exported network in 8-bit integers, and what that costs: `boxless export --int8`.

Static post-training quantisation (Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3) of the
backbone by ONNX Runtime: weights by output channel, activations by tensor, with ranges from real images. The heads stay
in floating point, as a box of 500 pixels needs more than 256 steps, and so do the first layers, which make most of the
error (docs/lab_book).
"""

import copy
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxless.datasets import LAYOUTS, load_dataset
from boxless.errors import BoxlessError
from boxless.export.common import readable_images
from boxless.files import expand_user
from boxless.image_files import find_images
from boxless.logs import log_warnings
from boxless.metrics.voc import voc_ap
from boxless.np_box_ops import iou
from boxless.predictor import Predictor
from boxless.structures import Annotations, Detections
from boxless.wording import counted

if TYPE_CHECKING:
    from boxless.runtime import Runtime

MAX_LOSS = 0.02
"""Share of mAP that may be lost, unless told."""
MIN_IMAGES, MAX_IMAGES = 6, 300
"""Fewer images are refused; of more so many are taken, evenly. Ranges hardly change after some hundred images."""
MEASURED = 3
"""Every so many images one is left out of the calibration and used for measuring."""
OPERATORS = ("Conv", "Clip", "Relu", "Add", "MaxPool")
"""What has a kernel for 8-bit integers and is exact between them."""
MIN_STRIDE = 16
"""Convolutions that read the image or maps of a smaller stride stay in floating point."""
UPSAMPLING = ("Resize", "ConvTranspose")
"""What makes maps of a smaller stride; which is not followed."""
MATCH_IOU = 0.5


class CalibrationImages(NamedTuple):
    """What to quantise with.

    Args:
        files: image files.
        annotations: of each the ground truth, or None where it is unknown; empty if it is unknown of all.
    """

    files: list[Path]
    annotations: list[Annotations | None]


def find_calibration_images(source: str | os.PathLike[str], classes: Sequence[str]) -> CalibrationImages:
    """The images of a folder, or of a data set with their boxes where it has any.

    Args:
        source: images, or a data set of any layout.
        classes: of the detector.

    Raises:
        BoxlessError: there are too few, or it is a data set that cannot be loaded.
    """
    path = expand_user(source)
    # Class folders have no boxes, and nearly any folder of images looks like them.
    layouts = [layout for name, layout in LAYOUTS.items() if name != "folders"]
    if path.exists() and any(layout(path) is not None for layout in layouts):
        samples = log_warnings(load_dataset(path)).with_classes(classes, strict=False).samples
    else:
        samples = ()
    files = [sample.path for sample in samples] or find_images(path)
    if len(files) < MIN_IMAGES:
        raise BoxlessError(
            f"{source}: {counted(len(files), 'image')} to calibrate 8-bit integers on; give at least {MIN_IMAGES}, "
            "better some hundred, like those that the detector will see"
        )
    rows = np.linspace(0, len(files) - 1, min(len(files), MAX_IMAGES)).astype(int).tolist()
    annotations = [samples[row].annotations for row in rows] if samples else []
    known = any(one is not None and len(one.boxes) for one in annotations)
    return CalibrationImages([files[row] for row in rows], annotations if known else [])


def quantised(model: Any, predictor: "Runtime", images: CalibrationImages) -> Any:
    """The network with its backbone in 8-bit integers, as an `onnx.ModelProto`.

    Args:
        model: the network in floating point, an `onnx.ModelProto`; it is not changed.
        predictor: it, which prepares images.
        images: their ranges are taken, except for those that `measure` takes.

    Raises:
        BoxlessError: its backbone has no convolutions to quantise, or no image can be read.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    nodes = _backbone_nodes(model)
    given = copy.deepcopy(model)
    # The quantiser else advises, on the root logger, to fold what is folded already.
    note = given.metadata_props.add()
    note.key, note.value = "onnx.quant.pre_process", "onnxruntime.quant"
    files = [file for row, file in enumerate(images.files) if row % MEASURED]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        with _no_new_handler():
            quantize_static(
                given,
                out,
                # Of a reader of calibration data it calls this alone.
                SimpleNamespace(get_next=partial(next, _inputs(files, predictor), None)),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # Without VNNI matrix products of 8 x 8 bits overflow where they are added up in 16.
                reduce_range=True,
                extra_options={"TensorQuantOverrides": _depthwise_overrides(given, nodes)},
                op_types_to_quantize=list(OPERATORS),
                nodes_to_quantize=nodes,
                calibrate_method=CalibrationMethod.MinMax,
            )
        found = onnx.load(out)
    # Of the vendor's operators it uses none.
    own = [each for each in found.opset_import if not each.domain]
    del found.opset_import[:], found.graph.value_info[:]
    found.opset_import.extend(own)
    return found


@contextmanager
def _no_new_handler() -> Iterator[None]:
    """The quantiser logs by `logging.info`, which installs a handler where the root logger has none; it would stay."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _backbone_nodes(model: Any) -> list[str]:
    """The names of the nodes of `OPERATORS` from `MIN_STRIDE` on, before the maps are rounded to half precision."""
    import onnx

    strides = _strides(model)
    made_by = {name: node for node in model.graph.node for name in node.output}
    left = [
        node
        for node in model.graph.node
        if node.op_type == "Cast" and any(each.i == onnx.TensorProto.FLOAT16 for each in node.attribute)
    ]
    before: dict[str, Any] = {}
    while left:
        for name in left.pop().input:
            node = made_by.get(name)
            if node is not None and node.name not in before:
                before[node.name] = node
                left.append(node)
    names, outputs = list[str](), set[str]()
    for node in (node for node in model.graph.node if node.name in before and node.op_type in OPERATORS):
        if node.op_type == "Conv":
            taken = strides.get(node.input[0], 1) >= MIN_STRIDE
        else:
            taken = not outputs.isdisjoint(node.input)
        if taken:
            names.append(node.name)
            outputs |= set(node.output)
    if not names:
        raise BoxlessError(
            f"no convolution of the backbone reads maps of a stride of {MIN_STRIDE} or more; export without --int8"
        )
    return names


def _depthwise_overrides(model: Any, nodes: Sequence[str]) -> dict[str, Any]:
    """For the quantiser: 8 bits for the weights of depthwise convolutions among the nodes, which do not overflow."""
    groups = {
        node.input[1]: next((each.i for each in node.attribute if each.name == "group"), 1)
        for node in model.graph.node
        if node.op_type == "Conv" and node.name in nodes
    }
    weights = [each for each in model.graph.initializer if each.name in groups]
    depthwise = [each.name for each in weights if groups[each.name] == each.dims[0] > 1]
    return {name: [{"axis": 0, "reduce_range": False}] for name in depthwise}


def _strides(model: Any) -> dict[str, int]:
    """The stride of every tensor of the backbone, in pixels of the image."""
    strides = dict[str, int]()
    for node in model.graph.node:
        step = next((each.ints[0] for each in node.attribute if each.name == "strides"), 1)
        stride = step * max((strides.get(name, 1) for name in node.input), default=1)
        strides |= dict.fromkeys(node.output, 1 if node.op_type in UPSAMPLING else stride)
    return strides


def _inputs(files: Sequence[Path], predictor: "Runtime") -> Iterator[dict[str, NDArray[Any]]]:
    """What the network is given for each image and view.

    Raises:
        BoxlessError: no image can be read.
    """
    read = 0
    for _, pixels in readable_images(files, "Calibrate", "calibration"):
        read += 1
        for view in predictor.views:
            given: dict[str, NDArray[Any]] = {"images": view.resize(pixels)[None]}
            if predictor.proposals is not None:
                # The heads are not quantised, so one proposal does.
                given["proposals"] = np.array([[[0, 0, *given["images"].shape[2:0:-1]]]], np.float32)
            yield given
    if not read:
        raise BoxlessError(
            f"none of the {counted(len(files), 'image')} to calibrate on can be read; the first: {files[0]}"
        )


def measure(exact: Predictor, coarse: Predictor, images: CalibrationImages, most: float, name: str) -> dict[str, Any]:
    """What the network loses by 8-bit integers, on those images that `quantised` leaves out.

    Args:
        exact: the file in floating point.
        coarse: the file in 8-bit integers.
        images: where the boxes of none are known, the confident ones of `exact` stand for them.
        most: share of mAP that may be lost.
        name: what error messages call the file.

    Returns:
        `calibrated`, `measured`: numbers of images; `against`: `boxes of the data` or `boxes in floating point`;
        `map_float`, `map_int8`: mAP (area, IoU 0.5) against them; `loss`: the share of it that is lost; `matched`: the
        share of the confident boxes in floating point that has a box of its class at IoU 0.5 or more, and of these
        the mean `iou` and the mean difference of `scores`.

    Raises:
        BoxlessError: more is lost, or the images show no object to measure on.
    """
    rows = range(0, len(images.files), MEASURED)
    known = {images.files[row]: images.annotations[row] if images.annotations else None for row in rows}
    files = [file for file, boxes in known.items() if boxes is not None or not images.annotations]
    found: list[tuple[Detections, Detections, Annotations]] = []
    for file, pixels in readable_images(files, "Measure", "measurement"):
        one, two = exact.predict(pixels, 0), coarse.predict(pixels, 0)
        shown = one.confident()
        found.append((one, two, known[file] or Annotations.of(shown.boxes, shown.labels)))
    ones, twos, truth = [one for one, _, _ in found], [two for _, two, _ in found], [own for _, _, own in found]
    before, after = _mean_ap(ones, truth, len(exact.classes)), _mean_ap(twos, truth, len(exact.classes))
    against = "boxes of the data" if images.annotations else "boxes in floating point"
    if not before > 0:
        raise BoxlessError(
            f"{name}: not written, as what 8-bit integers lose cannot be measured: on {counted(len(found), 'image')} "
            f"nothing is found of the {against}; give --int8 more images that show the classes"
        )
    loss = max(0.0, 1 - after / before)
    if loss > most:
        raise BoxlessError(
            f"{name}: not written, as 8-bit integers lose {loss:.1%} of mAP, {before:.3f} to {after:.3f} against the "
            f"{against} of {counted(len(found), 'image')}, and {most:.1%} is allowed. Give --int8 more images like "
            f"those the detector will see, or --max-loss {math.ceil(loss * 100) / 100} to allow it, or leave out --int8"
        )
    calibrated = len(images.files) - len(rows)
    numbers = {"map_float": before, "map_int8": after, "loss": loss, **_agreement(ones, twos)}
    rounded = {key: round(value, 6) for key, value in numbers.items()}
    return {"calibrated": calibrated, "measured": len(found), "against": against, **rounded}


def _mean_ap(found: Sequence[Detections], truth: Sequence[Annotations], classes: int) -> float:
    """VOC's mAP by area over the classes that have boxes; 0 where none has."""
    values = [voc_ap(found, truth, label)["area"] for label in range(classes)]
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else 0.0


def _agreement(ones: Sequence[Detections], twos: Sequence[Detections]) -> dict[str, float]:
    """See `measure`."""
    pairs = []
    for one, two in zip(ones, twos, strict=True):
        for box, score, label, _ in one.confident():
            same = two[two.labels == label]
            overlaps = iou(np.array([box]), same.boxes)[0]
            best = int(overlaps.argmax()) if len(same) else -1
            held = best >= 0 and overlaps[best] >= MATCH_IOU
            pairs.append((overlaps[best], abs(score - float(same.scores[best]))) if held else None)
    matched = np.array([pair for pair in pairs if pair is not None]).reshape(-1, 2)
    overlap, score = matched.mean(axis=0) if len(matched) else (0.0, 0.0)
    return {"matched": len(matched) / max(1, len(pairs)), "iou": float(overlap), "scores": float(score)}
