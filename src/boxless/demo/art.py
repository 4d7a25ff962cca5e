"""The six object classes of the demo dataset, painted by formulas over a grid of points.

A painter gets a `Canvas` over a grid of object coordinates u, v and a random generator, and paints the object's parts
on it, from bottom to top. The object is within u, v in [-1, 1]. Distances are signed, negative inside. Colours are RGB
in [0, 1].
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]

WHITE = np.array([0.97, 0.96, 0.93], np.float32)
BLACK = np.array([0.07, 0.06, 0.06], np.float32)


class Canvas:
    """A painted object over a grid of points.

    Args:
        u: (h, w) float32, the points' first coordinate.
        v: (h, w) float32, the points' second coordinate.
        step: distance between neighbouring points, the width of anti-aliased edges.

    Attributes:
        colour: (h, w, 3) float32.
        cover: (h, w) float32, opacity of the object.
        height: (h, w) float32, height of the surface, for the lighting.
        gloss: strength of the highlight.
    """

    def __init__(self, u: Array, v: Array, step: float) -> None:
        self.u, self.v, self.step = u, v, step
        self.colour = np.zeros((*u.shape, 3), np.float32)
        self.cover = np.zeros(u.shape, np.float32)
        self.height = np.zeros(u.shape, np.float32)
        self.gloss = 0.15

    def fill(self, distance: Array, colour: Array, height: Array | float | None = None) -> None:
        """Paint where `distance` is negative; without `height` the surface keeps its height."""
        alpha = np.clip(0.5 - distance / self.step, 0, 1)
        rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
        if not len(rows):
            return
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        alpha = alpha[part]
        colour = colour[part] if colour.ndim == 3 else colour
        self.colour[part] += (colour - self.colour[part]) * alpha[..., None]
        self.cover[part] = np.maximum(self.cover[part], alpha)
        if height is not None:
            height = height[part] if isinstance(height, np.ndarray) else height
            self.height[part] += (height - self.height[part]) * alpha

    def ellipse(self, x: float, y: float, a: float, b: float) -> Array:
        """Distance to the ellipse around (x, y) with semi-axes a, b: exact on its outline, approximate elsewhere."""
        return (norm((self.u - x) * (1 / a), (self.v - y) * (1 / b)) - 1) * min(a, b)

    def stroke(self, x: float, y: float, x2: float, y2: float, width: float) -> Array:
        """Distance to the line from (x, y) to (x2, y2) with round ends, `width` from its centre to its edge."""
        dx, dy = x2 - x, y2 - y
        along = np.clip(((self.u - x) * dx + (self.v - y) * dy) / (dx * dx + dy * dy), 0, 1)
        return norm(self.u - x - along * dx, self.v - y - along * dy) - width


def norm(x: Array, y: Array) -> Array:
    """Length of the vectors (x, y); several times as fast as `np.hypot`, which avoids overflow."""
    length: Array = np.sqrt(x * x + y * y)
    return length


def rgb(hue: float, saturation: float, value: float) -> Array:
    """A colour from hue (1 = full circle), saturation and value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def noise(rng: Generator, shape: tuple[int, int], cell: float, stretch: float = 1) -> Array:
    """Smooth noise of (h, w) = `shape`, about in [-1, 1]; cells are `cell` points high and `stretch` times as wide."""
    h, w = shape
    coarse = rng.uniform(-1, 1, (max(2, math.ceil(h / cell)), max(2, math.ceil(w / (cell * stretch))))).astype(
        np.float32
    )
    return np.asarray(Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC))


