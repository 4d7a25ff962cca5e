"""RoIPool against a slow reference, exact averages against a fine raster, context regions worked out by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxless.methods.roi_pooling import context_regions, distinct_boxes, mask_region, roi_average_pool, roi_max_pool


def rounded(value: float) -> int:
    """C's `round`: halves away from zero."""
    return math.floor(value + 0.5)


def slow_max_pool(features: Tensor, box: list[float], stride: int, side: int) -> Tensor:
    """Fast R-CNN's RoI pooling of one box, written from its description: (C, H, W) -> (C, side, side).

    The box's first and last pixel are rounded to cells, both inclusive; every bin takes the maximum of the cells that
    it touches; a bin beyond the map is zero.
    """
    channels, rows, columns = features.shape
    left, top = rounded(box[0] / stride), rounded(box[1] / stride)
    right, bottom = rounded((box[2] - 1) / stride), rounded((box[3] - 1) / stride)
    width, height = max(right - left + 1, 1), max(bottom - top + 1, 1)
    pooled = torch.zeros(channels, side, side)
    for row in range(side):
        for column in range(side):
            first_y = min(max(top + math.floor(row * height / side), 0), rows)
            last_y = min(max(top + math.ceil((row + 1) * height / side), 0), rows)
            first_x = min(max(left + math.floor(column * width / side), 0), columns)
            last_x = min(max(left + math.ceil((column + 1) * width / side), 0), columns)
            cells = features[:, first_y:last_y, first_x:last_x]
            if cells.numel():
                pooled[:, row, column] = cells.amax(dim=(1, 2))
    return pooled


def random_boxes(number: int, width: int, height: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, width, (number, 2))), np.sort(rng.uniform(0, height, (number, 2)))
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], axis=1)
    return torch.from_numpy(boxes.clip(0, [width, height] * 2).astype(np.float32))


# RoI max pooling.


@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("stride", [8, 16])
def test_max_pooling_equals_a_slow_reference(side: int, stride: int):
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 9, 12)
    boxes = [random_boxes(40, 12 * stride, 9 * stride), random_boxes(25, 12 * stride, 9 * stride, seed=1)]
    pooled = roi_max_pool(maps, boxes, stride, side)
    assert pooled.shape == (65, 4, side, side)
    pairs = [(row, box) for row, view in zip(maps, boxes, strict=True) for box in view.tolist()]
    expected = torch.stack([slow_max_pool(row, box, stride, side) for row, box in pairs])
    torch.testing.assert_close(pooled, expected, rtol=0, atol=0)


def test_maps_of_any_precision_are_pooled_in_single_precision():
    maps, boxes = torch.randn(1, 4, 9, 12).bfloat16(), [random_boxes(10, 192, 144)]
    with torch.autocast("cpu", torch.bfloat16):
        pooled = roi_max_pool(maps, boxes, 16, 3)
    assert torch.equal(pooled, roi_max_pool(maps.float(), boxes, 16, 3)) and pooled.dtype == torch.float32


def slow_distinct(boxes: Tensor, stride: int) -> list[list[float]]:
    """The first box of each set of cells, in the order given."""
    first: dict[tuple[int, ...], list[float]] = {}
    for left, top, right, bottom in boxes.tolist():
        pixels = (left, top, right - 1, bottom - 1)
        first.setdefault(tuple(rounded(pixel / stride) for pixel in pixels), [left, top, right, bottom])
    return list(first.values())


@pytest.mark.parametrize("number", [0, 1, 30, 600])
@pytest.mark.parametrize("stride", [8, 16])
def test_boxes_on_the_same_cells_are_one(number: int, stride: int):
    boxes = random_boxes(number, 100, 80, seed=number)
    found = distinct_boxes(boxes, stride)
    assert found.tolist() == slow_distinct(boxes, stride)
    assert len(found) < number or number < 600
    assert torch.equal(distinct_boxes(found, stride), found)


def test_boxes_on_the_same_cells_have_the_same_features_and_others_have_others():
    torch.manual_seed(0)
    maps, boxes = torch.randn(1, 8, 5, 7), random_boxes(600, 100, 80)
    features = roi_max_pool(maps, [boxes], 16, 7).flatten(1).tolist()
    kept = roi_max_pool(maps, [distinct_boxes(boxes, 16)], 16, 7).flatten(1).tolist()
    assert {tuple(row) for row in features} == {tuple(row) for row in kept}
    assert len(kept) < len(features)


