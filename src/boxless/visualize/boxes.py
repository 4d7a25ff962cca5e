"""Boxes drawn over an image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from boxless.visualize.colours import OKABE_ITO, Colour, text_colour_on
from boxless.visualize.text import draw_text, height_of, shortened, width_of

if TYPE_CHECKING:
    from boxless.structures import Annotations, Detections

Rectangle = tuple[int, int, int, int]

_PALETTE = tuple(OKABE_ITO.values())


def class_colour(label: int) -> Colour:
    """The colour of a class index: seven that colour-blind readers distinguish, then darker and lighter shades."""
    red, green, blue = _PALETTE[label % len(_PALETTE)]
    shade = label // len(_PALETTE) % 3
    if shade == 1:
        return red * 3 // 5, green * 3 // 5, blue * 3 // 5
    if shade == 2:
        return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2
    return red, green, blue


def draw_boxes(
    image: NDArray[np.uint8], detections: "Detections", annotations: "Annotations | None" = None
) -> NDArray[np.uint8]:
    """Draw boxes with class and score; higher scores lie on top, captions stay inside the image and do not overlap.

    Args:
        image: (h, w, 3) uint8, RGB; it is not changed.
        detections: boxes in pixels of this image, best first.
        annotations: ground truth, drawn as thin dashed white lines.

    Returns:
        (h, w, 3) uint8.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(_scale(canvas.size) / 170))
    boxes = [_pixels(box, canvas.size) for box in detections.boxes.tolist()]
    colours = [class_colour(label) for label in detections.labels.tolist()]
    for box, colour in zip(reversed(boxes), reversed(colours), strict=True):
        draw.rectangle(box, outline=colour, width=line)
    for box in annotations.boxes.tolist() if annotations is not None else []:
        _draw_dashed(draw, _pixels(box, canvas.size), max(1, line // 2))
    captions: list[_Caption] = []
    for found, box, colour in zip(detections, boxes, colours, strict=True):
        captions.append(_caption(found.name, found.score, box, colour, canvas.size, captions))
    for caption in reversed(captions):
        caption.draw(draw)
    return np.asarray(canvas).copy()


@dataclass(frozen=True)
class _Caption:
    """Text on a filled rectangle, `place`, last pixels included."""

    text: str
    place: Rectangle
    colour: Colour
    size: int

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        draw.rectangle(self.place, fill=self.colour)
        pad = _padding(self.size)
        corner = self.place[0] + pad, self.place[1] + pad // 2
        draw_text(draw, corner, self.text, self.size, text_colour_on(self.colour))


def _caption(
    name: str, score: float, box: Rectangle, colour: Colour, size: tuple[int, int], others: list[_Caption]
) -> _Caption:
    """The caption of a box at the first free place: above it, at its top inside, below it, at its bottom inside."""
    width, height = size
    points = max(10, round(_scale(size) / 36))
    pad = _padding(points)
    text = shortened(name, f" {score:.2f}", width - 2 * pad, points)
    w, h = min(width_of(text, points) + 2 * pad, width), min(height_of(points) + pad, height)
    left = min(max(box[0], 0), width - w)
    places = []
    for top in (box[1] - h, box[1], box[3] + 1, box[3] + 1 - h):
        inside = min(max(top, 0), height - h)
        places.append((left, inside, left + w - 1, inside + h - 1))
    free = (place for place in places if not any(_overlap(place, other.place) for other in others))
    return _Caption(text, next(free, places[0]), colour, points)


def _scale(size: tuple[int, int]) -> int:
    """What lines and captions are drawn in proportion to: the longer side, on panoramas three times the shorter one."""
    return min(max(size), 3 * min(size))


def _padding(points: int) -> int:
    return max(2, points // 4)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _pixels(box: list[float], size: tuple[int, int]) -> Rectangle:
    """The first and last pixels of a box within the image."""
    (width, height), (x1, y1, x2, y2) = size, (round(side) for side in box)
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return left, top, max(min(x2, width) - 1, left), max(min(y2, height) - 1, top)


def _draw_dashed(draw: ImageDraw.ImageDraw, box: Rectangle, line: int) -> None:
    """Alternate white and black dashes, which are visible on any background."""
    left, top, right, bottom = box
    dash = 4 * line + 2
    draw.rectangle(box, outline="black", width=line)
    for x in range(left, right + 1, 2 * dash):
        end = min(x + dash, right + 1) - 1
        draw.rectangle((x, top, end, min(top + line - 1, bottom)), fill="white")
        draw.rectangle((x, max(bottom - line + 1, top), end, bottom), fill="white")
    for y in range(top, bottom + 1, 2 * dash):
        end = min(y + dash, bottom + 1) - 1
        draw.rectangle((left, y, min(left + line - 1, right), end), fill="white")
        draw.rectangle((max(right - line + 1, left), y, right, end), fill="white")
