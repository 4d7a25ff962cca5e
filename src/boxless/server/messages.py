"""What the server is asked and what it answers, as JSON."""

from typing import Any

from pydantic import BaseModel, Field


class Detection(BaseModel):
    """A box: its class, its score, and x1, y1, x2, y2 in pixels, right and bottom exclusive."""

    name: str
    score: float
    box: tuple[float, float, float, float]


class Prediction(BaseModel):
    """What was found in an image, best first; `image_scores` tell how sure it is that a class is there at all."""

    model_version: str
    width: int
    height: int
    image_scores: dict[str, float]
    detections: list[Detection]


class MarkedDetection(Detection):
    """A box, and whether it is one that `boxless predict` would show."""

    confident: bool


class ClassView(BaseModel):
    """A class's colour (#rrggbb) and its heatmap, a JPEG data URI that spans the image."""

    colour: str
    heatmap: str


class Look(Prediction):
    """All boxes, the image as it was read (a JPEG data URI), and every class's heatmap."""

    detections: list[MarkedDetection]  # type: ignore[assignment]
    image: str
    classes: dict[str, ClassView]


class Model(BaseModel):
    """Which detector this is, what it takes, and the labeling config that fits it."""

    model_version: str
    method: str
    classes: list[str]
    max_bytes: int
    max_pixels: int
    labeling_config: str


class Problem(BaseModel):
    """What was wrong, and the mend."""

    error: str


class Tasks(BaseModel):
    """Label Studio's request: images are data URIs in the tasks' data."""

    tasks: list[dict[str, Any]]
    label_config: str | None = None


class Project(BaseModel):
    """Label Studio's greeting: its project's labeling config."""

    schema_: str | None = Field(None, alias="schema")
