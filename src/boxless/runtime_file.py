"""Reading exported files: what an ONNX file says about its detector, checked before anything runs it.

A file may come from anyone. Its bytes are walked as protocol buffers (onnx.proto3): one that refers to other files, has
operators of another vendor or control flow is refused, and ONNX Runtime is given these very bytes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxless.calibration import Calibration, read_calibration
from boxless.errors import BoxlessError
from boxless.files import read_json
from boxless.limits import MAX_BOXES, MAX_SIDE, MAX_VIEWS
from boxless.postprocess import Selection
from boxless.views import View

FORMAT = 3
"""Version of the metadata; raised whenever an older Boxless could not read a newer file or the other way round."""
KEY = "boxless"
"""Key of the metadata in the file; the value is JSON."""
MAX_METADATA = 2**20
"""Most bytes of metadata that are read."""
MAX_BYTES = 2**31
"""Protocol buffers cannot be larger."""

# Numbers of the fields in onnx.proto3.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 14, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = 6, 11, (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14


@dataclass(frozen=True)
class Proposals:
    """See `config.ProposalConfig`."""

    generator: str
    size: int
    min_side: int
    min_area: float


@dataclass(frozen=True)
class Description:
    """What the metadata of a file says.

    Args:
        name: of the run that was exported.
        method: that trained it.
        supervision: what it was trained on.
        untrusted: classes whose boxes may be wrong -> agreement, see `trust`.
        classes: class names.
        views: whose mean is taken; each gives an image to the network.
        selection: from scores to boxes.
        calibration: of the scores of boxes; None leaves them.
        proposals: how the regions are made that the network scores; None where it needs none.
        content: all of it.
    """

    name: str
    method: str
    supervision: str
    untrusted: Mapping[str, float]
    classes: tuple[str, ...]
    views: tuple[View, ...]
    selection: Selection
    calibration: Calibration | None
    proposals: Proposals | None
    content: Mapping[str, Any]


def read_file(file: Path) -> tuple[bytes, Description]:
    """The bytes of an exported file, checked, and what they say.

    Raises:
        BoxlessError: there is no such file, or it was not written by `boxless export`.
    """
    try:
        if file.stat().st_size >= MAX_BYTES:
            raise BoxlessError(f"{file}: larger than an ONNX file can be; boxless export RUN --out FILE makes one")
        content = file.read_bytes()
    except FileNotFoundError:
        raise BoxlessError(f"{file}: there is no such file; boxless export RUN --out {file} makes one") from None
    except OSError as error:
        raise BoxlessError(f"{file}: cannot be read ({error.strerror})") from None
    return content, describe(content, str(file))


def describe(content: bytes, name: str) -> Description:
    """What the bytes of an exported file say, after checking that they refer to nothing else.

    Args:
        content: the whole file.
        name: what error messages call it.

    Raises:
        BoxlessError: they were not written by `boxless export`.
    """
    try:
        metadata = _check_model(memoryview(content))
    except ValueError as error:
        raise BoxlessError(f"{name}: damaged, or no ONNX file ({error}); export it again") from None
    if metadata is None:
        raise BoxlessError(
            f"{name}: not a file of Boxless: it has no metadata '{KEY}'; boxless export RUN --out FILE makes one"
        )
    try:
        return _description(read_json(metadata), name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise BoxlessError(f"{name}: its metadata is damaged ({reason}); export it again") from None


def _description(content: Any, name: str) -> Description:
    if content["format"] != FORMAT:
        raise BoxlessError(
            f"{name}: metadata of format {str(content['format'])[:20]}; this version reads format {FORMAT}. Export "
            "the run again with this version, or install the one that exported it"
        )
    classes = tuple(_text(one) for one in content["classes"])
    views = tuple(View(_whole(one["scale"], MAX_SIDE), _flag(one["flipped"])) for one in content["views"])
    if not classes or len(set(classes)) != len(classes) or not 1 <= len(views) <= MAX_VIEWS:
        raise ValueError("classes or views do not fit")
    selection, proposals = content["selection"], content["proposals"]
    return Description(
        name=_text(content["name"]),
        method=_text(content["method"]),
        supervision=_text(content["supervision"]),
        untrusted={_text(name): _agreement(value) for name, value in content["untrusted"].items()},
        classes=classes,
        views=views,
        selection=Selection(
            _number(selection["min_score"]),
            _number(selection["nms"]),
            _flag(selection["vote"]),
            _whole(selection["max_boxes"], MAX_BOXES),
        ),
        calibration=read_calibration(content.get("calibration"), classes),
        proposals=None
        if proposals is None
        else Proposals(
            _text(proposals["generator"]),
            _whole(proposals["size"], MAX_SIDE),
            _whole(proposals["min_side"], MAX_SIDE),
            _number(proposals["min_area"]),
        ),
        content=content,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is missing")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a flag is missing")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or math.isnan(value):
        raise ValueError("a number from 0 to 1 is missing")
    return float(value)


def _agreement(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("an agreement is missing")
    return float(value)


def _whole(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"a number from 1 to {most} is missing")
    return value


# Protocol buffers.


def _check_model(model: memoryview) -> bytes | None:
    """The metadata of a model; None where there is none.

    Raises:
        ValueError: the bytes are no ONNX model, or one that is not whole in itself.
    """
    metadata, graphs = None, 0
    for number, value in _fields(model):
        if number == _MODEL_GRAPH:
            graphs += 1
            _check_graph(_message(value))
        elif number == _MODEL_METADATA:
            entry = dict(_fields(_message(value)))
            if bytes(_message(entry.get(1, b""))) == KEY.encode():
                metadata = bytes(_message(entry.get(2, b"")))
        elif number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise ValueError("it has functions or a training graph")
    if graphs != 1:
        raise ValueError("it has no graph")
    if metadata is not None and len(metadata) > MAX_METADATA:
        raise ValueError(f"its metadata has more than {MAX_METADATA:,} bytes")
    return metadata


def _check_graph(graph: memoryview) -> None:
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            _check_node(_message(value))
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(_message(value))
        elif number == _GRAPH_SPARSE:
            raise ValueError("it has sparse weights")


def _check_node(node: memoryview) -> None:
    for number, value in _fields(node):
        if number == _NODE_DOMAIN and bytes(_message(value)) not in (b"", b"ai.onnx"):
            raise ValueError("it has operators beyond ONNX's own")
        if number == _NODE_ATTRIBUTE:
            for kind, own in _fields(_message(value)):
                if kind in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                    _check_tensor(_message(own))
                elif kind in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS, *_ATTRIBUTE_SPARSE):
                    raise ValueError("it has control flow or sparse weights")


def _check_tensor(tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise ValueError("its weights lie in other files")


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview | bytes):
        raise ValueError("a field is of another kind")
    return memoryview(value)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number and the value of every field of a message: a number, or bytes.

    Source: https://protobuf.dev/programming-guides/encoding
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag >= 2**32:
            # Parsers disagree on what it is.
            raise ValueError("not a protocol buffer")
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("not a protocol buffer")
        if number == 0 or at + size > len(message):
            raise ValueError("cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("cut off")
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("not a protocol buffer")
