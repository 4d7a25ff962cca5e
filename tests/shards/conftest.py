from pathlib import Path

import numpy as np
import pytest
from drawn_detector import write_detector
from PIL import Image

from boxless.shards import write_manifest


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An exported file."""
    return str(write_detector(tmp_path_factory.mktemp("detector") / "detector.onnx"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 images in two folders; of them three cannot be read, one is CMYK and one is turned by its EXIF."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(18):
        pixels = np.kron(random.integers(0, 256, (4, 5, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        image, options = Image.fromarray(pixels), {}
        if number == 3:
            image = image.convert("CMYK")
        if number == 4:
            options = {"exif": Image.Exif()}
            options["exif"][274] = 6
        path = folder / ("a" if number < 9 else "b") / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=95, **options)
    whole = (folder / "a" / "00.jpg").read_bytes()
    (folder / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b" / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (40, 4)).save(folder / "b" / "thin.png")
    return folder


@pytest.fixture(scope="session")
def manifest(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of these images."""
    path = tmp_path_factory.mktemp("manifest") / "photos.parquet"
    write_manifest(str(photos), str(path))
    return str(path)
