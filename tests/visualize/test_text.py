import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from boxless.metrics import diagnose_detections
from boxless.structures import Annotations, Detections, Sample
from boxless.visualize import draw_boxes, plot_diagnosis, text
from boxless.visualize.text import draw_text, drawable, main_font, shortened, width_of

SIZE = 40


def drawn(words: str) -> NDArray[np.uint8]:
    canvas = Image.new("L", (400, 60))
    draw_text(ImageDraw.Draw(canvas), (0, 0), words, SIZE, "white")
    return np.asarray(canvas)


def detection(name: str) -> Detections:
    boxes, scores = np.array([[10, 60, 150, 150]], np.float32), np.ones(1, np.float32)
    return Detections(boxes, scores, np.zeros(1, np.int64), (name,), (160, 160), np.ones(1, np.float32))


def overlay(name: str) -> NDArray[np.uint8]:
    return draw_boxes(np.zeros((160, 160, 3), np.uint8), detection(name))


def forget() -> None:
    text.font_with.cache_clear()
    text._system_fonts.cache_clear()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system without fonts."""
    forget()
    monkeypatch.setattr(text, "findSystemFonts", list)
    yield
    forget()


@pytest.fixture
def square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: None) -> Path:
    """The only font of the system: its U+732B is a block on the baseline, as wide as the font is high, 0.8 as high."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (1000, 800), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({ord("猫"): "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "Square.ttf")
    (tmp_path / "Broken.ttf").write_bytes(b"no font")
    files = [str(tmp_path / "Broken.ttf"), str(tmp_path / "Square.ttf")]
    monkeypatch.setattr(text, "findSystemFonts", lambda: files)
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    return tmp_path / "Square.ttf"


@pytest.mark.parametrize("letters", ["éßŁğ", "Ωδλ", "ЖщЇ"])
def test_latin_greek_and_cyrillic_letters_differ(bare: None, letters: str) -> None:
    assert drawable(letters) == letters
    images = {overlay(letter).tobytes() for letter in letters}
    assert len(images) == len(letters)


def test_accents_are_composed() -> None:
    assert drawable("Mu\u0308ller") == "Müller"
    assert width_of("Mu\u0308ller", SIZE) == width_of("Müller", SIZE)


def test_a_character_comes_from_the_font_of_the_system_that_has_it(square: Path) -> None:
    assert drawable("a猫 0.50") == "a猫 0.50"
    assert text.font_with("猫") == square and text.font_with("a") == main_font()
    assert width_of("猫", SIZE) == SIZE
    assert width_of("a猫b", SIZE) == width_of("a", SIZE) + SIZE + width_of("b", SIZE)
    one = drawn("猫")
    rows, columns = np.flatnonzero(one.max(axis=1)), np.flatnonzero(one.max(axis=0))
    assert (one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255).all()
    assert (len(rows), len(columns)) == (0.8 * SIZE, SIZE)
    # Both stand on the same line, the block behind the letter.
    both, left = drawn("H猫"), width_of("H", SIZE)
    np.testing.assert_array_equal(both[:, left : left + SIZE], one[:, :SIZE])
    assert np.flatnonzero(both[:, :left].max(axis=1) == 255)[-1] == rows[-1]


def test_without_a_font_the_code_is_drawn_and_said_once(bare: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="boxless"):
        assert drawable("猫🚗") == "\\u732b\\U0001f697"
        assert drawable("猫") == "\\u732b"
    assert [record.args for record in caplog.records] == [("猫",), ("🚗",)]
    assert (overlay("猫") != overlay("狗")).any()
    np.testing.assert_array_equal(drawn("猫"), drawn("\\u732b"))


def test_line_breaks_and_half_characters_are_drawn_as_codes(bare: None) -> None:
    assert drawable("a\nb\udce9") == "a\\u000ab\\udce9"
    assert overlay("a\nb\udce9").any()


def test_a_name_of_a_fallback_font_is_shortened(square: Path) -> None:
    width = 3 * SIZE + width_of("… 0.50", SIZE)
    assert shortened("猫" * 10, " 0.50", width, SIZE) == "猫猫猫… 0.50"


def chart(name: str) -> NDArray[np.uint8]:
    truth = Annotations(np.array([[10, 60, 150, 150]], np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_))
    sample = Sample("a", Path("a.jpg"), frozenset({0}), annotations=truth)
    result = diagnose_detections([detection(name)], [sample], (name,))
    return plot_diagnosis({"data": "data", "supervision": "tags", **result})


def test_charts_use_the_same_fonts(square: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dark = (chart("猫猫")[100:, :300] < 60).all(axis=2)
    assert not caplog.records
    # 11 points at 110 dots per inch are 17 pixels: two blocks of 17 x 13, below the headline.
    rows = np.flatnonzero(dark.sum(axis=1) >= 2 * 16)
    assert 12 <= len(rows) <= 14 and rows[-1] - rows[0] + 1 == len(rows)


def test_charts_have_codes_where_there_is_no_font(bare: None) -> None:
    np.testing.assert_array_equal(chart("猫"), chart("\\u732b"))
