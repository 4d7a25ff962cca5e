"""Image files: decoding to the pixels a viewer displays, with clear errors; keys of their content, and writing."""

import hashlib
import math
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from boxless.errors import ImageError, in_one_line
from boxless.files import write_whole
from boxless.image_files import can_read_avif, find_heif

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", *(("AVIF",) if can_read_avif() else ()))
MIN_SIDE = 8
"""Pixels; images with a shorter side are refused, as there is nothing to localise."""

MAX_JPEG_SIDE = 65_500
"""Most pixels that libjpeg takes as a width or height."""

TURNS = {2: (1, 0, 0), 3: (1, 1, 0), 4: (0, 1, 0), 5: (0, 0, 1), 6: (1, 0, 1), 7: (1, 1, 1), 8: (0, 1, 1)}
"""How a viewer turns the stored pixels for each EXIF orientation but 1 (EXIF 2.3, tag 274).

Whether columns are reversed, rows are, and both are exchanged before that.
"""
_STRIP = 2**20
"""Pixels that are converted at a time: of the largest image allowed, one copy alone takes 350 MB."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_METADATA_KEYS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""How PNG's chunks of text with EXIF and XMP begin."""
_LONGEST_KEY = max(map(len, _METADATA_KEYS))

_open_lock = threading.Lock()
_load_lock = threading.Lock()


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file.

    EXIF rotation is applied, 16-bit values are scaled to 8 bits, transparency is blended with white, and the first
    frame of an animation is returned.

    Args:
        path: a file of any format Pillow reads.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image, too large to decode safely (Pillow's
            `MAX_IMAGE_PIXELS`), or has a side shorter than `MIN_SIDE`. The message names the file and the fix.
    """
    return _decode(path, str(path), _limit())


def decode_image(content: bytes, name: str, most: float = math.inf) -> NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_image` does, without writing to the disk.

    Args:
        content: the whole file.
        name: what error messages call it.
        most: pixels, besides Pillow's own limit; a larger image is refused before it is decoded.

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
    """Convert a Pillow image as `read_image` does: (height, width, 3) uint8, RGB."""
    # A list may hold an image several times, and Pillow fails if two threads load it, or read its EXIF.
    with _load_lock:
        pil.load()
        orientation = _orientation(pil.getexif)
    image = _to_rgb(pil)
    # Not Pillow's `exif_transpose`: it writes the EXIF anew, which fails for a value that is wrong elsewhere in it.
    if turn := TURNS.get(orientation):
        mirrored, upside_down, exchanged = turn
        image = image.swapaxes(0, 1) if exchanged else image
        image = np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])
    return image


class Header(NamedTuple):
    """What the header of an image file says.

    Args:
        size: width and height as displayed (EXIF rotation applied), in pixels.
        orientation: of EXIF, 1 to 8; 1 if it is unknown or invalid.
    """

    size: tuple[int, int]
    orientation: int


def image_header(path: Path) -> Header:
    """Size and orientation of an image; only the header is read, except for TIFF and PNG with EXIF after the pixels.

    Raises:
        ImageError: the file is missing, empty, not an image, or too large to decode safely.
    """
    with _opened(path, str(path), _limit()) as pil:
        # PNG's own `getexif` decodes the pixels to search for EXIF after them, where few programs write it.
        late = pil.format == "PNG" and _has_late_metadata(path)
        orientation = left = _orientation(pil.getexif if late else lambda: Image.Image.getexif(pil))
        if pil.format == "TIFF":
            pil.load()  # Pillow rotates a TIFF itself, when opening or when loading, depending on its version.
            left = _orientation(lambda: Image.Image.getexif(pil))
        width, height = pil.size
    return Header((height, width) if left in (5, 6, 7, 8) else (width, height), orientation)


def _has_late_metadata(path: Path) -> bool:
    """Whether a PNG has EXIF or XMP after its pixels (PNG 3, section 5.3), as ImageMagick 6 has."""
    seen = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            (length, name), start = struct.unpack(">I4s", head), file.tell()
            is_text = name in (b"iTXt", b"tEXt", b"zTXt")
            if seen and (name == b"eXIf" or (is_text and file.read(_LONGEST_KEY).startswith(_METADATA_KEYS))):
                return True
            seen |= name == b"IDAT"
            file.seek(start + length + 4)
    return False


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as displayed (EXIF rotation applied), in pixels; see `image_header`."""
    return image_header(path).size


def _orientation(read: Callable[[], Image.Exif]) -> int:
    try:
        value = read().get(ExifTags.Base.Orientation, 1)
    except Exception:  # A damaged EXIF can raise any error, and leaves the pixels readable.
        return 1
    return value if value in TURNS else 1


def _limit() -> float:
    return Image.MAX_IMAGE_PIXELS or float("inf")


