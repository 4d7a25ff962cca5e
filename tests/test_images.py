import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.errors import ImageError
from boxless.images import content_key, decode_image, find_images, image_size, read_image, write_image

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
"""(12, 16, 3): no two pixels alike, so that a turn or a swap of channels shows."""

# What a viewer does for each EXIF orientation, as the standard (EXIF 2.3, tag 274) words row 0 and column 0.
DISPLAYED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_colours_come_back_exact(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(file, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(file)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, COLOURS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_rotation_is_applied(tmp_path, suffix, orientation):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(file, exif=exif(orientation), **({"lossless": True} if suffix == "webp" else {}))
    expected = DISPLAYED[orientation](COLOURS)
    np.testing.assert_array_equal(read_image(file), expected)
    assert image_size(file) == expected.shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_of_a_photograph(tmp_path, orientation):
    photograph = np.zeros((40, 60, 3), np.uint8)
    photograph[:20, :30] = (255, 0, 0)
    photograph[:20, 30:] = (0, 255, 0)
    file = tmp_path / "a.jpg"
    Image.fromarray(photograph).save(file, quality=95, subsampling=0, exif=exif(orientation))
    expected = DISPLAYED[orientation](photograph)
    image = read_image(file)
    assert image_size(file) == expected.shape[1::-1] == image.shape[1::-1]
    assert (np.abs(image.astype(int) - expected) > 60).mean() < 0.02


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, value):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif(value))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)
    assert image_size(tmp_path / "a.png") == (16, 12)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), grey(RAMP))


@pytest.mark.parametrize("dtype", [">u2", "<u2", "<i4"])
def test_wide_tiffs_of_either_byte_order(tmp_path, dtype):
    Image.fromarray((RAMP.astype(np.int64) * 257).astype(dtype)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), grey(RAMP))


