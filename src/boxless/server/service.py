"""What the detector does for the server."""

import asyncio
import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

from boxless.detector import Detector, confident
from boxless.export.common import rows
from boxless.export.label_studio import Control, labeling_config, own_control, prediction
from boxless.images import decode_image
from boxless.server.guard import Limits
from boxless.server.messages import ClassView, Detection, Look, MarkedDetection, Model, Prediction
from boxless.structures import Detections, FloatArray, Heatmaps
from boxless.visualize import draw_heatmap
from boxless.visualize.boxes import class_colour

T = TypeVar("T")

IMAGE, HEATMAP = 1600, 320
"""Longest sides, in pixels, of what the page gets to show."""


class Service:
    """The detector, looking at one image at a time."""

    def __init__(self, detector: Detector, limits: Limits) -> None:
        self.detector, self.limits = detector, limits
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[], T]) -> T:
        """Do some work outside the event loop, when it is its turn."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise HTTPException(503, "too much to do at the moment; try again later", {"Retry-After": "5"}) from None
        try:
            return await asyncio.to_thread(work)
        finally:
            self._turn.release()

    def predict(self, content: bytes, min_score: float | None) -> Prediction:
        """The boxes of an image file: those that score enough, or the confident ones."""
        found, _ = self.detector.look(decode_image(content, "the image", self.limits.pixels))
        found = confident(found) if min_score is None else found.above(min_score)
        return Prediction(**self._head(found), detections=[_detection(found, *row) for row in rows(found)])

    def look(self, content: bytes) -> Look:
        """All there is to see in an image file."""
        image = decode_image(content, "the image", self.limits.pixels)
        found, heat = self.detector.look(image)
        shown = set(rows(confident(found)))
        detections = [
            MarkedDetection(**_detection(found, *row).model_dump(), confident=row in shown) for row in rows(found)
        ]
        classes = {
            name: ClassView(colour="#{:02x}{:02x}{:02x}".format(*class_colour(label)), heatmap=_heatmap(heat, label))
            for label, name in enumerate(found.classes)
        }
        return Look(**self._head(found), detections=detections, image=_data_uri(image, IMAGE), classes=classes)

    def task(self, content: bytes, name: str, control: Control) -> dict[str, Any]:
        """A Label Studio prediction for an image file."""
        found, _ = self.detector.look(decode_image(content, name, self.limits.pixels))
        return prediction(confident(found), control, self.detector.name)

    def model(self) -> Model:
        """What is served."""
        return Model(
            model_version=self.detector.name,
            method=self.detector.config.method,
            classes=list(self.detector.classes),
            max_bytes=self.limits.size,
            max_pixels=self.limits.pixels,
            labeling_config=labeling_config(own_control(self.detector.classes)),
        )

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
    return _data_uri(draw_heatmap(np.zeros((height, width, 3), np.uint8), heatmap, alpha=1), HEATMAP)


def _data_uri(image: NDArray[np.uint8], longest: int) -> str:
    pil, file = Image.fromarray(image), BytesIO()
    pil.thumbnail((longest, longest))
    pil.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
