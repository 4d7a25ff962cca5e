import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from boxless.errors import ImageError
from boxless.inputs import to_rgb


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.fixture
def file(pixels: NDArray[np.uint8], tmp_path: Path) -> Path:
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def assert_pixels(found: NDArray[Any], expected: NDArray[np.uint8]) -> None:
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


def test_files_are_paths_strings_or_open(pixels: NDArray[np.uint8], file: Path, monkeypatch: pytest.MonkeyPatch):
    assert_pixels(to_rgb(file), pixels)
    assert_pixels(to_rgb(str(file)), pixels)
    assert_pixels(to_rgb(io.BytesIO(file.read_bytes())), pixels)
    with file.open("rb") as opened:
        assert_pixels(to_rgb(opened), pixels)
    monkeypatch.setenv("HOME", str(file.parent))
    assert_pixels(to_rgb("~/image.png"), pixels)


def test_arrays_are_rgb_or_grey(pixels: NDArray[np.uint8]):
    assert to_rgb(pixels) is pixels
    assert_pixels(to_rgb(pixels[:, :, 0]), np.stack([pixels[:, :, 0]] * 3, axis=2))


def test_tensors_are_channels_first_in_bytes_or_fractions(pixels: NDArray[np.uint8]):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    assert_pixels(to_rgb(tensor), pixels)
    for fractions in (tensor.float() / 255, tensor.double() / 255, (tensor.float() / 255).requires_grad_()):
        assert_pixels(to_rgb(fractions), pixels)
    assert_pixels(to_rgb(tensor[:1]), np.stack([pixels[:, :, 0]] * 3, axis=2))


def test_pillow_images_of_every_mode_are_rgb_as_displayed(pixels: NDArray[np.uint8]):
    image = Image.fromarray(pixels)
    assert_pixels(to_rgb(image), pixels)
    assert_pixels(to_rgb(image.convert("L")), np.stack([np.asarray(image.convert("L"))] * 3, axis=2))
    for mode in ("RGBA", "P", "CMYK", "1", "I;16"):
        assert to_rgb(Image.new(mode, (20, 12))).shape == (12, 20, 3)
    # 6 turns the image by a quarter, clockwise.
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = io.BytesIO()
    image.save(rotated, "png", exif=exif)
    assert_pixels(to_rgb(Image.open(rotated)), np.rot90(pixels, -1))
    assert_pixels(to_rgb(io.BytesIO(rotated.getvalue())), np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 30, 4), np.uint8), r"an array must be .* not \(20, 30, 4\) uint8"),
        (np.zeros((3, 20, 30), np.uint8), r"an array must be .* not \(3, 20, 30\) uint8"),
        (np.zeros((20, 30, 3), np.float32), r"an array must be .* not \(20, 30, 3\) float32"),
        (np.zeros(20, np.uint8), r"an array must be .* not \(20,\) uint8"),
        (torch.zeros(20, 30), r"a tensor must be .* not \(20, 30\)"),
        (torch.zeros(20, 30, 3), r"a tensor must be .* not \(20, 30, 3\)"),
        (torch.zeros(3, 20, 30, dtype=torch.int64), r"a tensor must be uint8 or float, not torch\.int64"),
        (torch.full((3, 20, 30), 1.5), r"a float tensor must hold values in \[0, 1\]"),
        (torch.full((3, 20, 30), -0.1), r"a float tensor must hold values in \[0, 1\]"),
        (torch.full((3, 20, 30), torch.nan), r"a float tensor must hold values in \[0, 1\]"),
        (b"bytes", "an image is a path, .* not bytes"),
        ([1, 2], "an image is a path, .* not list"),
        (io.StringIO("text"), "an image is a path, .* not StringIO"),
        ("http://example.org/a.jpg", r"http://example\.org/a\.jpg: addresses are not downloaded"),
        ("nowhere.jpg", r"nowhere\.jpg"),
        (io.BytesIO(b"no image"), "file object"),
        (np.zeros((7, 20, 3), np.uint8), "20x7 px; a side under 8 px cannot be used"),
        (torch.zeros(3, 20, 0), "0x20 px; a side under 8 px cannot be used"),
        (Image.new("RGB", (1, 1)), "1x1 px; a side under 8 px cannot be used"),
    ],
)
def test_anything_else_is_an_error_of_one_line(image: Any, message: str):
    with pytest.raises(ImageError, match=message) as error:
        to_rgb(image)
    assert "\n" not in str(error.value)


def test_errors_name_the_file(tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match=r"broken\.png"):
        to_rgb(broken)
    with pytest.raises(ImageError, match=r"broken\.png"), broken.open("rb") as opened:
        to_rgb(opened)
