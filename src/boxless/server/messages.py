"""Requests and responses of the server as JSON."""

from typing import Any

from pydantic import BaseModel, Field


class Detection(BaseModel):
    """A box: its class, its score, and x1, y1, x2, y2 in pixels, right and bottom exclusive."""

    name: str
    score: float
    box: tuple[float, float, float, float]


class Prediction(BaseModel):
    """Detections of an image, best score first; `image_scores` are the scores of the classes for the whole image."""

    model_version: str
    width: int
    height: int
    image_scores: dict[str, float]
    detections: list[Detection]


class MarkedDetection(Detection):
    """A box, and whether it is a confident one, which `boxless predict` shows."""

    confident: bool


class ClassView(BaseModel):
    """A class's colour (#rrggbb) and its heatmap, a JPEG data URI that spans the image."""

    colour: str
    heatmap: str


class Inspection(Prediction):
    """All boxes, the decoded image (a JPEG data URI), and every class's heatmap."""

    detections: list[MarkedDetection]  # type: ignore[assignment]
    image: str
    classes: dict[str, ClassView]


class Model(BaseModel):
    """The detector's name, method and classes, the server's limits, and a matching labeling config."""

    model_version: str
    method: str
    classes: list[str]
    max_bytes: int
    max_pixels: int
    labeling_config: str


class Problem(BaseModel):
    """An error message."""

    error: str


class Tasks(BaseModel):
    """Label Studio's request: images are data URIs in the tasks' data."""

    tasks: list[dict[str, Any]]
    label_config: str | None = None


class Project(BaseModel):
    """Label Studio's setup request: its project's labeling config."""

    schema_: str | None = Field(None, alias="schema")
