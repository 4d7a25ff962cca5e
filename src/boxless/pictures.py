"""Reads a picture file the way a viewer shows it, or says what is wrong with it."""

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
from boxless.errors import PictureError

# Pillow only warns of a size that `_opened` refuses.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
MIN_SIDE = 8
"""A shorter side than this leaves nothing to localise."""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode a picture file.

    EXIF rotation is applied, 16-bit values are scaled to 8 bits, transparency is laid on white, of an animation the
    first frame is taken.

    Args:
        path: a file of any format Pillow reads.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        PictureError: the file is missing, empty, truncated, no picture, too large to decode safely (Pillow's
            `MAX_IMAGE_PIXELS`), or has a side shorter than `MIN_SIDE`. The message names the file and the mend.
    """
    return _decode(path, str(path), _limit())


def decode_picture(content: bytes, name: str, most: int) -> NDArray[np.uint8]:
    """Decode the bytes of a picture file as `read_picture` does; nothing touches the disk.

    Args:
        content: the whole file.
        name: what to call it in errors.
        most: pixels; a larger picture is refused before it is decoded.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        PictureError: as `read_picture`.
    """
    return _decode(BytesIO(content), name, min(most, _limit()))


def _decode(source: Path | BytesIO, name: str, most: float) -> NDArray[np.uint8]:
    with _opened(source, name, most) as image:
        image.load()
        picture = to_array(image)
    if min(picture.shape[:2]) < MIN_SIDE:
        raise PictureError(
            f"{name}: {picture.shape[1]}x{picture.shape[0]} px; a side under {MIN_SIDE} px cannot be used"
        )
    return picture


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as `read_picture` gives it: as displayed, 8 bits, on white, (height, width, 3) uint8, RGB."""
    return _to_rgb(ImageOps.exif_transpose(image))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as displayed (EXIF rotation applied), in pixels.

    The header alone is read; of a TIFF, the whole file.

    Raises:
        PictureError: the file is missing, empty, no picture, or too large to decode safely.
    """
    with _opened(path, str(path), _limit()) as image:
        if image.format == "TIFF":
            image.load()  # Pillow turns a TIFF itself, by version when opening or when loading.
        # PNG's own `getexif` would decode the pixels to look for EXIF behind them, where hardly any program puts it.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        width, height = image.size
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _limit() -> float:
    return Image.MAX_IMAGE_PIXELS or float("inf")


@contextmanager
def _opened(source: Path | BytesIO, name: str, most: float) -> Iterator[Image.Image]:
    try:
        # Pillow's list of formats has some that start other programs.
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > most:
                raise Image.DecompressionBombError
            yield image
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        empty = not (source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes)
        raise PictureError(f"{name}: {'the file is empty' if empty else 'not a picture'}; replace it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"{name}: more than {most:,} pixels, too many to decode safely; scale it down") from None
    except Exception as error:  # Decoders let any error through that damaged bytes lead to, TypeError for one.
        raise PictureError(f"{name}: cannot be decoded ({error}); replace it") from error


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        # No file says what white is. Fractions end at one, and cameras put 10, 12 or 14 bits into 16.
        whites = (*((1,) if image.mode == "F" else ()), 255, 1023, 4095, 16383)
        white = next((white for white in whites if values.max(initial=0) <= white), 65535)
        grey = np.clip(values * (255 / white), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (h, w, 3) uint8, RGB, whole or not at all: as PNG where the path ends so, else as JPEG.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    with write_whole(path) as file:
        Image.fromarray(picture).save(file, "PNG" if path.suffix == ".png" else "JPEG", quality=92)


def content_key(path: Path) -> str:
    """A name for the picture's content, the same wherever the file lies: 128 bits of BLAKE2b over its bytes.

    Raises:
        PictureError: the file cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror})") from error


def content_keys(paths: Iterable[Path], skipped: dict[Path, str]) -> dict[Path, str]:
    """The content key of every file that can be read; the others go into `skipped` with the reason."""
    keys = {}
    for path in paths:
        try:
            keys[path] = content_key(path)
        except PictureError as error:
            skipped[path] = str(error)
    return keys


def skip_copies(skipped: dict[Path, str], keys: Mapping[Path, str]) -> None:
    """Skip the copies of skipped files too: they share one key, and so one fate."""
    broken = {keys[path]: reason for path, reason in skipped.items() if path in keys}
    for path, key in keys.items():
        if key in broken:
            skipped.setdefault(path, broken[key])


def find_pictures(path: Path) -> list[Path]:
    """The picture files at or below `path`, sorted; other suffixes and hidden files and folders are not looked at."""
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
