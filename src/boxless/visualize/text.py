"""Measuring and shortening text in Pillow's bundled font."""

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font_of(size: int) -> Font:
    """Pillow's bundled font, `size` pixels high."""
    return ImageFont.load_default(size)


def width_of(text: str, font: Font) -> int:
    """Width of one line in pixels, rounded up."""
    return int(-(-font.getlength(text) // 1))


def height_of(font: Font) -> int:
    """Height of a line in pixels, descenders and accents included."""
    return int(-(-font.getbbox("Ågj|")[3] // 1))


def shortened(name: str, rest: str, width: int, font: Font) -> str:
    """`name` and `rest` in at most `width` pixels, with letters removed from the name first, then from the rest."""
    if width_of(name + rest, font) <= width:
        return name + rest
    for length in range(len(name) - 1, 0, -1):
        text = name[:length].rstrip() + "…" + rest
        if width_of(text, font) <= width:
            return text
    text = rest.strip()
    while text and width_of(text, font) > width:
        text = text[:-1]
    return text
