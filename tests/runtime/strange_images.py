"""Two hundred images of every kind: all sizes, modes and formats, turned, animated, cut off, or none at all."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Make = Callable[[Path], Image.Image | None]
"""Writes a file, or gives a Pillow image that no format can hold."""

SIZES = (
    *((1, 1), (1, 300), (300, 1), (7, 7), (7, 300), (8, 8), (8, 9), (9, 400), (11, 11), (16, 16), (31, 33), (64, 64)),
    *((97, 131), (159, 161), (160, 160), (160, 90), (161, 320), (333, 251), (200, 150), (500, 375), (512, 384)),
    *((640, 480), (701, 8), (1023, 1), (12, 1200), (2048, 16), (3001, 2000), (4000, 3)),
    *((8, 12_000), (12_000, 8), (12_000, 40)),
)
MODES = "1 L P PA LA La RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I F I;16 I;16B I;16L"
SAVED = {
    "png": "1 L LA P RGB RGBA I;16",
    "tif": "1 L LA P I F I;16 RGB RGBA RGBX CMYK YCbCr LAB",
    "gif": "L P",
    "webp": "RGB RGBA",
    "bmp": "1 L P RGB RGBA",
    "jpg": "1 L RGB RGBX CMYK YCbCr",
}
TURNED = {"jpg": range(10), "png": (3, 6, 8), "tif": (3, 6, 8), "webp": (3, 6, 8)}
WHITES = (255, 1023, 4095, 16_383, 65_535)
CUT = (0.0, 0.02, 0.3, 0.7, 0.99)
JPEG: dict[str, dict[str, Any]] = {
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0, "quality": 95},
    "4:1:1": {"subsampling": 2, "quality": 20},
    "worst": {"quality": 1},
    "best": {"quality": 100},
    "comment": {"comment": b"\xff\xd8" * 99},
}


def noise(width: int, height: int) -> Image.Image:
    """Coarse noise, of which a network makes something."""
    random = np.random.default_rng(width * 10_000 + height)
    small = random.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    return Image.fromarray(small).resize((width, height))


def of_mode(mode: str, size: tuple[int, int] = (131, 97)) -> Image.Image:
    """Random bytes as an image of a mode."""
    random, length = np.random.default_rng(len(mode)), len(Image.new(mode, size).tobytes())
    image = Image.frombytes(mode, size, random.bytes(length))
    if mode in ("P", "PA"):
        image.putpalette(random.bytes(768))
    return image


def _sized(size: tuple[int, int], path: Path) -> None:
    noise(*size).save(path, **({"compress_level": 1} if path.suffix == ".png" else {}))


def _of_mode(mode: str, path: Path) -> Image.Image:
    return of_mode(mode)


def _saved(mode: str, path: Path) -> None:
    of_mode(mode).save(path)


def _turned(orientation: int, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(140, 90).save(path, exif=exif)


def _of_bits(white: int, path: Path) -> None:
    grey = np.asarray(noise(90, 130).convert("L"), np.float64) / 255 * white
    Image.fromarray(grey.astype(np.uint16)).save(path)


def _of_fractions(white: float, path: Path) -> None:
    grey = np.asarray(noise(90, 130).convert("L"), np.float32) / 255 * np.float32(white)
    Image.fromarray(grey).save(path)


def _animated(alpha: bool, path: Path) -> None:
    frames = [noise(120, side) for side in (80, 81, 82)]
    frames = [frame.resize((120, 80)).convert("RGBA" if alpha else "RGB") for frame in frames]
    for frame in frames[:alpha]:
        frame.putalpha(noise(120, 80).convert("L"))
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _cut(share: float, path: Path) -> None:
    noise(200, 150).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def _jpeg(settings: dict[str, Any], path: Path) -> None:
    noise(211, 117).save(path, **settings)


def _named(form: str, path: Path) -> None:
    """A file whose name promises another format."""
    file = io.BytesIO()
    noise(99, 101).save(file, form)
    path.write_bytes(file.getvalue())


def _transparent(mode: str, path: Path) -> None:
    image = noise(100, 100).convert(mode)
    image.save(path, transparency=(3, 4, 5) if mode == "RGB" else 7)


def _invisible(path: Path) -> None:
    image = noise(100, 100).convert("RGBA")
    image.putalpha(0)
    image.save(path)


def _text(path: Path) -> None:
    path.write_text("no image\n" * 99)


def _enormous(path: Path) -> None:
    """More pixels than are decoded, in a small file."""
    Image.new("1", (12_000, 12_000)).save(path)


def _all() -> Iterator[tuple[str, Make]]:
    for width, height in SIZES:
        for suffix in ("png", "jpg"):
            yield f"{width}x{height}.{suffix}", partial(_sized, (width, height))
    for mode in MODES.split():
        yield f"mode {mode}", partial(_of_mode, mode)
    for suffix, modes in SAVED.items():
        for mode in modes.split():
            yield f"mode {mode}.{suffix}", partial(_saved, mode)
    for suffix, orientations in TURNED.items():
        for orientation in orientations:
            yield f"orientation {orientation}.{suffix}", partial(_turned, orientation)
    for suffix in ("png", "tif"):
        for white in WHITES:
            yield f"grey to {white}.{suffix}", partial(_of_bits, white)
    for fraction in (1, float("nan")):
        yield f"fractions to {fraction}.tif", partial(_of_fractions, fraction)
    for suffix in ("gif", "webp", "png", "tif"):
        for alpha in (False, True):
            yield f"animated {'transparent' if alpha else 'opaque'}.{suffix}", partial(_animated, alpha)
    for suffix in SAVED:
        for share in CUT:
            yield f"cut at {share}.{suffix}", partial(_cut, share)
    for name, settings in JPEG.items():
        yield f"{name}.jpg", partial(_jpeg, settings)
    for form, suffix in (("PNG", "jpg"), ("JPEG", "png"), ("GIF", "webp")):
        yield f"in truth {form}.{suffix}", partial(_named, form)
    for mode in ("P", "RGB", "L"):
        yield f"transparent {mode}.png", partial(_transparent, mode)
    yield from (("invisible.png", _invisible), ("text.png", _text), ("enormous.png", _enormous))


STRANGE: dict[str, Make] = dict(_all())
