"""A detector of the size that people are used to, with random weights, as a yardstick of speed: SSDlite.

MobileNetV3-Large with the heads of SSDlite, of torchvision (BSD-3-Clause), which finds 91 classes: 3.4 million weights
and 2.3 billion multiplications at 640 x 640 px, where YOLO11n has 2.6 million and 3.3 billion by its authors.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from boxless.images import read_image
from boxless.process import cores
from boxless.structures import FloatArray
from boxless.views import View


def export(file: Path) -> None:
    """Write the network as ONNX: `images`, (1, 3, height, width) float32, to the numbers of boxes and classes."""
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            found = model.head(list(model.backbone(images).values()))
            return found["bbox_regression"], found["cls_logits"]

    torch.onnx.export(
        Network().eval(),
        # Of smaller images the last maps have one cell, and the export would fix that.
        (torch.zeros(1, 3, 640, 832),),
        file,
        dynamo=True,
        external_data=False,
        input_names=["images"],
        dynamic_shapes=({2: "height", 3: "width"},),
        verbose=False,
    )


class Yardstick:
    """Reads images as `Runtime` does, and computes one on each core; boxes are neither decoded nor suppressed.

    Args:
        file: written by `export`.
    """

    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.views = (View(320, False),)

    def predict(self, images: Sequence[str], *, progress: bool) -> list[list[FloatArray]]:
        """The outputs of the network for image files."""

        def one(path: str) -> list[FloatArray]:
            pixels = self.views[0].resize(read_image(Path(path)))
            given = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1
            found: list[FloatArray] = self.session.run(None, {"images": given})
            return found

        with ThreadPoolExecutor(cores()) as threads:
            return list(threads.map(one, images))
