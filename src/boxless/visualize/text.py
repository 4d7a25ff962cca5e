"""Text in any script: DejaVu Sans, which comes with matplotlib, and fonts of the system for what it lacks."""

import logging
import math
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, ink: str) -> None:
    """Draw one line whose top left corner is `place`, with its characters on one baseline whatever their fonts."""
    left, baseline = place[0], place[1] + _font(main_font(), size).getmetrics()[0]
    for part, font in _parts(text, size):
        draw.text((left, baseline), part, fill=ink, font=font, anchor="ls")
        left += math.ceil(font.getlength(part))


def width_of(text: str, size: int) -> int:
    """Width of one line in pixels, rounded up."""
    return sum(math.ceil(font.getlength(part)) for part, font in _parts(text, size))


def height_of(size: int) -> int:
    """Height of a line in pixels, descenders and accents included."""
    return math.ceil(_font(main_font(), size).getbbox("Ågj|")[3])


def shortened(name: str, rest: str, width: int, size: int) -> str:
    """`name` and `rest` in at most `width` pixels, with letters removed from the name first, then from the rest."""
    name = drawable(name)
    if width_of(name + rest, size) <= width:
        return name + rest
    for length in range(len(name) - 1, 0, -1):
        text = name[:length].rstrip() + "…" + rest
        if width_of(text, size) <= width:
            return text
    text = rest.strip()
    while text and width_of(text, size) > width:
        text = text[:-1]
    return text


def drawable(text: str) -> str:
    """The text with the codes of those characters that no font has, such as `\\u732b`."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(character if font_with(character) else _code(character) for character in composed)


def families(text: str) -> list[str]:
    """The font families of a text, the main one first; those that matplotlib does not know are added to its fonts."""
    files = dict.fromkeys([main_font(), *(font_with(character) or main_font() for character in drawable(text))])
    known = {entry.fname for entry in fontManager.ttflist}
    for file in files:
        if str(file) not in known:
            fontManager.addfont(file)
    return [FT2Font(str(file)).family_name for file in files]


@cache
def font_with(character: str) -> Path | None:
    """The file of the main font if it has the character, else of the first font of the system that has it."""
    if _has(main_font(), character):
        return main_font()
    found = next((font for font in _system_fonts() if _has(font, character)), None)
    if found is None and character.isprintable():
        logger.warning(
            "No font has the character %s, so its code is drawn: install one that has it, such as Noto Sans", character
        )
    return found


@cache
def main_font() -> Path:
    """DejaVu Sans: Latin, Greek, Cyrillic and more, under a free licence."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _system_fonts() -> list[Path]:
    """Regular fonts without serifs first; otherwise by name, so that the order does not change."""
    files = {Path(file).stem: Path(file) for file in sorted(findSystemFonts())}
    # Apple's has a frame for every character.
    files.pop("LastResort", None)
    return [files[stem] for stem in sorted(files, key=lambda s: ("Regular" not in s, "Sans" not in s, "Mono" in s, s))]


def _has(file: Path, character: str) -> bool:
    """Whether a font has a character; not those that are damaged or hold bitmaps of one size, as some of emoji do."""
    try:
        font = FT2Font(str(file))
    except (OSError, RuntimeError):
        return False
    return bool(font.scalable) and font.get_char_index(ord(character)) != 0


@cache
def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def _parts(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """The text in parts of one font each."""
    for file, part in groupby(drawable(text), font_with):
        yield "".join(part), _font(file or main_font(), size)


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 2**16 else f"\\U{ord(character):08x}"
