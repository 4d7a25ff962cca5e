"""Small images for the tests of the layouts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

MakeImage = Callable[..., Path]


@pytest.fixture
def image() -> MakeImage:
    """Writes an image of a size, in folders made on the way."""

    def write(path: Path, size: tuple[int, int] = (100, 80), orientation: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, "red").save(path, exif=exif)
        return path

    return write
