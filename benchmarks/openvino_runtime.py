"""The detections of an exported file by OpenVINO in place of ONNX Runtime.

pip install openvino
python benchmarks/openvino_runtime.py detector.onnx photos
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino
from numpy.typing import NDArray

from boxless.image_files import find_images
from boxless.runtime import OUTPUTS, Network, Runtime
from boxless.structures import FloatArray


class OpenVINORuntime(Runtime):
    """`Runtime` whose network OpenVINO computes."""

    def load(self, content: bytes, threads: int) -> Network:
        """See `Runtime.load`."""
        core = openvino.Core()
        # By default it computes in 16 bits where the processor can.
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        network = core.compile_model(core.read_model(content, b""), "CPU", settings)

        def run(given: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
            found = network.create_infer_request().infer(given)
            return [found[name] for name in OUTPUTS]

        return run


if __name__ == "__main__":
    detector = OpenVINORuntime(sys.argv[1])
    for image in find_images(Path(sys.argv[2])):
        for box, score, _, name in detector.predict(image):
            print(image, name, round(score, 3), *(round(side) for side in box))
