import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.errors import ImageError
from boxless.images import FORMATS, content_key, decode_image, image_header, image_size, read_image, write_image

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
"""(12, 16, 3): all pixels differ, so that rotations and swapped channels are detected."""

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
def test_lossless_colours_are_exact(tmp_path, suffix):
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


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_header_gives_the_orientation(tmp_path, suffix, orientation):
    Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}", exif=exif(orientation))
    expected = (12, 16) if orientation in (5, 6, 7, 8) else (16, 12)
    assert image_header(tmp_path / f"a.{suffix}") == (expected, orientation if orientation in range(1, 9) else 1)


@pytest.mark.parametrize(
    ("kind", "value"), [(10, (2**32 - 1, 3)), (12, (3, 2**32 - 1)), (2, (0, 0)), (5, (5, 0))], ids=str
)
def test_a_wrong_value_elsewhere_in_exif_does_not_lose_the_image(tmp_path, kind, value):
    # Orientation 6, and an XResolution of a type or value that Pillow cannot write again.
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x011A, kind, 1, 38)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<III", 0, *value)
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=block)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), DISPLAYED[6](COLOURS))
    assert image_header(tmp_path / "a.png") == ((12, 16), 6)


def test_exif_that_is_no_exif_leaves_the_image_as_it_is(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)


@pytest.mark.skipif("AVIF" not in FORMATS, reason="the installed Pillow does not read AVIF")
def test_avif(tmp_path):
    Image.new("RGB", (16, 12), (255, 0, 0)).save(tmp_path / "a.avif", quality=100)
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - [255, 0, 0]).max() <= 3


def test_heic_is_read_with_pillow_heif_and_leaves_pillow_as_it_is(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    ramp = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[:, None, None], 60, axis=1).repeat(3, axis=2)
    heif.from_pillow(Image.fromarray(ramp)).save(tmp_path / "a.heic", quality=95, exif=exif(6).tobytes())
    image = read_image(tmp_path / "a.heic")
    assert image_header(tmp_path / "a.heic").size == (40, 60) == image.shape[1::-1]
    assert np.abs(image.astype(int) - DISPLAYED[6](ramp)).max() <= 6
    assert "HEIF" not in Image.OPEN


def test_heic_without_pillow_heif_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("boxless.images.find_heif", lambda: None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ImageError, match=r"a\.heic: HEIC .*pip install pillow-heif, or convert it to JPEG"):
        read_image(tmp_path / "a.heic")


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
def test_an_invalid_orientation_is_ignored(tmp_path, value):
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


def test_transparency_is_blended_with_white(tmp_path):
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


def test_the_first_frame_of_an_animation_is_read(tmp_path):
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
def test_a_file_that_is_no_image_is_an_error_that_names_it(tmp_path, read, content, message):
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
def test_a_small_file_of_a_huge_image_is_refused_without_a_warning(tmp_path, side):
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


def test_damaged_bytes_give_an_image_or_an_image_error(tmp_path):
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


def test_bytes_are_decoded_like_their_file(tmp_path: Path) -> None:
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


def test_the_key_depends_on_the_content_not_on_the_name(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, content in (("a.jpg", b"1"), ("sub/ä ö.png", b"1"), ("b.jpg", b"2")):
        (tmp_path / name).write_bytes(content)
    keys = [content_key(tmp_path / name) for name in ("a.jpg", "sub/ä ö.png", "b.jpg")]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 32


def test_the_suffix_determines_the_written_format(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        write_image(tmp_path / name, image)
        with Image.open(tmp_path / name) as pil:
            assert pil.format == form
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_white_in_16_bits_follows_from_the_values(tmp_path, bits):
    white = 2**bits - 1
    Image.fromarray(np.array([[0, white // 3, white]] * 12, np.uint16).repeat(4, axis=1)).save(tmp_path / "a.png")
    assert sorted(set(read_image(tmp_path / "a.png")[0, :, 0].tolist())) == [0, 85, 255]


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_white_of_floats_is_one_or_that_of_a_number_of_bits(tmp_path, white):
    Image.fromarray(np.array([[0, 0.4, 1]] * 12, np.float32).repeat(4, axis=1) * white).save(tmp_path / "a.tif")
    assert sorted(set(read_image(tmp_path / "a.tif")[0, :, 0].tolist())) == [0, 102, 255]


def test_reading_in_threads_leaves_the_warning_filters_as_they_were(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(image_size, [tmp_path / "a.png"] * 400))
    assert sizes == {(16, 12)}
    assert warnings.filters == before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_after_the_pixels_of_a_png_is_obeyed(tmp_path: Path, orientation: int) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(file)
    content, body = file.read_bytes(), b"eXIf" + exif(orientation).tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(content[:-12] + chunk + content[-12:])
    expected = DISPLAYED[orientation](COLOURS)
    np.testing.assert_array_equal(read_image(file), expected)
    assert image_header(file) == (expected.shape[1::-1], orientation)


def test_other_text_after_the_pixels_of_a_png_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(file)
    content, body = file.read_bytes(), b"tEXtdate:create\x002026-01-01"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(content[:-12] + chunk + content[-12:])
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda _: pytest.fail("the pixels are decoded"))
    assert image_size(file) == (16, 12)


@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*"])
def test_a_tiff_that_is_not_read_is_called_one(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(start + b"\0" * 100)
    with pytest.raises(ImageError, match=r"a\.tif: a TIFF that is damaged, or whose kind of pixels is not"):
        read_image(tmp_path / "a.tif")


def test_white_of_larger_floats_is_the_largest(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4e5, 1e6]] * 12, np.float32).repeat(4, axis=1)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, ::4, 0].tolist() == pytest.approx([0, 102, 255], abs=1)


def test_values_that_are_no_number_are_black(tmp_path: Path) -> None:
    values = np.linspace(0, 1, RAMP.size, dtype=np.float32).reshape(RAMP.shape)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert not image[0, :3].any()
    np.testing.assert_array_equal(image[1:], grey((values[1:] * 255).astype(np.uint8)))
