"""Detection with a file of `boxless export`, without torch: NumPy, Pillow, OpenCV and ONNX Runtime are enough.

>>> from boxless.runtime import Runtime
>>> detector = Runtime("detector.onnx")  # doctest: +SKIP
>>> detector.predict("street.jpg").names  # doctest: +SKIP
['bus', 'person']
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError, in_one_line
from boxless.files import expand_user
from boxless.postprocess import ViewArrays
from boxless.predictor import Predictor
from boxless.process import ProcessSetting, cores
from boxless.proposals.generate import GENERATORS
from boxless.runtime_file import Description, read_file
from boxless.structures import FloatArray
from boxless.views import View

try:
    import onnxruntime
except ImportError:
    raise BoxlessError("onnxruntime is not installed: pip install onnxruntime") from None

OUTPUTS = ("image_scores", "scores", "boxes")
"""What the network in a file gives, in this order; `methods.ViewOutput` describes them, each with a batch in front."""

Network = Callable[[Mapping[str, NDArray[Any]]], Sequence[FloatArray]]
"""Takes the inputs of the network in a file by name, and gives `OUTPUTS`; called from several threads at once."""


class Runtime(Predictor):
    """A detector in one file.

    It has the methods of `boxless.Detector` and gives the same detections. ONNX Runtime computes the network; in a
    subclass that overrides `load` another engine does (`benchmarks/openvino_runtime.py`).

    Args:
        file: written by `boxless export`.

    Raises:
        BoxlessError: there is no such file, it was not written by `boxless export`, or it cannot be run.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        path = expand_user(file)
        self._open(*read_file(path), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, description: Description, name: str) -> "Runtime":
        """A detector whose file was read before.

        Args:
            content: the whole file.
            description: what `runtime_file.describe` gives.
            name: what error messages call it.
        """
        runtime = cls.__new__(cls)
        runtime._open(content, description, name)
        return runtime

    def _open(self, content: bytes, description: Description, source: str) -> None:
        self._content, self._source = content, source
        self._threads, self._networks = cores(), dict[int, Network]()
        self._threads_of_each = ProcessSetting(lambda: self._threads, lambda number: setattr(self, "_threads", number))
        self.description = description
        self.name, self.method, self.supervision = description.name, description.method, description.supervision
        self.untrusted = description.untrusted
        self.classes, self.views = description.classes, description.views
        self.selection = description.selection
        self.calibration = description.calibration
        self.proposals = description.proposals
        self._check_generator()
        self._network()

    def _check_generator(self) -> None:
        generator = None if self.proposals is None else self.proposals.generator
        if generator is not None and generator not in GENERATORS:
            raise BoxlessError(
                f"{self._source}: needs the proposal generator '{generator[:100]}', which is not registered here; "
                "import the file that defines it first"
            )
        if generator == "grouping" and find_spec("numba") is None:
            raise BoxlessError(
                f"{self._source}: computes proposals with numba, which is not installed: pip install numba"
            )

    def _network(self) -> Network:
        """The network on as many threads as an image gets; it is loaded once for each number."""
        threads = self._threads
        if threads not in self._networks:
            try:
                self._networks[threads] = self.load(self._content, threads)
            except BoxlessError:
                raise
            except Exception as error:  # ONNX Runtime's errors share no class of their own.
                raise self._broken(error) from None
        return self._networks[threads]

    def load(self, content: bytes, threads: int) -> Network:
        """The network in a file, ready to be called.

        Args:
            content: the whole file.
            threads: on how many an image is computed.

        Raises:
            BoxlessError: its inputs and outputs are not those of a detector; other errors mean that it cannot be run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # It would take bytes that begin as its own format does for that.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Threads that wait would otherwise keep their cores busy; arenas keep the memory of the largest image, and
        # patterns allocate that of a whole pass at once.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = {given.name: given.type for given in session.get_inputs()}
        expected = {"images": "tensor(uint8)"} | ({} if self.proposals is None else {"proposals": "tensor(float)"})
        if inputs != expected or tuple(given.name for given in session.get_outputs()) != OUTPUTS:
            raise BoxlessError(f"{self._source}: its inputs and outputs are not those of a detector; export it again")
        return lambda given: session.run(OUTPUTS, given)

    def _broken(self, error: Exception) -> BoxlessError:
        return BoxlessError(f"{self._source}: cannot be run ({in_one_line(error)}); export it again")

    @contextmanager
    def in_parallel(self) -> Iterator[int]:
        """See `Predictor`."""
        # As with torch, an image on each core takes less time than one after the other on all.
        with self._threads_of_each.changed_to(1) as threads:
            self._network()
            yield threads

    def outputs(self, pixels: NDArray[np.uint8], boxes: FloatArray | None) -> list[ViewArrays]:
        """See `Predictor`.

        Raises:
            BoxlessError: the network in the file fails, or gives something else than its metadata says.
        """
        return [self._run(pixels, view, boxes) for view in self.views]

    def _run(self, pixels: NDArray[np.uint8], view: View, boxes: FloatArray | None) -> ViewArrays:
        given: dict[str, NDArray[Any]] = {"images": view.resize(pixels)[None]}
        if boxes is not None:
            given["proposals"] = view.boxes(boxes, pixels.shape[1], pixels.shape[0])[None]
        network = self._network()
        try:
            parts = [part[0] for part in network(given)]
        except Exception as error:  # As above.
            raise self._broken(error) from None
        image_scores, scores, found = parts
        classes = len(self.classes)
        if [part.shape for part in parts] != [(classes,), (len(found), classes), (len(found), 4)]:
            raise BoxlessError(f"{self._source}: its network does not give what its metadata says; export it again")
        return ViewArrays(image_scores, scores, boxes=found)
