"""The detector behind the server's routes."""

import asyncio
import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

from boxless.export.common import rows
from boxless.export.label_studio import Control, labeling_config, own_control, prediction
from boxless.images import decode_image
from boxless.predictor import Predictor
from boxless.server.guard import Limits
from boxless.server.messages import ClassView, Detection, Inspection, MarkedDetection, Model, Prediction
from boxless.structures import Detections, FloatArray, Heatmaps
from boxless.visualize import draw_heatmap
from boxless.visualize.boxes import class_colour
from boxless.visualize.colours import hex_colour

T = TypeVar("T")

IMAGE, HEATMAP = 1600, 320
"""Longest sides, in pixels, of the images that the page receives."""


class Service:
    """The detector, which processes one image at a time."""

    def __init__(self, detector: Predictor, limits: Limits) -> None:
        self.detector, self.limits = detector, limits
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread as soon as no other is running, also none of a request that was cancelled meanwhile.

        Raises:
            HTTPException: the others take longer than the limit.
        """
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise HTTPException(503, "the server is busy; try again later", {"Retry-After": "5"}) from None
        working = asyncio.ensure_future(asyncio.to_thread(work))
        working.add_done_callback(lambda _: self._turn.release())
        # A thread cannot be cancelled, and ends the turn only when it ends itself.
        return await asyncio.shield(working)

    def predict(self, content: bytes, threshold: float | None) -> Prediction:
        """The boxes of an image file whose score is `threshold` or higher; None gives the confident ones."""
        found = self.detector.predict(self._decode(content), threshold)
        return Prediction(**self._head(found), detections=[_detection(found, *row) for row in rows(found)])

    def inspect(self, content: bytes) -> Inspection:
        """All boxes and heatmaps of an image file."""
        image = self._decode(content)
        found, heat = self.detector.predict_with_heatmaps(image)
        detections = [
            MarkedDetection(**_detection(found, *row).model_dump(), confident=confident)
            for row, confident in zip(rows(found), found.confident_mask.tolist(), strict=True)
        ]
        classes = {
            name: ClassView(colour=hex_colour(class_colour(label)), heatmap=_heatmap(heat, label))
            for label, name in enumerate(found.classes)
        }
        return Inspection(**self._head(found), detections=detections, image=data_uri(image, IMAGE), classes=classes)

    def task(self, content: bytes, name: str, control: Control) -> dict[str, Any]:
        """A Label Studio prediction for an image file."""
        found = self.detector.predict(self._decode(content, name))
        return prediction(found, control, self.detector.name)

    def model(self) -> Model:
        """The detector's name, classes and limits."""
        return Model(
            model_version=self.detector.name,
            method=self.detector.method,
            classes=list(self.detector.classes),
            max_bytes=self.limits.size,
            max_pixels=self.limits.pixels,
            labeling_config=labeling_config(own_control(self.detector.classes)),
        )

    def _decode(self, content: bytes, name: str = "the image") -> NDArray[np.uint8]:
        return decode_image(content, name, self.limits.pixels)

    def _head(self, found: Detections) -> dict[str, Any]:
        scores = {name: round(float(score), 6) for name, score in zip(found.classes, found.image_scores, strict=True)}
        width, height = found.size
        return {"model_version": self.detector.name, "width": width, "height": height, "image_scores": scores}


def _detection(found: Detections, label: int, score: float, box: tuple[float, float, float, float]) -> Detection:
    return Detection(name=found.classes[label], score=score, box=box)


def _heatmap(heat: Heatmaps, label: int) -> str:
    shrink = min(1, HEATMAP / max(heat.size))
    width, height = (max(1, round(side * shrink)) for side in heat.size)
    heatmap: FloatArray = heat.maps[label]
    return data_uri(draw_heatmap(np.zeros((height, width, 3), np.uint8), heatmap, alpha=1), HEATMAP)


def data_uri(image: NDArray[np.uint8], longest: int) -> str:
    """An image (h, w, 3) uint8, RGB, as a JPEG data URI whose longest side is at most `longest` pixels."""
    pil, file = Image.fromarray(image), BytesIO()
    pil.thumbnail((longest, longest))
    pil.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
