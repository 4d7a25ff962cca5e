import numpy as np
import pytest

from boxless.errors import BoxlessError
from boxless.structures import Heatmaps
from boxless.visualize import draw_heatmap, heatmap_panel


def test_jet_goes_from_dark_blue_to_dark_red_whatever_the_values() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    ramp = np.tile(np.linspace(-7, 30, 6, dtype=np.float32), (4, 1))
    drawn = draw_heatmap(image, ramp, alpha=1)
    assert drawn.shape == (4, 6, 3) and drawn.dtype == np.uint8
    np.testing.assert_allclose(drawn[:, 0], np.tile([0, 0, 127.5], (4, 1)), atol=0.51)
    np.testing.assert_allclose(drawn[:, -1], np.tile([127.5, 0, 0], (4, 1)), atol=0.51)


def test_alpha_mixes_image_and_colour() -> None:
    image = np.full((8, 8, 3), 200, np.uint8)
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    np.testing.assert_array_equal(draw_heatmap(image, ramp, alpha=0), image)
    quarter = draw_heatmap(image, ramp, "gray", alpha=0.25)
    assert quarter[3, 0].tolist() == [150] * 3
    assert quarter[3, 7].tolist() == [214] * 3
    assert (image == 200).all()


def test_map_spans_the_whole_image_and_is_enlarged_smoothly() -> None:
    heat = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    drawn = draw_heatmap(np.zeros((90, 120, 3), np.uint8), heat, "gray", alpha=1)[..., 0].astype(int)
    # The cell of row 1, column 2 covers rows 30 to 60, columns 60 to 90.
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert abs(row - 44.5) <= 3 and abs(column - 74.5) <= 3
    assert np.abs(np.diff(drawn[45])).max() < 20
    assert drawn[0].max() <= 4 and drawn[:, 0].max() <= 4
    np.testing.assert_allclose(drawn, drawn[::-1], atol=2)


@pytest.mark.parametrize("value", [0, -3])
def test_a_map_without_evidence_has_the_first_colour(value: float) -> None:
    drawn = draw_heatmap(np.zeros((8, 8, 3), np.uint8), np.full((2, 2), value, np.float32), alpha=1)
    assert (drawn[..., :2] == 0).all() and (drawn[..., 2] >= 127).all()


def test_an_unknown_colormap_is_an_error_that_names_others() -> None:
    with pytest.raises(BoxlessError, match=r"'jett'.*viridis"):
        draw_heatmap(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2), np.float32), "jett")


def panel_heatmaps() -> Heatmaps:
    maps = np.zeros((3, 4, 5), np.float32)
    maps[0, 0, 0], maps[1, 3, 4], maps[2, 0, 4] = 0.2, 0.9, 0.5
    return Heatmaps(maps, ("cat", "dog", "cow"), (100, 80))


def tiles(panel: np.ndarray, count: int, width: int, height: int) -> list[np.ndarray]:
    assert panel.shape[1] == count * width + (count - 1) * 4
    return [panel[-height:, i * (width + 4) : i * (width + 4) + width] for i in range(count)]


def test_panel_shows_the_image_and_the_most_likely_classes_in_order() -> None:
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3)).astype(np.uint8)
    heatmaps = panel_heatmaps()
    first, second, third = tiles(heatmap_panel(image, heatmaps, most=2), 3, 100, 80)
    np.testing.assert_array_equal(first, image)
    np.testing.assert_array_equal(second, draw_heatmap(image, heatmaps.maps[1]))
    np.testing.assert_array_equal(third, draw_heatmap(image, heatmaps.maps[2]))


def test_panel_orders_by_given_scores_and_writes_captions() -> None:
    image = np.zeros((80, 100, 3), np.uint8)
    heatmaps = panel_heatmaps()
    one = heatmap_panel(image, heatmaps, np.array([0.7, 0.1, 0.2], np.float32), most=1)
    np.testing.assert_array_equal(tiles(one, 2, 100, 80)[1], draw_heatmap(image, heatmaps.maps[0]))
    strip = one[:-80]
    assert strip.shape[0] >= 16 and (strip[:, :100] < 100).any() and (strip[:, 104:] < 100).any()
    other = heatmap_panel(image, heatmaps, np.array([0.8, 0.1, 0.2], np.float32), most=1)
    changed = (one != other).any(axis=2)
    assert changed[:-80, 104:].any() and not changed[-80:].any() and not changed[:, :104].any()


def test_panel_of_a_large_image_is_scaled_down_in_proportion() -> None:
    panel = heatmap_panel(np.zeros((1440, 720, 3), np.uint8), panel_heatmaps())
    assert panel.shape[1] == 4 * 180 + 3 * 4
    assert 360 < panel.shape[0] < 400


def test_a_large_image_is_drawn_as_its_parts_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (900, 700, 3), np.uint8)
    ramp = np.repeat(np.linspace(0, 1, 7, dtype=np.float32)[None], 3, axis=0)
    drawn = draw_heatmap(image, ramp)
    # Every row of the map is the same, so that those of the image are mixed with the same colours.
    for top in (0, 373, 600):
        np.testing.assert_array_equal(drawn[top : top + 300], draw_heatmap(image[top : top + 300], ramp))