@contextmanager
def _opened(source: Path | BytesIO, name: str, most: float) -> Iterator[Image.Image]:
    try:
        with _open(source) as pil:
            if pil.width * pil.height > most:
                raise Image.DecompressionBombError
            yield pil
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_why_unidentified(source)}") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {most:,} pixels, too many to decode safely; scale it down") from None
    except Exception as error:  # Damaged bytes can raise any error in a decoder, such as TypeError.
        raise ImageError(f"{name}: cannot be decoded ({in_one_line(error)}); replace it") from error


def _open(source: Path | BytesIO) -> Image.Image:
    # Pillow only warns of sizes that the caller refuses. `catch_warnings` changes the filters of the whole process
    # until the block ends, so threads must not interleave.
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            # By default Pillow also opens formats for which it starts other programs.
            return Image.open(source, formats=FORMATS)
        except UnidentifiedImageError:
            heif: Any = find_heif() if _is_heif(source) else None
            if heif is None:
                raise
            # Not `register_heif_opener`, which changes Pillow for the whole process.
            opened: Image.Image = heif.HeifImageFile(source)
            return opened


def _start(source: Path | BytesIO) -> bytes:
    if isinstance(source, BytesIO):
        return source.getvalue()[:12]
    with source.open("rb") as file:
        return file.read(12)


def _is_heif(source: Path | BytesIO) -> bool:
    start = _start(source)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def _why_unidentified(source: Path | BytesIO) -> str:
    if not _start(source):
        return "the file is empty; replace it"
    if _is_heif(source):
        return "HEIC is read with pillow-heif only; pip install pillow-heif, or convert it to JPEG"
    if _start(source).startswith((b"II*\0", b"MM\0*")):
        return "a TIFF that is damaged, or whose kind of pixels is not read; convert it to RGB of 8 bits"
    return "not an image; replace it"


def _to_rgb(pil: Image.Image) -> NDArray[np.uint8]:
    convert = _grey(pil) if pil.mode.startswith(("I", "F")) else _opaque if pil.has_transparency_data else _plain
    image = np.empty((pil.height, pil.width, 3), np.uint8)
    for top, strip in _strips(pil):
        image[top : top + strip.height] = convert(strip)
    return image


def _strips(pil: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image from top to bottom, each with the row that it begins with."""
    rows = max(1, _STRIP // max(1, pil.width))
    for top in range(0, pil.height, rows):
        yield top, pil.crop((0, top, pil.width, min(top + rows, pil.height)))


def _plain(pil: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(pil.convert("RGB"))


def _opaque(pil: Image.Image) -> NDArray[np.uint8]:
    pil = pil.convert("RGBA")
    return _plain(Image.alpha_composite(Image.new("RGBA", pil.size, "white"), pil))


def _grey(pil: Image.Image) -> Callable[[Image.Image], NDArray[np.uint8]]:
    def numbers(strip: Image.Image) -> NDArray[np.float32]:
        # Measuring devices write NaN where they saw nothing.
        return np.nan_to_num(np.asarray(strip, np.float32), posinf=0, neginf=0)

    largest = np.max([numbers(strip).max(initial=0) for _, strip in _strips(pil)], initial=0)
    # The file does not record the value of white: 1 for fractions, and cameras store 10, 12 or 14 bits in 16.
    whites = (*((1,) if pil.mode == "F" else ()), 255, 1023, 4095, 16383)
    white = next((white for white in whites if largest <= white), max(65535, largest))
    return lambda strip: np.clip(numbers(strip) * (255 / white), 0, 255).astype(np.uint8)[:, :, None]


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image (h, w, 3) uint8, RGB, atomically; PNG if the suffix is .png, else JPEG.

    What is longer than a JPEG can be (`MAX_JPEG_SIDE`) is shrunk.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    pil, png = Image.fromarray(image), path.suffix == ".png"
    if not png:
        pil.thumbnail((MAX_JPEG_SIDE, MAX_JPEG_SIDE))
    with write_whole(path) as file:
        pil.save(file, "PNG" if png else "JPEG", quality=92)


def content_key(path: Path) -> str:
    """A key of the file's content, independent of its path: 128 bits of BLAKE2b over its bytes, in hexadecimal.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def content_keys(paths: Iterable[Path], skipped: dict[Path, str]) -> dict[Path, str]:
    """The content key of every readable file; `skipped` receives the others -> reason."""
    keys = {}
    for path in paths:
        try:
            keys[path] = content_key(path)
        except ImageError as error:
            skipped[path] = str(error)
    return keys


def skip_copies(skipped: dict[Path, str], keys: Mapping[Path, str]) -> None:
    """Add to `skipped` the files with the same content as a skipped file."""
    broken = {keys[path]: reason for path, reason in skipped.items() if path in keys}
    for path, key in keys.items():
        if key in broken:
            skipped.setdefault(path, broken[key])
