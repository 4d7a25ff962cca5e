"""Class heatmaps drawn over an image."""

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from boxless.errors import BoxlessError
from boxless.visualize.text import draw_text, height_of, shortened

if TYPE_CHECKING:
    from boxless.structures import FloatArray, Heatmaps

_TILE = 360
"""Longest side of a panel's tiles in pixels; smaller images keep their size."""
_CAPTION = 16
"""Size of the captions of a panel's tiles in pixels."""
_STRIP = 2**18
"""Pixels that are coloured at once."""


def draw_heatmap(
    image: NDArray[np.uint8], heatmap: "FloatArray", colormap: str = "jet", alpha: float = 0.5
) -> NDArray[np.uint8]:
    """Blend a heatmap with an image.

    The map's greatest value gets the colormap's last colour; zero and negative values get the first. Jet is the
    colormap of Oquab et al., "Is object localization for free?", CVPR 2015.

    Args:
        image: (H, W, 3) uint8, RGB; it is not changed.
        heatmap: (h, w) float32, of any resolution; it spans the whole image and is enlarged bicubically.
        colormap: any of matplotlib's.
        alpha: opacity of the map, 0 to 1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        BoxlessError: matplotlib has no such colormap.
    """
    height, width = image.shape[:2]
    scaled = np.maximum(heatmap.astype(np.float32), 0) / max(float(heatmap.max()), 1e-12)
    enlarged = np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BICUBIC))
    colours, mixed = _colormap(colormap), np.empty((height, width, 3), np.uint8)
    # Colours are four numbers of eight bytes: those of a whole photograph would take a gigabyte.
    step = max(1, _STRIP // width)
    for rows in (slice(top, top + step) for top in range(0, height, step)):
        own = colours(np.clip(enlarged[rows], 0, 1))[..., :3] * 255
        mixed[rows] = np.rint(image[rows] * (1 - alpha) + own * alpha)
    return mixed


def heatmap_panel(
    image: NDArray[np.uint8],
    heatmaps: "Heatmaps",
    scores: "FloatArray | None" = None,
    most: int = 4,
    colormap: str = "jet",
) -> NDArray[np.uint8]:
    """The image and the heatmaps of its most likely classes side by side, each under its class name and score.

    Every map is scaled from zero to its greatest value: colours show the place, the score shows the confidence.

    Args:
        image: (h, w, 3) uint8, RGB.
        heatmaps: of this image.
        scores: (classes,) float32, written beside the names, highest first; None takes each map's greatest value.
        most: the maximum number of classes shown.
        colormap: any of matplotlib's.

    Returns:
        (height, width, 3) uint8; tiles are at most 360 pixels long.

    Raises:
        BoxlessError: matplotlib has no such colormap.
    """
    if scores is None:
        scores = heatmaps.maps.max(axis=(1, 2))
    height, width = image.shape[:2]
    shrink = min(1, _TILE / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    tiles = [_captioned(small, "image", "")]
    for label in np.argsort(-scores, kind="stable")[:most]:
        drawn = draw_heatmap(small, heatmaps.maps[label], colormap)
        tiles.append(_captioned(drawn, heatmaps.classes[label], f" {scores[label]:.2f}"))
    gap = np.full((tiles[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1)


def _captioned(tile: NDArray[np.uint8], name: str, score: str) -> NDArray[np.uint8]:
    height, width = tile.shape[:2]
    strip = height_of(_CAPTION) + 6
    canvas = Image.new("RGB", (width, height + strip), "white")
    canvas.paste(Image.fromarray(tile), (0, strip))
    text = shortened(name, score, width - 6, _CAPTION)
    draw_text(ImageDraw.Draw(canvas), (3, 3), text, _CAPTION, "black")
    return np.asarray(canvas).copy()


def _colormap(name: str) -> matplotlib.colors.Colormap:
    try:
        return matplotlib.colormaps[name]
    except KeyError:
        raise BoxlessError(
            f"there is no colormap '{name}'; use jet, turbo, viridis, magma, inferno or another of matplotlib's"
        ) from None
