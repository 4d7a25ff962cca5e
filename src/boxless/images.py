"""Reads an image file the way a viewer shows it, or says what is wrong with it."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from boxless.cache import write_whole
from boxless.errors import ImageError

# Pillow only warns of a size that `_opened` refuses.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
MIN_SIDE = 8
"""A shorter side than this leaves nothing to localise."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file.

    EXIF rotation is applied, 16-bit values are scaled to 8 bits, transparency is laid on white, of an animation the
    first frame is taken.

    Args:
        path: a file of any format Pillow reads.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, too large to decode safely (Pillow's
            `MAX_IMAGE_PIXELS`), or has a side shorter than `MIN_SIDE`. The message names the file and the mend.
    """
    return _decode(path, str(path), _limit())


def decode_image(content: bytes, name: str, most: int) -> NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_image` does; nothing touches the disk.

    Args:
        content: the whole file.
        name: what to call it in errors.
        most: pixels; a larger image is refused before it is decoded.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: as `read_image`.
    """
    return _decode(BytesIO(content), name, min(most, _limit()))


def _decode(source: Path | BytesIO, name: str, most: float) -> NDArray[np.uint8]:
    with _opened(source, name, most) as pil:
        pil.load()
        image = to_array(pil)
    if min(image.shape[:2]) < MIN_SIDE:
        raise ImageError(f"{name}: {image.shape[1]}x{image.shape[0]} px; a side under {MIN_SIDE} px cannot be used")
    return image


def to_array(pil: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as `read_image` gives it: as displayed, 8 bits, on white, (height, width, 3) uint8, RGB."""
    return _to_rgb(ImageOps.exif_transpose(pil))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as displayed (EXIF rotation applied), in pixels.

    The header alone is read; of a TIFF, the whole file.

    Raises:
        ImageError: the file is missing, empty, no image, or too large to decode safely.
    """
    with _opened(path, str(path), _limit()) as pil:
        if pil.format == "TIFF":
            pil.load()  # Pillow turns a TIFF itself, by version when opening or when loading.
        # PNG's own `getexif` would decode the pixels to look for EXIF behind them, where hardly any program puts it.
        orientation = Image.Image.getexif(pil).get(ExifTags.Base.Orientation, 1)
        width, height = pil.size
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _limit() -> float:
    return Image.MAX_IMAGE_PIXELS or float("inf")


@contextmanager
def _opened(source: Path | BytesIO, name: str, most: float) -> Iterator[Image.Image]:
    try:
        # Pillow's list of formats has some that start other programs.
        with Image.open(source, formats=FORMATS) as pil:
            if pil.width * pil.height > most:
                raise Image.DecompressionBombError
            yield pil
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        empty = not (source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes)
        raise ImageError(f"{name}: {'the file is empty' if empty else 'not an image'}; replace it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name}: more than {most:,} pixels, too many to decode safely; scale it down") from None
    except Exception as error:  # Decoders let any error through that damaged bytes lead to, TypeError for one.
        raise ImageError(f"{name}: cannot be decoded ({error}); replace it") from error


def _to_rgb(pil: Image.Image) -> NDArray[np.uint8]:
    if pil.mode.startswith(("I", "F")):
        values = np.asarray(pil, np.float32)
        # No file says what white is. Fractions end at one, and cameras put 10, 12 or 14 bits into 16.
        whites = (*((1,) if pil.mode == "F" else ()), 255, 1023, 4095, 16383)
        white = next((white for white in whites if values.max(initial=0) <= white), 65535)
        grey = np.clip(values * (255 / white), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if pil.has_transparency_data:
        pil = pil.convert("RGBA")
        pil = Image.alpha_composite(Image.new("RGBA", pil.size, "white"), pil)
    return np.array(pil.convert("RGB"))


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image (h, w, 3) uint8, RGB, whole or not at all: as PNG where the path ends so, else as JPEG.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    with write_whole(path) as file:
        Image.fromarray(image).save(file, "PNG" if path.suffix == ".png" else "JPEG", quality=92)


def content_key(path: Path) -> str:
    """A name for the image's content, the same wherever the file lies: 128 bits of BLAKE2b over its bytes.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def content_keys(paths: Iterable[Path], skipped: dict[Path, str]) -> dict[Path, str]:
    """The content key of every file that can be read; the others go into `skipped` with the reason."""
    keys = {}
    for path in paths:
        try:
            keys[path] = content_key(path)
        except ImageError as error:
            skipped[path] = str(error)
    return keys


def skip_copies(skipped: dict[Path, str], keys: Mapping[Path, str]) -> None:
    """Skip the copies of skipped files too: they share one key, and so one fate."""
    broken = {keys[path]: reason for path, reason in skipped.items() if path in keys}
    for path, key in keys.items():
        if key in broken:
            skipped.setdefault(path, broken[key])


def find_images(path: Path) -> list[Path]:
    """The image files at or below `path`, sorted; other suffixes and hidden files and folders are not looked at."""
    if path.is_file():
        return [path]
    files = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in files if not _is_hidden(file.relative_to(path)) and file.is_file())


def _is_hidden(path: Path) -> bool:
    # macOS puts `._a.jpg` beside `a.jpg`, Jupyter copies into `.ipynb_checkpoints`.
    return any(part.startswith(".") for part in path.parts)


def below(data: Path, file: str | Path) -> str:
    """A file's path as seen from the data, a folder or a file in it; as it is where it lies elsewhere."""
    folder = data if data.is_dir() else data.parent
    return str(Path(file).relative_to(folder) if Path(file).is_relative_to(folder) else file)