def test_right_and_bottom_of_a_box_are_exclusive():
    # A map of 4 x 4 cells of 16 pixels; every cell holds its own number.
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    boxes = torch.tensor(
        [
            [0.0, 0, 24, 24],  # its last pixel, 23, lies at 1.44: cells 0 to 1
            [0, 0, 25, 25],  # 24 lies at 1.5, which is rounded to 2
            [8, 8, 24, 24],  # its first pixel lies at 0.5, which is rounded to 1
            [16, 32, 24, 40],  # one cell
        ]
    )
    assert roi_max_pool(maps, [boxes], 16, 1).flatten().tolist() == [5, 10, 5, 9]


def test_bins_of_a_pooled_box_are_its_quarters():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = roi_max_pool(maps, [torch.tensor([[0.0, 0, 56, 56]])], 16, 2)
    assert pooled.flatten().tolist() == [5, 7, 13, 15]


def test_every_view_is_pooled_from_its_own_map():
    maps = [torch.full((1, 4, 4), 1.0), torch.full((1, 3, 5), 2.0), torch.full((1, 4, 4), 3.0)]
    box = torch.tensor([[0.0, 0, 40, 40]])
    assert roi_max_pool(maps, [box, box.repeat(2, 1), box], 16, 1).flatten().tolist() == [1, 2, 2, 3]


def test_the_gradient_reaches_the_maximum_alone():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    roi_max_pool(maps, [torch.tensor([[0.0, 0, 40, 24]])], 16, 1).sum().backward()
    assert maps.grad is not None
    assert maps.grad.nonzero().tolist() == [[0, 0, 1, 2]]


# Averages over exact regions.


def slow_grid(features: NDArray[np.float64], box: list[float], side: int) -> NDArray[np.float64]:
    """Means over the cells of a grid on a box, in cells of a map (C, h, w), every cell by the part that is covered."""
    left, top, right, bottom = box
    width, height = (right - left) / side, (bottom - top) / side
    found = np.zeros((len(features), side, side))
    for row in range(side):
        for column in range(side):
            x1, y1 = left + column * width, top + row * height
            for y in range(features.shape[1]):
                for x in range(features.shape[2]):
                    covered = max(0, min(x1 + width, x + 1) - max(x1, x)) * max(0, min(y1 + height, y + 1) - max(y1, y))
                    found[:, row, column] += features[:, y, x] * covered / (width * height)
    return found


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_grid_of_averages_equals_a_slow_reference(side: int):
    torch.manual_seed(side)
    maps, boxes = torch.randn(3, 5, 7), random_boxes(30, 7 * 16, 5 * 16)
    # Within a cell, on its edges, and the whole map.
    boxes = torch.cat([boxes, torch.tensor([[17.0, 18, 29, 27], [16, 16, 32, 48], [0, 0, 112, 80]])])
    context = context_regions(boxes, torch.tensor([80, 112]))
    regions, contexts = roi_average_pool([maps], [boxes], [context], 16, side)
    assert regions.shape == (33, side, side, 3) and contexts.shape == (33, 3)
    features = maps.double().numpy()
    expected = [slow_grid(features, (box / 16).tolist(), side) for box in boxes.double()]
    np.testing.assert_allclose(regions.permute(0, 3, 1, 2), np.stack(expected), atol=2e-3)
    pairs = torch.stack([boxes, context], dim=1).double() / 16
    for row, (box, grown) in enumerate(pairs.tolist()):
        own, whole = ((one[2] - one[0]) * (one[3] - one[1]) for one in (box, grown))
        inside, outside = (slow_grid(features, one, 1)[:, 0, 0] for one in (box, grown))
        beyond = (outside * whole - inside * own) / max(whole - own, 0.5)
        np.testing.assert_allclose(contexts[row], beyond, atol=2e-3)


def raster_mean(features: Tensor, box: list[float], without: list[float] | None) -> Tensor:
    """The mean of a map (C, H, W) of stride 16 over a box, without another inside it, pixel by pixel."""
    fine = features.repeat_interleave(16, 1).repeat_interleave(16, 2)
    mask = torch.zeros(fine.shape[1:], dtype=torch.bool)
    for part, value in ((box, True), (without, False)):
        if part is not None:
            left, top, right, bottom = map(int, part)
            mask[top:bottom, left:right] = value
    return fine[:, mask].mean(dim=1)