def paint_ball(canvas: Canvas, rng: Generator) -> None:
    """A beach ball: panels of three colours and white between two caps, rotated at random."""
    radius = norm(canvas.u, canvas.v)
    up = np.sqrt(np.maximum(1 - radius**2, 0))
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    x, y, z = (r[0] * canvas.u + r[1] * canvas.v + r[2] * up for r in turn.astype(np.float32))
    gores = int(rng.choice([6, 8]))
    hue = rng.uniform()
    tones = [
        rgb(hue + shift + rng.uniform(-0.04, 0.04), rng.uniform(0.75, 0.95), 0.9) for shift in (0, 0.33, 0.6, 0.15)
    ]
    palette = np.array([WHITE if i % 2 else tones[i // 2 % len(tones)] for i in range(gores)], np.float32)
    gore = np.minimum(((np.arctan2(y, x) / (2 * math.pi) + 0.5) * gores).astype(np.int64), gores - 1)
    canvas.fill(radius - 0.98, palette[gore], up)
    canvas.fill(np.maximum(0.95 - np.abs(z), radius - 0.98), tones[0] if rng.uniform() < 0.5 else WHITE)
    canvas.gloss = 0.55


def paint_daisy(canvas: Canvas, rng: Generator) -> None:
    """A daisy: two rings of petals around a domed disc of florets."""
    tint = [WHITE, rgb(0.92, 0.35, 0.97), rgb(0.76, 0.32, 0.93), rgb(0.14, 0.55, 0.98)][
        rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])
    ]
    count = int(rng.integers(10, 19))
    radius, angle = norm(canvas.u, canvas.v), np.arctan2(canvas.v, canvas.u)
    for ring, shade in ((0.5, 0.8), (0.0, 1.0)):
        turn = (angle / (2 * math.pi) + 1) * count + ring
        petal = np.floor(turn)
        aside = (turn - petal - 0.5) * (2 * math.pi / count)
        which = petal.astype(np.int64) % count
        reach = rng.uniform(0.86, 0.98, count).astype(np.float32)[which]
        x, y = radius * np.cos(aside), radius * np.sin(aside)
        width = 0.62 * math.pi / count * rng.uniform(0.95, 1.2)
        blade = (norm((x / reach - 0.58) / 0.42, y / width) - 1) * width
        tone = (
            shade
            * rng.uniform(0.88, 1.0, count).astype(np.float32)[which]
            * (0.72 + 0.28 * np.minimum(radius * 1.3, 1))
        )
        tone *= 1 - 0.06 * np.cos(y * (9 / width))
        canvas.fill(blade, tint * tone[..., None], 0.1 + 0.12 * radius - 0.2 * y * y / width)
    eye = rng.uniform(0.22, 0.32)
    florets = noise(rng, radius.shape, max(2.0, 0.05 / canvas.step))
    yellow = rgb(rng.uniform(0.1, 0.15), 0.9, 0.95) * (0.86 + 0.14 * florets - 0.2 * (radius / eye) ** 2)[..., None]
    canvas.fill(
        radius - eye, yellow, 0.2 + 0.9 * eye * np.sqrt(np.maximum(1 - (radius / eye) ** 2, 0)) + 0.015 * florets
    )


def paint_fish(canvas: Canvas, rng: Generator) -> None:
    """A fish from the side, head at u = 1: scales, fins, sometimes bands, slightly bent."""
    canvas.v = canvas.v + rng.uniform(-0.12, 0.12) * (canvas.u**2 - 0.4)
    u, v = canvas.u, canvas.v
    hue, deep = rng.choice([0.06, 0.04, 0.13, 0.5, 0.58, 0.8]) + rng.uniform(-0.02, 0.02), rng.uniform(0.3, 0.46)
    main, fin = rgb(hue, 0.85, 0.93), rgb(hue - 0.02, 0.75, 0.8)
    rays = 0.85 + 0.15 * np.cos(np.arctan2(v, u + 0.25) * 42)
    spread = rng.uniform(0.4, 0.55)
    notch = 0.16 * (1 - np.abs(v) / spread)
    tail = np.maximum(np.abs(v) - 0.06 - (spread - 0.06) * ((-0.42 - u) / 0.5), -0.96 + notch - u)
    canvas.fill(np.maximum(tail * 0.7, u + 0.4), fin * rays[..., None], 0.08)
    rays = 0.85 + 0.15 * np.cos(u * 60 + v * 20)
    for x, y, a, b in ((0.0, -deep, 0.42, 0.2), (-0.12, deep * 0.9, 0.2, 0.2)):
        canvas.fill(canvas.ellipse(x, y, a, b), fin * rays[..., None], 0.06)
    body = norm((u - 0.2) / 0.75, v / (deep * (1 + 0.28 * np.clip(u, -0.5, 0.9))))
    height = 0.42 * np.sqrt(np.maximum(1 - body**2, 0))
    size = rng.uniform(0.085, 0.12)
    row = np.floor(v / (size * 0.5))
    scale = norm(np.mod(u / size + 0.5 * np.mod(row, 2), 1) - 0.5, np.mod(v / (size * 0.5), 1) - 0.5)
    shade = 0.9 - 0.3 * np.maximum(scale - 0.35, 0) * (u < 0.52)
    belly = np.clip(0.45 + v / deep, 0, 1)[..., None] * 0.6
    skin = (main * (1 - belly) + WHITE * belly) * shade[..., None]
    canvas.fill((body - 1) * deep, skin, height)
    for x in rng.choice([-0.25, 0.05, 0.38], int(rng.choice([0, 0, 2, 3])), replace=False).tolist():
        canvas.fill(np.maximum(np.abs(u - x + 0.25 * v * v / deep) - 0.065, (body - 0.985) * deep), WHITE)
    canvas.fill(
        np.abs(norm(u - 0.36, v / 1.1) - 0.24) - 0.008 + 9 * (u < 0.5) + 9 * (np.abs(v) > deep * 0.6), main * 0.45
    )
    canvas.fill(canvas.ellipse(0.24, 0.1, 0.15, 0.075), fin * 0.9)
    canvas.fill(np.maximum(canvas.stroke(0.84, 0.1, 0.99, 0.05, 0.012), (body - 1) * deep), main * 0.35)
    canvas.fill(canvas.ellipse(0.7, -0.08, 0.085, 0.085), WHITE)
    canvas.fill(canvas.ellipse(0.715, -0.08, 0.052, 0.052), BLACK)
    canvas.gloss = 0.4


def paint_gift(canvas: Canvas, rng: Generator) -> None:
    """A wrapped box with a ribbon and a bow; front, top and one side are visible."""
    hue = rng.uniform()
    paper, print_ = (
        rgb(hue, rng.uniform(0.55, 0.85), rng.uniform(0.65, 0.95)),
        rgb(hue + rng.uniform(-0.1, 0.1), 0.25, 0.98),
    )
    ribbon = rgb(hue + rng.uniform(0.35, 0.65), 0.8, 0.9) if rng.uniform() < 0.7 else WHITE
    pattern = _pattern(str(rng.choice(["dots", "stripes", "checks", "plain"])), rng)
    depth, lift, half = rng.uniform(0.22, 0.42), rng.uniform(0.18, 0.34), 0.09
    top = -0.92 + lift + 0.28
    width, tall = 1.92 - depth, 0.92 - top
    faces = (  # origin, first edge, second edge, brightness
        ((-0.96, top), (width, 0.0), (0.0, tall), 0.88),
        ((-0.96, top), (width, 0.0), (depth, -lift), 1.08),
        ((-0.96 + width, top), (depth, -lift), (0.0, tall), 0.66),
    )
    for (x, y), e, f, light in faces:
        det = e[0] * f[1] - e[1] * f[0]
        a = ((canvas.u - x) * f[1] - (canvas.v - y) * f[0]) / det
        b = ((canvas.v - y) * e[0] - (canvas.u - x) * e[1]) / det
        rim = np.maximum((np.abs(a - 0.5) - 0.5) * math.hypot(*e), (np.abs(b - 0.5) - 0.5) * math.hypot(*f))
        inked = pattern(a * math.hypot(*e), b * math.hypot(*f))[..., None]
        crease = 1 - 0.12 * np.clip(1 + rim / 0.05, 0, 1)[..., None]
        canvas.fill(rim, (paper + (print_ - paper) * inked) * light * crease, 0.3)
        bands = np.minimum(np.abs(a - 0.5) * width, np.abs(b - 0.5) * max(tall, width) + (9 if light == 1.08 else 0))
        canvas.fill(np.maximum(bands - half, rim), ribbon * light)
    x, y = -0.96 + width / 2 + depth / 2, top - lift / 2
    for side in (-1, 1):
        loop = canvas.ellipse(x + side * 0.2, y - 0.1, 0.2, 0.12)
        fold = canvas.ellipse(x + side * 0.22, y - 0.09, 0.11, 0.05)
        canvas.fill(loop, ribbon, 0.3 - loop)
        canvas.fill(fold, ribbon * 0.55)
    canvas.fill(canvas.ellipse(x, y - 0.06, 0.08, 0.08), ribbon * 0.92, 0.45)
    canvas.gloss = 0.1


def _pattern(kind: str, rng: Generator) -> Callable[[Array, Array], Array]:
    """The print of wrapping paper: a function of two lengths that returns 0 (paper) to 1 (print)."""
    pace = 2 * math.pi / rng.uniform(0.16, 0.3)

    def printed(x: Array, y: Array) -> Array:
        if kind == "plain":
            return np.zeros_like(x)
        if kind == "dots":
            wave = np.cos(x * pace) + np.cos(y * pace) - 0.9
        elif kind == "stripes":
            wave = np.cos((x + y) * pace)
        else:
            wave = np.maximum(np.cos(x * pace), np.cos(y * pace)) - 0.7
        ink: Array = np.clip(wave * 5 + 0.5, 0, 1)
        return ink

    return printed


def paint_ladybird(canvas: Canvas, rng: Generator) -> None:
    """A ladybird from above, head at u = 1: legs, antennae, pronotum and spotted wing cases."""
    shell = rgb(
        rng.choice([0.0, 0.02, 0.07, 0.12], p=[0.4, 0.3, 0.2, 0.1]) + rng.uniform(-0.015, 0.015),
        0.92,
        rng.uniform(0.78, 0.95),
    )
    for side in (-1, 1):
        for x, reach in ((0.42, 0.2), (0.02, -0.03), (-0.35, -0.2)):
            knee = x + reach + rng.uniform(-0.06, 0.06), side * 0.72
            canvas.fill(canvas.stroke(x, side * 0.4, *knee, 0.045), BLACK, 0.05)
            canvas.fill(canvas.stroke(*knee, knee[0] + reach * 0.5, side * 0.82, 0.03), BLACK, 0.03)
        canvas.fill(canvas.stroke(0.84, side * 0.08, 0.96, side * 0.24, 0.022), BLACK, 0.05)
    canvas.fill(canvas.ellipse(0.74, 0, 0.2, 0.25), BLACK, 0.25)
    oval = norm((canvas.u - 0.55) / 0.26, canvas.v / 0.42)
    canvas.fill((oval - 1) * 0.26, BLACK, 0.1 + 0.3 * np.sqrt(np.maximum(1 - oval**2, 0)))
    for side in (-1, 1):
        canvas.fill(canvas.ellipse(0.86, side * 0.12, 0.05, 0.05), WHITE)
        canvas.fill(canvas.ellipse(0.6, side * 0.3, 0.13, 0.08), WHITE)
    oval = norm((canvas.u + 0.14) / 0.72, canvas.v / 0.64)
    canvas.fill((oval - 1) * 0.64, shell, 0.12 + 0.62 * np.sqrt(np.maximum(1 - oval**2, 0)))
    spots = [(-0.1, 0.37), (0.24, 0.24), (-0.48, 0.27), (-0.2, 0.12), (0.08, 0.52), (-0.72, 0.11)]
    for x, y in spots[: rng.integers(2, 7)]:
        for side in (-1, 1):
            dot = rng.uniform(0.085, 0.12)
            canvas.fill(np.maximum(canvas.ellipse(x, side * y, dot * 1.1, dot), (oval - 1) * 0.64), BLACK)
    canvas.fill(np.maximum(np.abs(canvas.v) - 0.014, oval - 1), BLACK)
    canvas.gloss = 0.7


def paint_starfish(canvas: Canvas, rng: Generator) -> None:
    """A starfish: five curved arms of different length, pale knobs along them."""
    hue = rng.choice([0.04, 0.08, 0.97, 0.11, 0.76]) + rng.uniform(-0.02, 0.02)
    skin, knob = rgb(hue, rng.uniform(0.55, 0.85), rng.uniform(0.7, 0.92)), rgb(hue + 0.03, 0.28, 0.98)
    radius = norm(canvas.u, canvas.v)
    angle = np.arctan2(canvas.v, canvas.u) + rng.uniform(-0.35, 0.35) * radius
    turn = (angle / (2 * math.pi) + 2) * 5
    arm = np.floor(turn)
    aside = (turn - arm - 0.5) * (2 * math.pi / 5)
    reach = rng.uniform(0.8, 0.97, 5).astype(np.float32)[arm.astype(np.int64) % 5]
    along, across = radius * np.cos(aside) / reach, np.abs(radius * np.sin(aside))
    width = rng.uniform(0.2, 0.28) * np.sqrt(np.maximum(1 - along, 0)) * (1 - 0.35 * along)
    web = radius - rng.uniform(0.3, 0.36)
    rim = np.minimum(np.where(along < 1, across - width, along - 1 + 0.01), web)
    inside = np.clip(-rim / 0.2, 0, 1)
    grain = noise(rng, radius.shape, max(2.0, 0.04 / canvas.step))
    tone = (0.78 + 0.3 * inside + 0.1 * grain)[..., None]
    canvas.fill(rim, skin * tone, 0.26 * np.sqrt(inside) * (1.1 - 0.5 * along) + 0.008 * grain)
    beads = np.cos(along * 46) + np.minimum(np.cos(across * 48), 1) - 1.25
    canvas.fill(np.maximum(-beads * 0.02, rim + 0.05), knob * tone)


def paint_leaf(canvas: Canvas, rng: Generator) -> None:
    """A fallen leaf with its veins."""
    u, v = canvas.u, canvas.v
    green = rgb(rng.uniform(0.07, 0.36), rng.uniform(0.4, 0.75), rng.uniform(0.3, 0.62))
    blade = np.abs(v) - rng.uniform(0.3, 0.5) * (1 - u * u) * (1 - 0.3 * u) + 0.02
    veins = 0.92 + 0.08 * np.cos((u - np.abs(v)) * 30)
    canvas.fill(np.maximum(blade, np.abs(u) - 0.98), green * veins[..., None], 0.15 * np.abs(v) + 0.05)
    canvas.fill(np.maximum(np.abs(v) - 0.02, np.abs(u) - 0.95), green * 1.3)


def paint_pebble(canvas: Canvas, rng: Generator) -> None:
    """A round stone."""
    oval = norm(canvas.u / 0.98, canvas.v / rng.uniform(0.6, 0.95)) ** 2
    grain = noise(rng, oval.shape, max(2.0, 0.08 / canvas.step))
    tone = rgb(rng.uniform(0.02, 0.14), rng.uniform(0.03, 0.2), rng.uniform(0.35, 0.75))
    canvas.fill((oval - 1) * 0.4, tone * (1 + 0.12 * grain)[..., None], 0.5 * np.sqrt(np.maximum(1 - oval, 0)))


def paint_twig(canvas: Canvas, rng: Generator) -> None:
    """A bent stick with a side branch."""
    bark = rgb(rng.uniform(0.05, 0.1), 0.45, rng.uniform(0.25, 0.5))
    canvas.v = canvas.v + rng.uniform(-0.2, 0.2) * canvas.u**2
    for x, y, x2, y2, width in ((0.1, 0.0, 0.55, 0.3, 0.028), (-0.94, 0.0, 0.94, 0.0, 0.045)):
        rim = canvas.stroke(x, y, x2, y2, width)
        canvas.fill(rim, bark, 0.1 - rim)


@dataclass(frozen=True)
class Kind:
    """A kind of object, and how it may be placed.

    Args:
        paint: its painter.
        turn: largest rotation in either direction, in radians.
        flat: smallest scale of one of its axes, which simulates an oblique view.
    """

    paint: Callable[[Canvas, Generator], None]
    turn: float
    flat: float


KINDS: dict[str, Kind] = {
    "ball": Kind(paint_ball, math.pi, 1),
    "daisy": Kind(paint_daisy, math.pi, 0.5),
    "fish": Kind(paint_fish, 0.7, 0.75),
    "gift": Kind(paint_gift, 0.2, 0.5),
    "ladybird": Kind(paint_ladybird, math.pi, 0.75),
    "starfish": Kind(paint_starfish, math.pi, 0.6),
}
DISTRACTORS = (Kind(paint_leaf, math.pi, 0.6), Kind(paint_pebble, math.pi, 0.6), Kind(paint_twig, math.pi, 0.8))
