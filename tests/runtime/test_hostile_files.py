"""Files of strangers: each is refused in one line, and no other file is opened on its account."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from opened_files import Opened
from random_runs import CLASSES, Exported

from boxless.errors import BoxlessError
from boxless.runtime import Runtime
from boxless.runtime_file import KEY

# An export takes half a minute.
pytestmark = pytest.mark.slow


def refused(file: Path, message: str) -> None:
    with pytest.raises(BoxlessError, match=message) as error:
        Runtime(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600 and str(file) in str(error.value)


def relabelled(model: onnx.ModelProto, value: str) -> None:
    del model.metadata_props[:]
    helper.set_model_props(model, {KEY: value})


def with_change(change: Callable[[dict[str, Any]], object]) -> Callable[[onnx.ModelProto], None]:
    """A change of the metadata."""

    def work(model: onnx.ModelProto) -> None:
        said = json.loads(model.metadata_props[0].value)
        change(said)
        relabelled(model, json.dumps(said))

    return work


def elsewhere(tensor: onnx.TensorProto) -> None:
    """Refer to another file for the values."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"


def constant_elsewhere(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["x"], value=numpy_helper.from_array(np.zeros(3, np.float32)))
    elsewhere(node.attribute[0].t)
    model.graph.node.insert(0, node)


def add_of_vendor(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Identity", ["images"], ["x"], domain="com.microsoft"))


def add_unknown(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Explode", ["images"], ["x"]))


def add_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["", ""], ["x"], body=body))


def add_function(model: onnx.ModelProto) -> None:
    function = helper.make_function("own", "f", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [])
    model.functions.append(function)


def other_signature(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "pixels"
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]


FALLING = {"slope": -1.0, "intercept": 0.0}
PROPOSALS = {"generator": "grid", "size": 400, "min_side": 20, "min_area": 0.1}
CHANGED: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "no metadata": (lambda model: model.metadata_props.pop(), "no metadata 'boxless'; boxless export RUN"),
    "weights elsewhere": (lambda model: elsewhere(model.graph.initializer[0]), "its weights lie in other files"),
    "constant elsewhere": (constant_elsewhere, "its weights lie in other files"),
    "operator of a vendor": (add_of_vendor, "operators beyond ONNX's own"),
    "control flow": (add_loop, "control flow"),
    "function": (add_function, "functions"),
    "unknown operator": (add_unknown, "cannot be run"),
    "signature": (other_signature, "inputs and outputs are not those of a detector"),
    "huge metadata": (lambda model: relabelled(model, "[" * 2**21), "more than 1,048,576 bytes"),
    "deep metadata": (lambda model: relabelled(model, "[" * 2**19), "metadata is damaged"),
    "no JSON": (lambda model: relabelled(model, "classes: cat"), "metadata is damaged"),
    "a list": (lambda model: relabelled(model, "[1, 2]"), "metadata is damaged"),
    "later format": (with_change(lambda said: said.update(format=99)), "metadata of format 99; this version reads"),
    "a field less": (with_change(lambda said: said.pop("views")), "metadata is damaged .KeyError: 'views'"),
    "no classes": (with_change(lambda said: said.update(classes=[])), "metadata is damaged"),
    "classes twice": (with_change(lambda said: said.update(classes=["a", "a", "b"])), "metadata is damaged"),
    "class of another kind": (with_change(lambda said: said.update(classes=[1, 2, 3])), "metadata is damaged"),
    "huge view": (with_change(lambda said: said["views"][0].update(scale=10**9)), "metadata is damaged"),
    "view of another kind": (with_change(lambda said: said["views"][0].update(scale=True)), "metadata is damaged"),
    "infinite score": (with_change(lambda said: said["selection"].update(min_score=1e400)), "metadata is damaged"),
    "calibration of other classes": (with_change(lambda said: said.update(calibration={})), "metadata is damaged"),
    "falling calibration": (
        with_change(lambda said: said.update(calibration=dict.fromkeys(CLASSES, FALLING))),
        "metadata is damaged",
    ),
    "nothing to keep": (with_change(lambda said: said["selection"].update(max_boxes=0)), "metadata is damaged"),
    "generator": (
        with_change(lambda said: said.update(proposals=PROPOSALS | {"generator": "x"})),
        "needs the proposal generator 'x'",
    ),
    "untrusted": (with_change(lambda said: said.update(untrusted=[1])), "metadata is damaged"),
}


def test_proposals_that_need_a_package_that_is_missing_name_it(
    student: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(student.file)
    with_change(lambda said: said.update(proposals=PROPOSALS | {"generator": "grouping"}))(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setitem(sys.modules, "numba", None)
    refused(tmp_path / "a.onnx", "numba, which is not installed: pip install numba")


@pytest.mark.parametrize("case", CHANGED)
def test_a_file_that_is_not_as_exported_is_refused(case: str, student: Exported, tmp_path: Path, opened: Opened):
    change, message = CHANGED[case]
    (tmp_path / "secret").write_bytes(bytes(2**16))
    folder = tmp_path / "files"
    folder.mkdir()
    model = onnx.load(student.file)
    change(model)
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    with opened:
        refused(folder / "a.onnx", message)
    assert not [name for name in opened.names if "secret" in name] and not opened.for_writing


def test_other_classes_than_the_network_scores_are_noticed(student: Exported, images: list[Path], tmp_path: Path):
    model = onnx.load(student.file)
    with_change(lambda said: said.update(classes=["a", "b"]))(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BoxlessError, match="its network does not give what its metadata says"):
        Runtime(tmp_path / "a.onnx").predict(images[0])


def test_bytes_that_parsers_may_read_in_two_ways(student: Exported, images: list[Path], tmp_path: Path):
    file, content = tmp_path / "a.onnx", student.file.read_bytes()
    # Its producer's name makes it look like ONNX Runtime's own format, which is not checked.
    file.write_bytes(b"\x12\x06aaORTM" + content)
    found, expected = (runtime.predict(images[0], 0) for runtime in (Runtime(file), student.runtime))
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    # A tag of more than 32 bits, of which some parsers read the lower ones.
    file.write_bytes(b"\x92\x80\x80\x80\x10\x01a" + content)
    refused(file, "not a protocol buffer")


def test_cut_off_and_spoiled_files_are_refused_or_still_whole(student: Exported, tmp_path: Path):
    content, random = student.file.read_bytes(), np.random.default_rng(0)
    file = tmp_path / "a.onnx"
    for end in (0, 1, 10, *random.integers(11, len(content), 40)):
        file.write_bytes(content[:end])
        refused(file, "damaged, or no ONNX file|not a file of Boxless|cannot be run")
    for _ in range(40):
        spoiled = bytearray(content)
        for place in random.integers(0, len(content), 8):
            spoiled[place] ^= 1 << int(random.integers(0, 8))
        file.write_bytes(spoiled)
        try:
            Runtime(file)
        except BoxlessError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04zip", b"\x80\x04pickle", b"\xff" * 64, bytes(64)], ids=repr)
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(content)
    refused(tmp_path / "a.onnx", "damaged, or no ONNX file")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    refused(tmp_path / "gone.onnx", "there is no such file; boxless export RUN --out")
    refused(tmp_path, "cannot be read")
