"""The network in 8-bit integers: which part of it, on which images, what it loses, and when it is refused."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from random_runs import Exported
from running import boxless as run_boxless

from boxless.errors import BoxlessError
from boxless.export.int8 import (
    MAX_IMAGES,
    CalibrationImages,
    _backbone_nodes,
    find_calibration_images,
    measure,
    quantised,
)
from boxless.export.onnx import export_onnx
from boxless.runtime import Runtime
from boxless.structures import Annotations, Detections

BOX = [10, 10, 50, 50]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "photos" / f"{number}.png" for number in range(9)]
    found[0].parent.mkdir()
    for file in found:
        Image.new("RGB", (100, 100)).save(file)
    return found


# What is lost, of detections that are known.


def detected(box: Sequence[float], score: float) -> Detections:
    boxes, image_scores = np.array([box], np.float32), np.array([score, 0.1], np.float32)
    scores, labels = np.array([score], np.float32), np.zeros(1, np.int64)
    return Detections(boxes, scores, labels, ("cat", "dog"), (100, 100), image_scores)


def predictor(*found: Detections) -> Any:
    """What finds these, an image after the other."""
    left = list(found)
    return SimpleNamespace(classes=("cat", "dog"), predict=lambda pixels, threshold: left.pop(0))


def three_and_three() -> tuple[Any, Any]:
    """Of three images the first box is found again, the second at an IoU of 30 x 40 / 2000, the third is not."""
    exact = predictor(*(detected(BOX, 0.9) for _ in range(3)))
    return exact, predictor(detected(BOX, 0.8), detected([20, 10, 60, 50], 0.7), detected([60, 60, 90, 90], 0.6))


def truth(number: int) -> list[Annotations | None]:
    boxes, labels, ignore = np.array([BOX], np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_)
    return [Annotations(boxes, labels, ignore) for _ in range(number)]


@pytest.mark.parametrize(("known", "against"), [(0, "boxes in floating point"), (9, "boxes of the data")])
def test_the_loss_is_that_of_map_on_every_third_image(known: int, against: str, files: list[Path]):
    found = measure(*three_and_three(), CalibrationImages(files, truth(known)), 0.34, "a.onnx")
    assert (found["calibrated"], found["measured"], found["against"]) == (6, 3, against)
    assert found["map_float"] == 1
    # Two of three boxes are found, before anything else is.
    assert found["map_int8"] == found["matched"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["loss"] == pytest.approx(1 / 3, abs=1e-6)
    assert (found["iou"], found["scores"]) == pytest.approx(((1 + 0.6) / 2, (0.1 + 0.2) / 2), abs=1e-6)


def test_images_whose_boxes_are_unknown_are_left_out_where_others_are_known(files: list[Path]):
    annotations = truth(9)
    annotations[6] = None
    found = measure(*three_and_three(), CalibrationImages(files, annotations), 0, "a.onnx")
    assert (found["measured"], found["loss"]) == (2, 0)


def test_more_than_what_is_allowed_is_refused(files: list[Path]):
    with pytest.raises(BoxlessError, match=r"33\.3% of mAP, 1\.000 to 0\.667 .* of 3 images, and 30\.0% is") as error:
        measure(*three_and_three(), CalibrationImages(files, []), 0.3, "a.onnx")
    assert "a.onnx: not written" in str(error.value) and "--max-loss 0.34" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_any_object_nothing_can_be_measured(files: list[Path]):
    nothing = [detected(BOX, 0.4) for _ in range(3)]
    with pytest.raises(BoxlessError, match="cannot be measured: on 3 images nothing is found of the boxes in floating"):
        measure(predictor(*nothing), predictor(*nothing), CalibrationImages(files, []), 1, "a.onnx")


# Images to calibrate on.


def test_a_folder_gives_its_images_evenly_and_a_data_set_its_boxes(files: list[Path], demo: Path):
    assert find_calibration_images(files[0].parent, ("cat",)) == (files, [])
    found = find_calibration_images(demo, ("ball", "dog"))
    assert len(found.files) == len(found.annotations) == 16


def test_of_many_images_some_are_taken(files: list[Path], monkeypatch: pytest.MonkeyPatch):
    assert MAX_IMAGES == 300
    monkeypatch.setattr("boxless.export.int8.MAX_IMAGES", 7)
    found = find_calibration_images(files[0].parent, ("cat",)).files
    assert len(set(found)) == 7 and (found[0], found[-1]) == (files[0], files[-1])


def test_too_few_images_are_refused_before_any_work(files: list[Path], tmp_path: Path):
    for file in files[5:]:
        file.unlink()
    with pytest.raises(BoxlessError, match="photos: 5 images to calibrate 8-bit integers on; give at least 6"):
        find_calibration_images(tmp_path / "photos", ("cat",))
    with pytest.raises(BoxlessError, match="gone: 0 images"):
        find_calibration_images(tmp_path / "gone", ("cat",))


# The network.


def weights_of(model: onnx.ModelProto) -> dict[str, Any]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.slow
def test_the_backbone_is_in_integers_by_channel_and_the_heads_are_not(
    exported: Exported, images: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.export.int8.MIN_STRIDE", 1)
    model = onnx.load(exported.file)
    before = model.SerializeToString()
    found = quantised(model, exported.runtime, CalibrationImages(images, []))
    assert model.SerializeToString() == before
    onnx.checker.check_model(found)
    assert [each.domain for each in found.opset_import] == [""]
    weights = weights_of(found)
    whole = {name: values for name, values in weights.items() if values.dtype == np.int8 and values.ndim == 4}
    # The three of the backbone, each with a scale for every channel; 7 bits do not overflow in 16.
    assert sorted(values.shape[0] for values in whole.values()) == [8, 12, 16]
    assert all(32 < np.abs(values).max() <= 64 for values in whole.values())
    scales = {node.input[0]: weights[node.input[1]].shape for node in found.graph.node if node.input[0] in whole}
    assert scales == {name: (values.shape[0],) for name, values in whole.items()}
    integers = {node.output[0] for node in found.graph.node if node.input[0] in whole}
    convolutions = [node.input[1] for node in found.graph.node if node.op_type == "Conv"]
    assert len(integers & set(convolutions)) == 3 < len(convolutions)


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "channels"), [(4, [12, 16]), (5, [16]), (16, [16])])
def test_layers_that_read_large_maps_stay_in_floating_point(
    stride: int, channels: list[int], student: Exported, images: list[Path], monkeypatch: pytest.MonkeyPatch
):
    # The three convolutions of the backbone read the image and maps of strides 4 and 16.
    monkeypatch.setattr("boxless.export.int8.MIN_STRIDE", stride)
    found = quantised(onnx.load(student.file), student.runtime, CalibrationImages(images, []))
    integers = [values for values in weights_of(found).values() if values.dtype == np.int8 and values.ndim == 4]
    assert sorted(map(len, integers)) == channels
    # One before the first of them, and one after each.
    assert [node.op_type for node in found.graph.node].count("QuantizeLinear") == 1 + len(channels)


def small_network() -> tuple[onnx.ModelProto, Any]:
    """Convolutions of stride 8, depthwise and plain, a sum with what the first gives, and one of an enlarged map."""
    random = np.random.default_rng(0)
    constants = [numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "scales")]

    def convolution(source: str, name: str, shape: tuple[int, ...], stride: int = 1, groups: int = 1) -> onnx.NodeProto:
        constants.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), f"{name} weights"))
        sides, inputs = list(shape[2:]), [source, f"{name} weights"]
        return onnx.helper.make_node(
            "Conv", inputs, [name], name, strides=[stride, stride], kernel_shape=sides, group=groups
        )

    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["images"], ["numbers"], "numbers", to=onnx.TensorProto.FLOAT),
        make("Transpose", ["numbers"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        convolution("planes", "first", (4, 3, 8, 8), stride=8),
        convolution("first", "depthwise", (4, 1, 1, 1), groups=4),
        make("Add", ["first", "depthwise"], ["sum"], "sum"),
        make("Resize", ["sum", "", "scales"], ["enlarged"], "enlarged", mode="nearest"),
        convolution("enlarged", "last", (4, 4, 1, 1)),
        make("Cast", ["last"], ["maps"], "maps", to=onnx.TensorProto.FLOAT16),
    ]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("images", onnx.TensorProto.UINT8, [1, 16, 16, 3])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value("maps", onnx.TensorProto.FLOAT16, None)], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    view = SimpleNamespace(resize=lambda pixels: pixels[:16, :16])
    return model, SimpleNamespace(views=(view,), proposals=None)


def test_weights_of_depthwise_convolutions_have_eight_bits_and_enlarged_maps_are_left(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.export.int8.MIN_STRIDE", 8)
    model, predictor = small_network()
    weights = weights_of(quantised(model, predictor, CalibrationImages(files, [])))
    whole = {name: values for name, values in weights.items() if values.dtype == np.int8 and values.ndim == 4}
    assert [name.split()[0] for name in whole] == ["depthwise"]
    assert np.abs(next(iter(whole.values()))).max() == 127


def test_other_weights_have_seven_bits_and_a_sum_follows_either_side(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
):
    model, predictor = small_network()
    for stride, names in ((8, ["depthwise", "sum"]), (1, ["first", "depthwise", "sum", "last"])):
        monkeypatch.setattr("boxless.export.int8.MIN_STRIDE", stride)
        assert _backbone_nodes(model) == names
    weights = weights_of(quantised(model, predictor, CalibrationImages(files, [])))
    most = {
        name.split()[0]: np.abs(own).max() for name, own in weights.items() if own.dtype == np.int8 and own.ndim == 4
    }
    assert most == {"first": 64, "depthwise": 127, "last": 64}


@pytest.mark.slow
def test_without_a_convolution_on_small_maps_nothing_is_written(
    student: Exported, images: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.export.int8.MIN_STRIDE", 17)
    with pytest.raises(
        BoxlessError, match="no convolution of the backbone reads maps of a stride of 17 or more; export without --int8"
    ):
        quantised(onnx.load(student.file), student.runtime, CalibrationImages(images, []))


@pytest.mark.slow
def test_every_third_image_is_not_calibrated_on(student: Exported, images: list[Path], monkeypatch: pytest.MonkeyPatch):
    from boxless.export import common

    read: list[Path] = []
    monkeypatch.setattr(common, "read_image", lambda path, real=common.read_image: read.append(path) or real(path))
    quantised(onnx.load(student.file), student.runtime, CalibrationImages(images, []))
    assert read == [images[row] for row in (1, 2, 4, 5)]
    gone = [path.with_name("gone.jpg") for path in images]
    with pytest.raises(BoxlessError, match="none of the 4 images to calibrate on can be read"):
        quantised(onnx.load(student.file), student.runtime, CalibrationImages(gone, []))


@pytest.mark.slow
def test_the_command_writes_a_smaller_file_that_predicts_nearly_the_same(
    exported: Exported, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: onnx.load(exported.file))
    # The networks are random: no class is likely.
    monkeypatch.setattr("boxless.structures.SHOWN_IMAGE_SCORE", 0.0)
    # The quantiser installs one where there is none, and messages were printed twice.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    out = tmp_path / "int8.onnx"
    words = ["--out", out, "--int8", images[0].parent, "--max-loss", "1"]
    assert run_boxless(monkeypatch, "export", exported.run, *words) == 0
    assert " ".join(capsys.readouterr().err.split()).count("8-bit integers: mAP") == 1
    assert logging.getLogger().handlers == []
    assert out.stat().st_size < exported.file.stat().st_size
    runtime = Runtime(out)
    said = runtime.description.content["int8"]
    assert (said["calibrated"], said["measured"], said["against"]) == (14, 8, "boxes in floating point")
    assert 0 < said["loss"] < 1 and said["matched"] > 0.5
    (one,), (two,) = (each.heatmap([images[0]]) for each in (exported.runtime, runtime))
    assert 0.9 < np.corrcoef(one.maps.ravel(), two.maps.ravel())[0, 1] < 1


@pytest.mark.slow
def test_what_loses_too_much_is_not_written(
    student: Exported, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.export.onnx._graph", lambda *_: onnx.load(student.file))
    monkeypatch.setattr("boxless.structures.SHOWN_IMAGE_SCORE", 0.0)
    with pytest.raises(BoxlessError, match="8-bit integers lose"):
        export_onnx(student.run, tmp_path / "a.onnx", int8=images[0].parent, max_loss=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_network_without_convolutions_is_refused(student: Exported, images: list[Path]):
    model = onnx.load(student.file)
    for node in model.graph.node:
        node.op_type = "Sum" if node.op_type == "Conv" else node.op_type
    with pytest.raises(
        BoxlessError, match="no convolution of the backbone reads maps of a stride of 16 or more; export without --int8"
    ):
        quantised(model, student.runtime, CalibrationImages(images, []))
