"""A small synthetic dataset: six classes of objects on cluttered backgrounds, in VOC layout.

It is drawn, not downloaded, so the pipeline can be tried offline and without licences other than that of Boxless.
"""

import json
import math
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from boxless.demo.art import DISTRACTORS, KINDS, Array, Canvas, Kind, noise
from boxless.demo.backgrounds import BACKGROUNDS
from boxless.errors import BoxlessError
from boxless.export.voc import add_children
from boxless.files import unwritable
from boxless.structures import FloatArray

CLASSES = tuple(KINDS)
FOLDER = "VOC-demo"
VERSION = 1
"""Incremented whenever the same seed gives other images."""

_SIZES = ((320, 240), (320, 240), (240, 320), (304, 224), (256, 256), (320, 208))


@dataclass(frozen=True)
class _Object:
    """An object in a scene: its class, its visible coverage (H, W), and its area without occlusion, in pixels."""

    name: str
    visible: FloatArray
    area: float


def make_demo(root: Path, seed: int = 0, train: int = 240, val: int = 80) -> Path:
    """Draw the demo dataset, unless it is there already.

    An image has one to four objects of one or two classes, of varied size, rotation, colour and light. Boxes are the
    exact extent of the visible part of an object; objects with less than 40 % visible are difficult. The same seed
    gives bit-identical files with the same versions of numpy and Pillow. The folder is renamed into place when it is
    complete.

    Args:
        root: the folder in which `VOC-demo` is made.
        seed: of all random numbers.
        train: number of images of the split `train`.
        val: number of images of the split `val`.

    Returns:
        The folder of the dataset, as `load_dataset` takes it: JPEGImages, Annotations, ImageSets/Main/{train,val}.txt.

    Raises:
        BoxlessError: a split would be empty, or the folder contains something else or cannot be written.
    """
    if train < 1 or val < 1 or seed < 0:
        raise BoxlessError(
            f"train={train}, val={val}, seed={seed}: each split needs an image, and the seed must not be negative"
        )
    target = root / FOLDER
    settings = {"version": VERSION, "seed": seed, "train": train, "val": val}
    if _exists(target, settings):
        return target
    temporary = root / f".{FOLDER}.{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        _draw_all(temporary, settings)
        temporary.rename(target)
    except OSError as error:
        # Another process may have drawn the same dataset in the meantime.
        if not _exists(target, settings):
            raise unwritable(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _exists(target: Path, settings: dict[str, int]) -> bool:
    if not target.exists():
        return False
    try:
        found = json.loads((target / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != settings:
        raise BoxlessError(
            f"{target} contains something else than the demo {settings}: delete it or choose another folder"
        )
    return True


def _draw_all(folder: Path, settings: dict[str, int]) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    first = 0
    for split in ("train", "val"):
        ids = [f"{first + i + 1:06d}" for i in range(settings[split])]
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
        for index, name in enumerate(ids, first):
            image, objects = draw_scene(seed=settings["seed"], index=index)
            Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
            _write_xml(folder / "Annotations" / f"{name}.xml", name, image, objects)
        first += len(ids)
    (folder / "demo.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _write_xml(path: Path, name: str, image: NDArray[np.uint8], objects: list[_Object]) -> None:
    height, width, depth = image.shape
    root = ET.Element("annotation")
    add_children(root, folder=FOLDER, filename=f"{name}.jpg")
    add_children(ET.SubElement(root, "size"), width=width, height=height, depth=depth)
    for item in objects:
        visible = float(item.visible.sum()) / item.area
        xmin, ymin, xmax, ymax = _extent(item.visible)
        truncated = visible < 0.95 and (xmin == 0 or ymin == 0 or xmax == width or ymax == height)
        node = ET.SubElement(root, "object")
        add_children(node, name=item.name, truncated=int(truncated), difficult=int(visible < 0.4))
        # VOC counts pixels from 1; right and bottom are inclusive.
        add_children(ET.SubElement(node, "bndbox"), xmin=xmin + 1, ymin=ymin + 1, xmax=xmax, ymax=ymax)
    ET.indent(root)
    path.write_text(ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")


def draw_scene(seed: int, index: int) -> tuple[NDArray[np.uint8], list[_Object]]:
    """One image, (h, w, 3) uint8, and its objects, the topmost last."""
    rng = np.random.default_rng([VERSION, seed, index])
    width, height = _SIZES[rng.integers(len(_SIZES))]
    scene = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng, height, width).astype(np.float32)
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, -0.2), 0.8], np.float32)
    light /= np.linalg.norm(light)
    for _ in range(rng.integers(0, 5)):
        item = _paint(DISTRACTORS[rng.integers(len(DISTRACTORS))], rng, rng.uniform(0.08, 0.3) * height, light)
        _composite(scene, *_shifted(item, scene.shape, rng, crop=False), light)
    # Each class is the first of every sixth image, so that classes are about equally frequent.
    names = [CLASSES[index % len(CLASSES)]]
    if rng.uniform() < 0.4:
        names.append(CLASSES[(index + rng.integers(1, len(CLASSES))) % len(CLASSES)])
    count = max(len(names), int(rng.choice([1, 2, 3, 4], p=[0.42, 0.33, 0.17, 0.08])))
    objects: list[_Object] = []
    for k in range(count):
        longest = 0.75 if count < 3 else 0.5
        size = min(height, width) * math.exp(rng.uniform(math.log(0.26), math.log(longest)))
        _add(scene, objects, names[k % len(names)], rng, size, light, crop=False)
    if count < 4 and rng.uniform() < 0.12:
        # A class of which the only object is difficult is unsure.
        name = names[1] if len(names) > 1 else CLASSES[rng.integers(len(CLASSES))]
        _add(scene, objects, name, rng, 0.4 * height, light, crop=True)
    return _expose(scene, rng), objects


def _add(
    scene: FloatArray, objects: list[_Object], name: str, rng: Generator, size: float, light: FloatArray, crop: bool
) -> None:
    """Paint one more object where it occludes little of the others, if there is such a place.

    With `crop` it crosses the border of the image.
    """
    patch = _paint(KINDS[name], rng, size, light)
    area = float(patch[..., 3].sum())
    hidden = 0.75 if rng.uniform() < 0.08 else 0.2
    for _ in range(12):
        colour, cover = _shifted(patch, scene.shape, rng, crop)
        visible = float(cover.sum()) / area
        left = min((float((item.visible * (1 - cover)).sum()) / item.area for item in objects), default=1.0)
        if left >= 1 - hidden and (0.15 if crop else 0.8) <= visible and (cover >= 0.5).sum() >= 150:
            _composite(scene, colour, cover, light)
            objects[:] = [_Object(item.name, item.visible * (1 - cover), item.area) for item in objects]
            objects.append(_Object(name, cover, area))
            return


def _paint(kind: Kind, rng: Generator, size: float, light: FloatArray) -> FloatArray:
    """An object of `size` pixels under the light: (h, w, 4) float32, colour and opacity.

    It is painted at twice the resolution and averaged.
    """
    turn = rng.uniform(-kind.turn, kind.turn)
    axes = np.array([1.0, rng.uniform(kind.flat, 1)])[:: rng.choice([-1, 1])] * (size / 2)
    mirror = rng.choice([-1, 1])
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) * [mirror, 1]
    half = np.ceil(np.abs(turned * axes).sum(1)).astype(int) + 1
    x, y = (np.arange(-2 * n, 2 * n, dtype=np.float32) / 2 + 0.25 for n in half)
    back = (turned / axes).T.astype(np.float32)
    u, v = (x * row[0] + y[:, None] * row[1] for row in back)
    canvas = Canvas(u, v, float(0.5 / axes.mean()))
    kind.paint(canvas, rng)
    painted = np.concatenate([_lit(canvas, light) * canvas.cover[..., None], canvas.cover[..., None]], 2)
    patch: FloatArray = (painted[::2, ::2] + painted[1::2, ::2] + painted[::2, 1::2] + painted[1::2, 1::2]) / 4
    patch[..., :3] /= np.maximum(patch[..., 3:], 1e-6)
    return patch


