import numpy as np
import pytest
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.visualize import contact_sheet


def plain(width: int, height: int, value: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def test_rows_fill_the_width_and_nothing_is_distorted() -> None:
    sheet = contact_sheet([plain(200, 100, 10), plain(100, 100, 20), plain(50, 100, 30)], columns=3, width=362, gap=6)
    # (362 - 2 * 6) / (2 + 1 + 0.5) = 100 pixels high
    assert sheet.shape == (100, 362, 3)
    expected = np.concatenate([np.full(n, v) for n, v in ((200, 10), (6, 255), (100, 20), (6, 255), (50, 30))])
    np.testing.assert_array_equal(sheet[..., 0], np.tile(expected, (100, 1)))


def test_a_short_last_row_keeps_the_scale_and_ends_early() -> None:
    sheet = contact_sheet([plain(60, 40, 10)] * 3, columns=2, width=126, gap=6)
    assert sheet.shape == (40 + 6 + 40, 126, 3)
    assert (sheet[:40, :60] == 10).all() and (sheet[:40, 66:] == 10).all()
    assert (sheet[40:46] == 255).all()
    assert (sheet[46:, :60] == 10).all() and (sheet[46:, 60:] == 255).all()


def test_no_image_and_a_narrow_sheet_are_errors() -> None:
    with pytest.raises(BoxlessError, match="needs at least one image"):
        contact_sheet([])
    with pytest.raises(BoxlessError, match="too narrow for 20 columns"):
        contact_sheet([plain(9, 9, 0)], columns=20, width=100)


def test_a_tall_image_is_no_higher_than_the_sheet_is_wide() -> None:
    sheet = contact_sheet([plain(3, 600, 0)], columns=1, width=100)
    assert sheet.shape == (100, 100, 3)
    assert (sheet[:, 1:] == 255).all()
