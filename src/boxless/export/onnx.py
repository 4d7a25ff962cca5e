"""A run as one file to deploy: `boxless export`.

The file holds the network and, as metadata, all that `boxless.runtime` needs to give the detections of the run. It is
written only if it gives them on real images.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from boxless.backbones import fingerprint
from boxless.detector import Detector
from boxless.errors import BoxlessError, in_one_line
from boxless.export.common import readable_images
from boxless.export.int8 import MAX_LOSS, find_calibration_images, measure, quantised
from boxless.files import check_writable, expand_user, write_whole
from boxless.image_files import find_images
from boxless.methods import FCOS, FastRCNN
from boxless.network import Network, load_network
from boxless.postprocess import ViewArrays
from boxless.predictor import Predictor
from boxless.progress import progress_bars
from boxless.proposals import propose
from boxless.run_folder import MANIFEST, MAX_SAMPLE_IMAGES, public_weights, read_config, read_manifest, versions
from boxless.run_path import SUFFIX
from boxless.structures import SHOWN_IMAGE_SCORE, SHOWN_SHARE
from boxless.wording import counted

if TYPE_CHECKING:
    from boxless.runtime import Runtime

OPSET = 18
"""Version of the ONNX operators; ONNX Runtime reads it since 1.14, OpenVINO since 2023.1."""
MAX_BOX_ERROR, MAX_SCORE_ERROR = 0.5, 1e-3
"""By which a file may differ from its run: pixels of the image, and scores."""


def export_onnx(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]] = (),
    *,
    int8: str | os.PathLike[str] | None = None,
    max_loss: float = MAX_LOSS,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a run as one ONNX file, for `boxless.runtime.Runtime` and for other programs.

    Args:
        run: the run folder.
        out: the file.
        images: images and folders of images to compare the file and the run on; by default images of the training set.
        int8: images, or a data set, to calibrate 8-bit integers on and to measure on what they lose, see `export.int8`;
            None leaves the network in floating point.
        max_loss: share of mAP that 8-bit integers may lose.
        progress: whether to show progress bars.

    Returns:
        The metadata of the file (`docs/deploying.md`).

    Raises:
        BoxlessError: it is no run of a method that can be exported, there is no image to compare on, the file differs
            from the run, or loses more by 8-bit integers; then nothing is written.
    """
    folder, file = expand_user(run), expand_user(out)
    _check_installed()
    if file.suffix.lower() != SUFFIX:
        raise BoxlessError(f"{file}: call the file NAME{SUFFIX}, by which it is recognised")
    check_writable(file)
    detector = Detector.load(folder, "cpu")
    if not isinstance(detector.model, FCOS | FastRCNN):
        raise BoxlessError(
            f"{folder}: of the method {detector.method}, which cannot be exported; seeded and student can: "
            "train with --method student"
        )
    manifest = read_manifest(folder)
    files = _images(folder, manifest, images)
    calibrating = None if int8 is None else find_calibration_images(int8, detector.classes)
    network = load_network(folder, read_config(folder), manifest)
    metadata = _metadata(detector, manifest, network)
    with progress_bars(progress):
        model = _graph(network, detector)
        exact = _runtime(_with_metadata(model, metadata), str(file))
        metadata["parity"] = _compare(detector, exact, files, str(file))
        if calibrating is not None:
            model = quantised(model, exact, calibrating)
            coarse = _runtime(_with_metadata(model, metadata), str(file))
            metadata["int8"] = measure(exact, coarse, calibrating, max_loss, str(file))
    content = _with_metadata(model, metadata)
    with write_whole(file) as handle:
        handle.write(content)
    return metadata


def _check_installed() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise BoxlessError(f"boxless export needs {', '.join(missing)}: pip install onnx onnxscript onnxruntime")