def _lit(canvas: Canvas, light: FloatArray) -> Array:
    """The colours under Lambert's shading and Blinn's highlight, seen from above."""
    down, right = np.gradient(canvas.height, canvas.step)
    length = np.sqrt(right * right + down * down + 1)
    shade = np.maximum((light[2] - right * light[0] - down * light[1]) / length, 0)
    middle = light + np.array([0, 0, 1], np.float32)
    middle /= np.linalg.norm(middle)
    highlight = np.maximum((middle[2] - right * middle[0] - down * middle[1]) / length, 0)
    for _ in range(5):  # to the 32nd
        highlight = highlight * highlight
    lit: Array = canvas.colour * (0.45 + 0.72 * shade)[..., None] + (canvas.gloss * highlight)[..., None]
    return np.clip(lit, 0, 1)


def _shifted(patch: FloatArray, shape: tuple[int, ...], rng: Generator, crop: bool) -> tuple[FloatArray, FloatArray]:
    """Colour (H, W, 3) and opacity (H, W) of the patch at a random place in an image of `shape`."""
    height, width = shape[:2]
    h, w = patch.shape[:2]
    top = int(rng.uniform(-0.1 * h, max(height - 0.9 * h, 0)))
    left = int(rng.uniform(-0.1 * w, max(width - 0.9 * w, 0)))
    if crop:
        out = rng.uniform(0.3, 0.8)
        right, bottom = width - (1 - out) * w, height - (1 - out) * h
        top, left = ((top, int(-out * w)), (top, int(right)), (int(bottom), left))[rng.integers(3)]
    whole = np.zeros((height, width, 4), np.float32)
    rows, columns = slice(max(top, 0), min(top + h, height)), slice(max(left, 0), min(left + w, width))
    whole[rows, columns] = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return whole[..., :3], whole[..., 3]