def test_16_bit_colours_are_scaled_to_8(tmp_path):
    # Pillow writes no 16-bit RGB, so the PNG is put together here: filter byte 0, then big-endian samples.
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * 257)
    (tmp_path / "a.png").write_bytes(png(16, 12, bits=16, colour=2, data=zlib.compress(rows)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)


def test_grey_and_black_and_white(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    Image.fromarray(RAMP > 90).save(tmp_path / "two.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), grey(RAMP))
    np.testing.assert_array_equal(read_image(tmp_path / "two.png"), grey((RAMP > 90).astype(np.uint8) * 255))


def palette_image() -> Image.Image:
    """Left half entry 0 (red), right half entry 1 (blue)."""
    pil = Image.new("P", (16, 12), 0)
    pil.putpalette([255, 0, 0, 0, 0, 255])
    pil.paste(1, (8, 0, 16, 12))
    return pil


@pytest.mark.parametrize(
    ("more", "left"),
    [({}, (255, 0, 0)), ({"transparency": 0}, (255, 255, 255)), ({"transparency": b"\x80\xff"}, (255, 127, 127))],
)
def test_palettes_with_and_without_transparency(tmp_path, more, left):
    palette_image().save(tmp_path / "a.png", **more)
    image = read_image(tmp_path / "a.png")
    assert image[3, 3].tolist() == list(left)
    assert image[3, 12].tolist() == [0, 0, 255]


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.zeros((12, 16, 4), np.uint8)
    pixels[:6] = (10, 20, 30, 255)
    pixels[6:] = (200, 0, 100, 51)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [10, 20, 30]
    # A fifth of the colour, four fifths of white.
    assert image[-1, -1].tolist() == [244, 204, 224]


def test_a_grey_image_with_alpha(tmp_path):
    pil = Image.new("LA", (16, 12), (100, 255))
    pil.paste((100, 0), (0, 0, 8, 12))
    pil.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image[:, :8] == 255).all()
    assert (image[:, 8:] == 100).all()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    # Full magenta and yellow, no cyan and no black: red.
    Image.new("CMYK", (16, 12), (0, 255, 255, 0)).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert np.abs(image.astype(int) - [255, 0, 0]).max() <= 2


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix, share):
    file = tmp_path / f"torn.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ImageError, match=rf"torn\.{suffix}: "):
        read_image(file)


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "not an image; replace it"),
        (b"\xff\xd8\xff", "replace it"),
        (b"\x89PNG\r\n\x1a\n", "replace it"),
    ],
)
def test_what_is_no_image_is_an_error_that_names_it(tmp_path, read, content, message):
    (tmp_path / "a b ü.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=f"a b ü.jpg: .*{message}"):
        read(tmp_path / "a b ü.jpg")


@pytest.mark.parametrize("read", [read_image, image_size, content_key])
def test_missing_files_and_folders_are_errors_that_name_them(tmp_path, read):
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        read(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=str(tmp_path)):
        read(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_small_file_that_claims_a_huge_image_is_refused_without_a_warning(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 0, zlib.compress(b"\0" * 1000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"bomb\.png: more than 89,478,485 pixels, too many .*; scale it down"):
            read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_a_side_too_short_is_an_error(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "tiny.png")
    with pytest.raises(ImageError, match=rf"tiny\.png: {size[0]}x{size[1]} px; a side under 8 px"):
        read_image(tmp_path / "tiny.png")
    assert image_size(tmp_path / "tiny.png") == size


def test_damaged_bytes_lead_to_a_image_or_a_image_error(tmp_path):
    rng = np.random.default_rng(0)
    streams = []
    for kind, more in (("JPEG", {}), ("PNG", {}), ("TIFF", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {})):
        stream = io.BytesIO()
        Image.fromarray(COLOURS).save(stream, kind, **({"exif": exif(6)} if kind in ("JPEG", "PNG", "TIFF") else more))
        streams.append(np.frombuffer(stream.getvalue(), np.uint8))
    errors = 0
    for turn in range(900):
        damaged = streams[turn % len(streams)].copy()
        places = rng.integers(0, min(len(damaged), 200), rng.integers(1, 6))
        damaged[places] = rng.integers(0, 256, len(places))
        file = tmp_path / "damaged.jpg"
        file.write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = read_image(file)
                assert image.ndim == 3
                assert image.dtype == np.uint8
            except ImageError as error:
                assert "damaged.jpg" in str(error)
                errors += 1
    assert 0 < errors < 900


def test_an_error_of_any_kind_in_a_decoder_names_the_file(tmp_path):
    # A text (type 2) where TIFF has the place of the pixels (tag 0x0111) makes Pillow raise TypeError.
    Image.fromarray(COLOURS).save(tmp_path / "a.tif")
    damaged = bytearray((tmp_path / "a.tif").read_bytes())
    entry = damaged.index(struct.pack("<HHI", 0x0111, 4, 1))
    damaged[entry + 2 : entry + 4] = struct.pack("<H", 2)
    (tmp_path / "a.tif").write_bytes(damaged)
    with pytest.raises(ImageError, match=r"a\.tif: "):
        read_image(tmp_path / "a.tif")


def test_bytes_are_decoded_as_their_file_is(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(file, exif=exif)
    np.testing.assert_array_equal(decode_image(file.read_bytes(), "it", 2400), read_image(file))
    with pytest.raises(ImageError, match="it: more than 2,399 pixels"):
        decode_image(file.read_bytes(), "it", 2399)
    for content, message in ((b"", "it: the file is empty"), (b"no", "it: not an image")):
        with pytest.raises(ImageError, match=message):
            decode_image(content, "it", 2400)


def test_the_key_is_of_the_content_not_of_the_name(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, content in (("a.jpg", b"1"), ("sub/ä ö.png", b"1"), ("b.jpg", b"2")):
        (tmp_path / name).write_bytes(content)
    keys = [content_key(tmp_path / name) for name in ("a.jpg", "sub/ä ö.png", "b.jpg")]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 32


def test_images_are_found_at_any_depth_sorted_and_hidden_ones_left(tmp_path):
    names = ["b.JPG", "a b.jpeg", "sub/ü.webp", "sub/._ü.webp", ".cache/c.jpg", "sub/.ipynb_checkpoints/d.jpg", "e.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert find_images(tmp_path) == [tmp_path / name for name in ("a b.jpeg", "b.JPG", "sub/ü.webp")]
    assert find_images(tmp_path / "e.txt") == [tmp_path / "e.txt"]
    assert find_images(Path(tmp_path / ".cache")) == [tmp_path / ".cache" / "c.jpg"]


def test_a_image_is_written_as_its_suffix_says(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        write_image(tmp_path / name, image)
        with Image.open(tmp_path / name) as pil:
            assert pil.format == form
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_what_is_white_in_16_bits_is_told_by_the_values(tmp_path, bits):
    white = 2**bits - 1
    Image.fromarray(np.array([[0, white // 3, white]] * 12, np.uint16).repeat(4, axis=1)).save(tmp_path / "a.png")
    assert sorted(set(read_image(tmp_path / "a.png")[0, :, 0].tolist())) == [0, 85, 255]


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_white_of_floats_is_one_or_that_of_a_number_of_bits(tmp_path, white):
    Image.fromarray(np.array([[0, 0.4, 1]] * 12, np.float32).repeat(4, axis=1) * white).save(tmp_path / "a.tif")
    assert sorted(set(read_image(tmp_path / "a.tif")[0, :, 0].tolist())) == [0, 102, 255]