def test_averages_of_several_views_are_exact_for_corners_within_cells():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 6)
    inner = [torch.tensor([[10.0, 20, 30, 70], [32, 16, 33, 17]]), torch.tensor([[0.0, 0, 90, 75]])]
    outer = [torch.tensor([[2.0, 8, 50, 80], [20, 4, 60, 40]]), torch.tensor([[0.0, 0, 96, 80]])]
    regions, contexts = roi_average_pool(maps, inner, outer, 16)
    rows = [(0, inner[0][0], outer[0][0]), (0, inner[0][1], outer[0][1]), (1, inner[1][0], outer[1][0])]
    for number, (view, box, grown) in enumerate(rows):
        expected = raster_mean(maps[view], box.tolist(), None)
        torch.testing.assert_close(regions[number, 0, 0], expected, rtol=1e-3, atol=1e-3)
        expected = raster_mean(maps[view], grown.tolist(), box.tolist())
        torch.testing.assert_close(contexts[number], expected, rtol=1e-3, atol=1e-3)


def test_a_region_that_fills_its_context_region_has_zeros_for_context():
    whole = torch.tensor([[0.0, 0, 64, 48]])
    _, contexts = roi_average_pool(torch.randn(1, 3, 3, 4), [whole], [whole], 16)
    torch.testing.assert_close(contexts, torch.zeros(1, 3))


def test_a_mirrored_map_has_the_mirrored_grid():
    torch.manual_seed(0)
    maps, boxes = torch.randn(4, 6, 9), random_boxes(40, 9 * 16, 6 * 16)
    other = torch.stack([144 - boxes[:, 2], boxes[:, 1], 144 - boxes[:, 0], boxes[:, 3]], dim=1)
    size = torch.tensor([96, 144])
    plain, context = roi_average_pool([maps], [boxes], [context_regions(boxes, size)], 16, 3)
    mirrored, other_context = roi_average_pool([maps.flip(2)], [other], [context_regions(other, size)], 16, 3)
    torch.testing.assert_close(mirrored, plain.flip(2), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(other_context, context, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(mirrored, plain, atol=0.1)


def test_the_gradient_of_an_average_reaches_the_cells_that_the_box_covers():
    maps = torch.zeros(1, 4, 4, requires_grad=True)
    # Half of cell (0, 1) and half of cell (0, 2), all of the two below them.
    regions, _ = roi_average_pool([maps], [torch.tensor([[16.0, 8, 48, 32]])], [torch.tensor([[0.0, 0, 64, 64]])], 16)
    regions.sum().backward()
    assert maps.grad is not None
    expected = torch.zeros(1, 4, 4)
    expected[0, 0, 1:3], expected[0, 1, 1:3] = 1 / 6, 1 / 3
    torch.testing.assert_close(maps.grad, expected)


# Context regions.


def test_context_regions_are_grown_about_the_centre_and_clipped_to_the_view():
    boxes = torch.tensor(
        [
            [40.0, 30, 60, 50],  # 20 x 20 about (50, 40): 36 x 36
            [0, 0, 20, 40],  # clipped at the left and top: 36 x 72 about (10, 20)
            [80, 60, 100, 80],  # clipped at the right and bottom
            [0, 0, 100, 80],  # the whole view
        ]
    )
    expected = torch.tensor([[32.0, 22, 68, 58], [0, 0, 28, 56], [72, 52, 100, 80], [0, 0, 100, 80]])
    torch.testing.assert_close(context_regions(boxes, torch.tensor([80, 100])), expected)


@pytest.mark.parametrize(
    ("side", "mask"),
    [
        # The region has 1/1.8 of the context region's side: 1.67, 2.78, 3.89 cells, rounded to the grid's parity.
        (3, ["111", "101", "111"]),
        (5, ["11111", "10001", "10001", "10001", "11111"]),
        (7, ["1111111", "1111111", "1100011", "1100011", "1100011", "1111111", "1111111"]),
        (4, ["1111", "1001", "1001", "1111"]),
        (6, ["111111", "100001", "100001", "100001", "100001", "111111"]),
    ],
)
def test_the_cells_of_the_region_are_masked_in_its_context_region(side: int, mask: list[str]):
    torch.manual_seed(0)
    pooled = torch.rand(2, 3, side, side) + 1
    kept = torch.tensor([[float(cell) for cell in row] for row in mask])
    assert torch.equal(mask_region(pooled), pooled * kept)