def _composite(scene: FloatArray, colour: FloatArray, cover: FloatArray, light: FloatArray) -> None:
    """Draw a soft shadow and the object on the scene, in place."""
    spread = 0.06 * math.sqrt(float(cover.sum()))
    down, right = (int(-2.2 * spread * light[i]) for i in (1, 0))
    shape = Image.fromarray((cover * 255).astype(np.uint8))
    blurred = shape.reduce(4).filter(ImageFilter.GaussianBlur(spread / 4)).resize(shape.size)
    shadow = blurred.crop((-right, -down, blurred.width - right, blurred.height - down))
    scene *= (1 - np.asarray(shadow, np.float32) * (0.5 / 255))[..., None]
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    scene[part] += (colour[part] - scene[part]) * cover[part][..., None]


def _expose(scene: FloatArray, rng: Generator) -> NDArray[np.uint8]:
    """The scene as a camera records it: uneven light, white balance, exposure, grain."""
    height, width = scene.shape[:2]
    light = 1 + 0.16 * noise(rng, (height, width), 0.6 * height)
    tint = rng.normal(1, 0.035, 3).astype(np.float32) * rng.uniform(0.82, 1.12)
    grain = rng.standard_normal((height, width), np.float32) * rng.uniform(0.004, 0.022)
    image = scene * light[..., None] * tint + grain[..., None]
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, np.uint8)


def _extent(cover: FloatArray) -> tuple[int, int, int, int]:
    """The tight box, xyxy, right and bottom exclusive, of the pixels with at least half coverage."""
    rows, columns = np.flatnonzero((cover >= 0.5).any(1)), np.flatnonzero((cover >= 0.5).any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
