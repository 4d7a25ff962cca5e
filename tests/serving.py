"""A server on a free port, with a detector whose predictions are known."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from starlette.types import ASGIApp
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import Config, InferenceConfig, ViewConfig
from boxless.detector import Detector
from boxless.features import Batch
from boxless.methods import CAMConfig, HeatmapModel, ViewOutput
from boxless.network import Network
from boxless.server import Limits, build_server, create_app

CLASSES = ("cat", "dog", "owl")
SCORES = {"cat": 0.9, "dog": 0.6, "owl": 0.2}
# Of an image of 96 x 64 pixels.
BOXES = {"cat": [0, 0, 48, 32], "dog": [0, 32, 96, 64], "owl": [80, 0, 96, 16]}


class Quarters(HeatmapModel):
    """Predicts a cat in the upper left quarter, a dog in the lower half, a faint owl in the last cell of row one."""

    def __init__(self, seconds: float) -> None:
        super().__init__(nn.Sequential(), (3, len(CLASSES)), kernel=1, dropout=0, threshold=0.5)
        self.seconds = seconds

    def forward(self, batch: Batch) -> list[ViewOutput]:
        time.sleep(self.seconds)
        _, height, width = batch.maps[0].shape
        heat = torch.zeros(3, height, width)
        heat[0, : height // 2, : width // 2] = 0.8
        heat[1, height // 2 :] = 0.6
        heat[2, 0, -1] = 0.1
        return [ViewOutput(Tensor([SCORES[name] for name in CLASSES]), maps=heat)]


def known_detector(seconds: float = 0) -> Detector:
    """A detector that takes at least so many seconds for an image and always predicts the same."""
    stages = nn.Sequential(nn.Conv2d(3, 3, 3, stride=16, padding=1)).eval()
    backbone = Backbone(stages, 3, 16, (0.5,) * 3, (0.5,) * 3, "random", "none")
    config = Config(
        method="quarters",
        head=CAMConfig(),
        inference=InferenceConfig(views=ViewConfig(scales=(96,), flips=False)),
    )
    network = Network(backbone, stages, Quarters(seconds))
    return Detector(network, config, CLASSES, torch.device("cpu"), "first")


def encoded(form: str = "PNG", size: tuple[int, int] = (96, 64), noise: bool = False, **options: Any) -> bytes:
    """An image file: plain, or noise that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = BytesIO()
    (Image.fromarray(pixels) if noise else Image.new("RGB", size, "orange")).save(file, form, **options)
    return file.getvalue()


def served(detector: Detector, limits: Limits | None = None) -> AbstractContextManager[str]:
    """Serve a detector, see `served_app`."""
    return served_app(create_app(detector, limits), limits)


@contextmanager
def served_app(app: ASGIApp, limits: Limits | None = None) -> Iterator[str]:
    """Serve on a free port of the loopback interface; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = build_server(app, limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
