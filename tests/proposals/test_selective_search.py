import numpy as np
import pytest
from numpy.typing import NDArray

from boxless.metrics import iou
from boxless.proposals.selective_search import selective_search


def scene(width: int, height: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A red rectangle (xyxy) on green."""
    image = np.full((height, width, 3), (30, 160, 40), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = (220, 20, 30)
    return image


@pytest.mark.parametrize("mode", ["fast", "quality"])
@pytest.mark.parametrize(
    ("width", "height", "box", "size", "least"),
    [
        (200, 150, (40, 30, 120, 100), 400, 0.94),
        (150, 200, (10, 90, 70, 190), 400, 0.94),
        # Grouped at a quarter of the size: the box comes back in pixels of the image itself.
        (640, 480, (160, 80, 400, 320), 160, 0.9),
        (480, 640, (80, 160, 320, 560), 160, 0.9),
    ],
)
def test_an_object_is_among_the_proposals(
    mode: str, width: int, height: int, box: tuple[int, int, int, int], size: int, least: float
):
    boxes = selective_search(scene(width, height, box), size, mode)
    assert iou(np.array([box], np.float32), boxes).max() >= least


def test_small_images_are_not_enlarged():
    image = scene(100, 80, (20, 20, 60, 60))
    boxes = selective_search(image, 400)
    assert (boxes == boxes.round()).all()
    assert boxes.tolist() == selective_search(image, 100, "fast").tolist()


def test_the_order_is_the_same_in_every_call():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    first = selective_search(image, 128, "fast")
    assert len(first) > 20
    assert len(np.unique(first, axis=0)) == len(first)
    for _ in range(3):
        assert selective_search(image, 128, "fast").tobytes() == first.tobytes()


def test_quality_finds_more_than_fast():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    assert len(selective_search(image, 128, "quality")) > len(selective_search(image, 128, "fast")) > 5


@pytest.mark.parametrize(("width", "height"), [(401, 300), (402, 333), (433, 401), (577, 431)])
def test_scaled_boxes_end_inside_or_exactly_at_the_edge(width: int, height: int):
    boxes = selective_search(scene(width, height, (100, 100, width, height)), 400).astype(np.float64)
    assert (boxes[:, 2:] <= (width, height)).all()
    short = (width, height) - boxes[:, 2:]
    assert ((short == 0) | (short > 0.5)).all()