def _images(run: Path, manifest: Mapping[str, Any], images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """At most `MAX_SAMPLE_IMAGES` files to compare on."""
    if images:
        found = [file for path in images for file in find_images(expand_user(path))]
        if not found:
            raise BoxlessError(f"{', '.join(map(str, images))}: there is no image to compare the file and the run on")
    else:
        named = manifest.get("sample_images", [])
        found = [Path(name) for name in named if isinstance(name, str) and Path(name).is_file()]
        if not found:
            raise BoxlessError(
                f"{run}: the training images are gone, or {MANIFEST} does not name them; "
                "give images like them to compare the file and the run on: --images photos"
            )
    return found[:: -(-len(found) // MAX_SAMPLE_IMAGES)]


def _metadata(detector: Detector, manifest: Mapping[str, Any], network: Network) -> dict[str, Any]:
    """All but the measured parity."""
    from boxless.runtime_file import FORMAT

    backbone, calibration = detector.config.backbone, detector.calibration
    certain = "image_score" if calibration is None else "score"
    return {
        "format": FORMAT,
        "name": detector.name,
        "method": detector.method,
        "supervision": detector.supervision,
        "untrusted": dict(detector.untrusted),
        "classes": list(detector.classes),
        "thresholds": {name: {certain: SHOWN_IMAGE_SCORE, "share_of_best": SHOWN_SHARE} for name in detector.classes},
        "calibration": None if calibration is None else calibration.by_class(detector.classes),
        "views": [asdict(view) for view in detector.views],
        "input": "images: RGB, uint8, (batch, height, width, 3), resized so that the longest side is views.scale",
        "boxes": "x1, y1, x2, y2 in pixels of the input, right and bottom exclusive",
        "selection": asdict(detector.selection),
        "proposals": None if detector.proposals is None else detector.proposals.model_dump(),
        "backbone": {"name": backbone.name, **public_weights(manifest, detector.config)},
        "data": manifest["data"],
        "seed": manifest.get("seed"),
        "weights": fingerprint(network),
        "versions": {"training": manifest.get("versions"), "export": {**versions(), **_tools()}},
    }


def _tools() -> dict[str, str]:
    import onnx
    import onnxruntime
    import onnxscript

    return {module.__name__: module.__version__ for module in (onnx, onnxscript, onnxruntime)}


def _graph(network: Network, detector: Detector) -> Any:
    """The network as an `onnx.ModelProto`."""
    from boxless.export.onnx_graph import exported_network
    from boxless.runtime import OUTPUTS

    # Sizes that no stride divides, so that none of them is taken for a constant.
    images = torch.zeros(2, 97, 131, 3, dtype=torch.uint8)
    proposals = torch.tensor([[10.0, 20, 60, 70]]).expand(2, 5, 4)
    shapes: dict[str, Any] = {"images": {0: "batch", 1: "height", 2: "width"}}
    if detector.proposals is not None:
        shapes["proposals"] = {0: "batch", 1: "proposals"}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                exported_network(network),
                (images, proposals)[: len(shapes)],
                dynamo=True,
                opset_version=OPSET,
                input_names=list(shapes),
                output_names=list(OUTPUTS),
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # The exporter raises many kinds, for layers that it does not know.
        name = detector.config.backbone.name
        raise BoxlessError(f"the backbone {name} cannot be exported ({in_one_line(error)}); train another") from error
    assert program is not None
    model = program.model_proto
    # What the exporter notes of each node names files of this machine.
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to its own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


def _with_metadata(model: Any, metadata: Mapping[str, Any]) -> bytes:
    from boxless.runtime_file import KEY

    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    content: bytes = model.SerializeToString()
    return content


class Difference(NamedTuple):
    """The largest differences of the outputs of a file and of its run; NaN where an output is not a number.

    Args:
        boxes_px: of the boxes, in pixels of the image.
        scores: of the scores, of images and of boxes.
    """

    boxes_px: float = 0.0
    scores: float = 0.0


def _runtime(content: bytes, name: str) -> "Runtime":
    from boxless.runtime import Runtime
    from boxless.runtime_file import describe

    return Runtime.from_bytes(content, describe(content, name), name)


def _compare(detector: Predictor, runtime: Predictor, files: Sequence[Path], name: str) -> dict[str, Any]:
    """By how much the outputs of the file differ from those of the run, at most.

    Raises:
        BoxlessError: by too much, or no image can be read.
    """
    compared, largest = 0, Difference()
    for _, pixels in readable_images(files, "Compare", "comparison"):
        compared += 1
        # Unlike Python's `max`, which may drop a NaN.
        largest = Difference(*np.maximum(largest, difference(detector, runtime, pixels, name)).tolist())
    if not compared:
        raise BoxlessError(
            f"none of the {counted(len(files), 'image')} to compare on can be read; the first: {files[0]}"
        )
    if not (largest.boxes_px <= MAX_BOX_ERROR and largest.scores <= MAX_SCORE_ERROR):
        raise BoxlessError(
            f"{name}: not written, as it differs from the run: boxes by {largest.boxes_px:.3g} px and scores by "
            f"{largest.scores:.3g} on {counted(compared, 'image')} (allowed: {MAX_BOX_ERROR} px and {MAX_SCORE_ERROR}"
            "); please report the backbone"
        )
    return {"images": compared, **{key: round(value, 9) for key, value in largest._asdict().items()}}


def difference(detector: Predictor, other: Predictor, pixels: NDArray[np.uint8], name: str) -> Difference:
    """By how much the outputs of a file for one image differ from those of its run.

    The boxes and scores are those before suppression: which of two boxes that score the same is kept may depend on the
    last bit.

    Args:
        detector: the run.
        other: the file.
        pixels: an image (h, w, 3) uint8, RGB.
        name: what error messages call the file.

    Raises:
        BoxlessError: their outputs are not of the same shapes.
    """
    proposals = None if detector.proposals is None else propose(pixels, detector.proposals)
    height, width = pixels.shape[:2]
    found = []
    pairs = zip(detector.outputs(pixels, proposals), other.outputs(pixels, proposals), strict=True)
    for view, (one, two) in zip(detector.views, pairs, strict=True):
        _check_shapes(one, two, name)
        assert one.boxes is not None and two.boxes is not None
        assert one.proposal_scores is not None and two.proposal_scores is not None
        moved = view.restore(one.boxes, width, height) - view.restore(two.boxes, width, height)
        of_boxes = np.abs(one.proposal_scores - two.proposal_scores).max(initial=0)
        of_image = np.abs(one.image_scores - two.image_scores).max()
        found.append((np.abs(moved).max(initial=0), np.maximum(of_boxes, of_image)))
    return Difference(*np.max(found, axis=0).tolist())


def _check_shapes(one: ViewArrays, two: ViewArrays, name: str) -> None:
    shapes = [[None if part is None else part.shape for part in parts] for parts in (one, two)]
    for field, expected, shape in zip(ViewArrays._fields, *shapes, strict=True):
        if shape != expected:
            raise BoxlessError(
                f"{name}: not written, as it differs from the run: {field} of shape {shape} instead of {expected}; "
                "please report the backbone"
            )
