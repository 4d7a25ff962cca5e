"""The backgrounds of the demo dataset. Each returns (height, width, 3) float32, RGB in [0, 1]."""

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from boxless.demo.art import Array, noise, rgb


def meadow(rng: Generator, height: int, width: int) -> Array:
    """Blades of grass over dark soil."""
    hue = rng.uniform(0.2, 0.33)
    soil = rgb(hue, 0.6, 0.28) * (1 + 0.3 * noise(rng, (2 * height, 2 * width), 40))[..., None]
    image = Image.fromarray((np.clip(soil, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    tones = [
        tuple(
            int(255 * part)
            for part in rgb(hue + rng.uniform(-0.05, 0.04), rng.uniform(0.45, 0.75), rng.uniform(0.3, 0.68))
        )
        for _ in range(64)
    ]
    # Blades lower in the image are nearer and cover those behind.
    feet = np.sort(rng.uniform(0, 2.25 * height, 800)).tolist()
    for i, y in enumerate(feet):
        x, lean, reach = rng.uniform(0, 2 * width), rng.normal(0, 14), rng.uniform(25, 70)
        bend = x + 1 + 0.4 * lean, y - 0.6 * reach
        draw.polygon([(x - 3, y), (x + 3, y), bend, (x + lean, y - reach)], fill=tones[i % 64])
    return np.asarray(image.reduce(2), np.float32) / 255


def sand(rng: Generator, height: int, width: int) -> Array:
    """Ripples and grains."""
    shape = height, width
    y = np.arange(height, dtype=np.float32)[:, None]
    warp = 14 * noise(rng, shape, 60, 2) + 4 * noise(rng, shape, 15, 2)
    ripples = np.sin((y + warp) * (2 * math.pi / rng.uniform(14, 30))) * rng.uniform(0.0, 0.06)
    grain = 0.07 * rng.standard_normal(shape, np.float32) + 0.05 * noise(rng, shape, 3)
    tone = rgb(rng.uniform(0.08, 0.13), rng.uniform(0.2, 0.42), rng.uniform(0.68, 0.88))
    return tone * (1 + ripples + grain + 0.1 * noise(rng, shape, 50))[..., None]


def pebbles(rng: Generator, height: int, width: int) -> Array:
    """A bed of stones: domed Voronoi cells of jittered grid points."""
    cell = rng.uniform(16, 34)
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(cell)
    x, y = (axis + 0.12 * noise(rng, (height, width), 0.3 * cell) for axis in (x + 1, y + 1))
    row, column = y.astype(np.int64), x.astype(np.int64)
    shape = int(row.max()) + 2, int(column.max()) + 2
    centres = np.indices(shape).transpose(1, 2, 0).reshape(-1, 2) + rng.uniform(0.1, 0.9, (shape[0] * shape[1], 2))
    py, px = centres.astype(np.float32).T
    nearest, second = np.full((2, height, width), 9, np.float32)
    stone = np.zeros((height, width), np.int64)
    for shift in (i * shape[1] + j for i in (-1, 0, 1) for j in (-1, 0, 1)):
        other = np.maximum(row * shape[1] + column + shift, 0)
        distance = (py[other] - y) ** 2 + (px[other] - x) ** 2
        second = np.minimum(second, np.maximum(nearest, distance))
        stone = np.where(distance < nearest, other, stone)
        nearest = np.minimum(nearest, distance)
    hue, strength = rng.uniform(0.02, 0.16), rng.uniform(0.05, 0.22)
    tones = np.array([rgb(hue + rng.normal(0, 0.02), strength, rng.uniform(0.4, 0.85)) for _ in range(len(centres))])
    dome = np.sqrt(np.minimum((np.sqrt(second) - np.sqrt(nearest)) * 2.2, 1))
    light = dome * (0.78 + 0.25 * np.clip(np.gradient(dome, axis=0) * 4, -1, 1)) + 0.06 * noise(rng, (height, width), 3)
    ground: Array = tones[stone] * (0.12 + light)[..., None]
    return ground


def planks(rng: Generator, height: int, width: int) -> Array:
    """A wooden table, its boards vertical or horizontal."""
    if rng.uniform() < 0.5:
        return np.ascontiguousarray(_boards(rng, width, height).transpose(1, 0, 2))
    return _boards(rng, height, width)


def _boards(rng: Generator, height: int, width: int) -> Array:
    """Horizontal boards with grain and gaps."""
    board = rng.uniform(36, 80)
    tone = rgb(rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.8))
    y = (np.arange(height, dtype=np.float32) + rng.uniform(0, board))[:, None]
    which = (y / board).astype(np.int64)
    shape = height, width
    phase = rng.uniform(0, 60, int(which.max()) + 1).astype(np.float32)[which]
    rings = np.sin((y + 22 * noise(rng, shape, 40, 6) + phase) * rng.uniform(0.5, 0.9))
    shade = rng.uniform(0.82, 1.1, int(which.max()) + 1).astype(np.float32)[which]
    gap = np.clip(np.abs(np.mod(y / board + 0.5, 1) - 0.5) * board / 1.4, 0.25, 1)
    fibre = 0.07 * noise(rng, shape, 2, 14)
    ground: Array = tone * (shade * gap * (1 + 0.06 * rings + fibre))[..., None]
    return ground


def landscape(rng: Generator, height: int, width: int) -> Array:
    """Sky with clouds over ranges of hills, nearer ones darker."""
    shape = height, width
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    sky = rgb(rng.uniform(0.52, 0.6), rng.uniform(0.3, 0.65), rng.uniform(0.8, 0.97))
    clouds = 0.7 * noise(rng, shape, 60, 2) + 0.45 * noise(rng, shape, 22, 2) + 0.2 * noise(rng, shape, 8) - 0.1
    haze = np.clip(0.6 * y + np.maximum(clouds, 0), 0, 1)[..., None]
    scene: Array = sky * (1 - haze) + 0.95 * haze
    texture = 0.14 * noise(rng, shape, 5, 2) + 0.12 * noise(rng, shape, 22, 3) + 0.08 * noise(rng, shape, 2)
    hue, horizon = rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.6)
    for k in range(3):
        ridge = horizon + 0.17 * k + 0.1 * noise(rng, (2, width), 1, rng.uniform(30, 70))[:1]
        ridge = ridge + 0.012 * noise(rng, (2, width), 1, 4)[:1]
        alpha = np.clip((y - ridge) * height + 0.5, 0, 1)[..., None]
        far = 0.5 - 0.22 * k
        tone = rgb(hue, 0.5, 0.5 - 0.06 * k) * (1 - far) + sky * far
        scene += (tone * (1 + texture)[..., None] - scene) * alpha
    return scene


def water(rng: Generator, height: int, width: int) -> Array:
    """Ripples that reflect the sky."""
    shape = height, width
    wave = noise(rng, shape, 26, 3) + noise(rng, shape, 11, 3) / 2 + noise(rng, shape, 5, 3) / 3
    deep, sky = rgb(rng.uniform(0.48, 0.6), 0.7, rng.uniform(0.3, 0.55)), rgb(0.55, 0.2, 0.95)
    glint = np.clip(0.25 + 0.5 * wave, 0, 1)[..., None] ** 2
    ground: Array = deep * (1 - glint) + sky * glint
    return ground


def cloth(rng: Generator, height: int, width: int) -> Array:
    """A woven cloth with crossing bands."""
    shape = height, width
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    ground = rgb(rng.uniform(), rng.uniform(0.15, 0.6), rng.uniform(0.35, 0.85))
    band = rgb(rng.uniform(), 0.3, rng.uniform(0.3, 0.9))
    warp, pace = 3 * noise(rng, shape, 60), 2 * math.pi / rng.uniform(28, 70)
    bands = sum(0.5 * np.clip(4 * np.cos((axis + warp) * pace) - 2, 0, 1) for axis in (x, y))
    weave = 0.07 * np.cos(x * 2.1) * np.cos(y * 2.1) + 0.08 * noise(rng, shape, 2) + 0.1 * noise(rng, shape, 70)
    woven: Array = (ground + (band - ground) * np.asarray(bands)[..., None]) * (1 + weave)[..., None]
    return woven


BACKGROUNDS = (meadow, sand, pebbles, planks, landscape, water, cloth)
