import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boxless.methods.heads import MILHead, average_regions, context_regions, fully_connected, mask_region, pool_regions


def rounded(value: float) -> int:
    """C's `round`: halves away from zero."""
    return math.floor(value + 0.5)


def slow_pool(features: Tensor, box: list[float], stride: int, side: int) -> Tensor:
    """Fast R-CNN's RoI pooling of one box, written from its description: (C, H, W) -> (C, side, side).

    The box's first and last pixel are rounded to cells, both counted in; every bin takes the maximum of the cells that
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


def drawn_boxes(number: int, width: int, height: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, width, (number, 2))), np.sort(rng.uniform(0, height, (number, 2)))
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], axis=1)
    return torch.from_numpy(boxes.clip(0, [width, height] * 2).astype(np.float32))


# RoI pooling.


@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("stride", [8, 16])
def test_pooling_equals_a_slow_one(side: int, stride: int):
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 9, 12)
    boxes = [drawn_boxes(40, 12 * stride, 9 * stride), drawn_boxes(25, 12 * stride, 9 * stride, seed=1)]
    pooled = pool_regions(maps, boxes, stride, side)
    assert pooled.shape == (65, 4, side, side)
    wanted = [slow_pool(row, box, stride, side) for row, view in zip(maps, boxes, strict=True) for box in view.tolist()]
    torch.testing.assert_close(pooled, torch.stack(wanted), rtol=0, atol=0)


def test_the_right_and_bottom_of_a_box_are_exclusive():
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
    assert pool_regions(maps, [boxes], 16, 1).flatten().tolist() == [5, 10, 5, 9]


def test_bins_of_a_pooled_box_are_its_quarters():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = pool_regions(maps, [torch.tensor([[0.0, 0, 56, 56]])], 16, 2)
    assert pooled.flatten().tolist() == [5, 7, 13, 15]


def test_every_view_is_pooled_from_its_own_map():
    maps = torch.stack([torch.full((1, 4, 4), value) for value in (1.0, 2.0, 3.0)])
    box = torch.tensor([[0.0, 0, 40, 40]])
    pooled = pool_regions(maps, [box, box.repeat(2, 1), box], 16, 1)
    assert pooled.flatten().tolist() == [1, 2, 2, 3]


def test_gradients_reach_the_maximum_alone():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    pool_regions(maps, [torch.tensor([[0.0, 0, 40, 24]])], 16, 1).sum().backward()
    assert maps.grad is not None
    assert maps.grad.nonzero().tolist() == [[0, 0, 1, 2]]


# Averages over exact regions.


def literal_grid(features: NDArray[np.float64], box: list[float], side: int) -> NDArray[np.float64]:
    """Means over the cells of a grid on a box in cells of a map (C, h, w), every cell as far as it is covered."""
    left, top, right, bottom = box
    wide, high = (right - left) / side, (bottom - top) / side
    found = np.zeros((len(features), side, side))
    for row in range(side):
        for column in range(side):
            x1, y1 = left + column * wide, top + row * high
            for y in range(features.shape[1]):
                for x in range(features.shape[2]):
                    covered = max(0, min(x1 + wide, x + 1) - max(x1, x)) * max(0, min(y1 + high, y + 1) - max(y1, y))
                    found[:, row, column] += features[:, y, x] * covered / (wide * high)
    return found


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_grid_of_averages_equals_a_literal_loop(side: int):
    torch.manual_seed(side)
    maps, boxes = torch.randn(3, 5, 7), drawn_boxes(30, 7 * 16, 5 * 16)
    # Within a cell, on its edges, and the whole map.
    boxes = torch.cat([boxes, torch.tensor([[17.0, 18, 29, 27], [16, 16, 32, 48], [0, 0, 112, 80]])])
    around = context_regions(boxes, torch.tensor([80, 112]))
    regions, surroundings = average_regions([maps], [boxes], [around], 16, side)
    assert regions.shape == (33, side, side, 3) and surroundings.shape == (33, 3)
    features = maps.double().numpy()
    wanted = [literal_grid(features, (box / 16).tolist(), side) for box in boxes.double()]
    np.testing.assert_allclose(regions.permute(0, 3, 1, 2), np.stack(wanted), atol=2e-3)
    pairs = torch.stack([boxes, around], dim=1).double() / 16
    for row, (box, frame) in enumerate(pairs.tolist()):
        own, whole = ((one[2] - one[0]) * (one[3] - one[1]) for one in (box, frame))
        inside, outside = (literal_grid(features, one, 1)[:, 0, 0] for one in (box, frame))
        beyond = (outside * whole - inside * own) / max(whole - own, 0.5)
        np.testing.assert_allclose(surroundings[row], beyond, atol=2e-3)


def test_a_mirrored_map_has_the_mirrored_grid():
    torch.manual_seed(0)
    maps, boxes = torch.randn(4, 6, 9), drawn_boxes(40, 9 * 16, 6 * 16)
    other = torch.stack([144 - boxes[:, 2], boxes[:, 1], 144 - boxes[:, 0], boxes[:, 3]], dim=1)
    size = torch.tensor([96, 144])
    plain, around = average_regions([maps], [boxes], [context_regions(boxes, size)], 16, 3)
    turned, beyond = average_regions([maps.flip(2)], [other], [context_regions(other, size)], 16, 3)
    torch.testing.assert_close(turned, plain.flip(2), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(beyond, around, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(turned, plain, atol=0.1)


def test_averages_pass_their_gradient_on_to_the_cells_they_cover():
    maps = torch.zeros(1, 4, 4, requires_grad=True)
    # Half of cell (0, 1) and half of cell (0, 2), all of the two below them.
    regions, _ = average_regions([maps], [torch.tensor([[16.0, 8, 48, 32]])], [torch.tensor([[0.0, 0, 64, 64]])], 16)
    regions.sum().backward()
    assert maps.grad is not None
    wanted = torch.zeros(1, 4, 4)
    wanted[0, 0, 1:3], wanted[0, 1, 1:3] = 1 / 6, 1 / 3
    torch.testing.assert_close(maps.grad, wanted)


# Frames.


def test_frames_are_grown_about_the_centre_and_cut_to_the_view():
    boxes = torch.tensor(
        [
            [40.0, 30, 60, 50],  # 20 x 20 about (50, 40): 36 x 36
            [0, 0, 20, 40],  # cut at the left and top: 36 x 72 about (10, 20)
            [80, 60, 100, 80],  # cut at the right and bottom
            [0, 0, 100, 80],  # the whole view
        ]
    )
    wanted = torch.tensor([[32.0, 22, 68, 58], [0, 0, 28, 56], [72, 52, 100, 80], [0, 0, 100, 80]])
    torch.testing.assert_close(context_regions(boxes, torch.tensor([80, 100])), wanted)


@pytest.mark.parametrize(
    ("side", "ring"),
    [
        # The region is 1/1.8 of the frame's side: 1.67, 2.78, 3.89 cells, to the nearest of the grid's own parity.
        (3, ["111", "101", "111"]),
        (5, ["11111", "10001", "10001", "10001", "11111"]),
        (7, ["1111111", "1111111", "1100011", "1100011", "1100011", "1111111", "1111111"]),
        (4, ["1111", "1001", "1001", "1111"]),
        (6, ["111111", "100001", "100001", "100001", "100001", "111111"]),
    ],
)
def test_hollow_zeroes_the_middle(side: int, ring: list[str]):
    torch.manual_seed(0)
    pooled = torch.rand(2, 3, side, side) + 1
    mask = torch.tensor([[float(cell) for cell in row] for row in ring])
    assert torch.equal(mask_region(pooled), pooled * mask)


# Hidden layers.


def test_hidden_layers_are_linear_relu_and_dropout():
    torch.manual_seed(0)
    trunk = fully_connected(12, (5, 4), 0.5).eval()
    regions = torch.randn(6, 3, 2, 2)
    first, second = (layer for layer in trunk if isinstance(layer, nn.Linear))
    wanted = (regions.flatten(1) @ first.weight.T + first.bias).clamp(min=0)
    wanted = (wanted @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(trunk(regions), wanted)
    # In training half of the features are dropped, after every layer.
    assert sum(isinstance(layer, nn.Dropout) and layer.p == 0.5 for layer in trunk) == 2
    trunk.train()
    assert not torch.equal(trunk(regions), trunk(regions))


# The two streams.


def softmax(logits: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


def linear(layer: nn.Linear, features: Tensor) -> NDArray[np.float64]:
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return np.asarray(features.numpy().astype(np.float64) @ layer.weight.detach().numpy().T + bias)


@pytest.fixture
def head() -> MILHead:
    """A head with weights that are far from zero."""
    torch.manual_seed(0)
    head = MILHead(6, 3, 2.0)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def test_scores_are_the_product_of_two_softmaxes(head: MILHead):
    regions = torch.randn(9, 6)
    scores = head(regions, None, [4, 5])
    assert [view.shape for view in scores] == [(4, 3), (5, 3)]
    for view, rows in zip(scores, (slice(0, 4), slice(4, 9)), strict=True):
        which_class = softmax(linear(head.classify, regions[rows]), axis=1)
        which_region = softmax(linear(head.detect, regions[rows]) / 2, axis=0)
        np.testing.assert_allclose(view.detach().numpy(), which_class * which_region, rtol=1e-5)
        assert (view.sum(dim=0) <= 1 + 1e-6).all()
        assert (view > 0).all()


def test_the_classification_stream_compares_classes_and_the_detection_stream_proposals(head: MILHead):
    regions = torch.randn(4, 6)
    before = head(regions, None, [4])[0]
    with torch.no_grad():
        head.classify.weight.zero_()
        head.classify.bias.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
    # Each proposal's classes are 1/8, 2/8 and 5/8; what is left is the share of each proposal in its class.
    shares = head(regions, None, [4])[0] / torch.tensor([1 / 8, 2 / 8, 5 / 8])
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(3))
    with torch.no_grad():
        head.detect.weight.zero_()
    flat = head(regions, None, [4])[0]
    torch.testing.assert_close(flat, torch.tensor([[1 / 8, 2 / 8, 5 / 8]]).repeat(4, 1) / 4)
    assert not torch.allclose(before, flat)


def test_views_do_not_touch_each_other(head: MILHead):
    regions = torch.randn(9, 6)
    together = head(regions, None, [4, 5])
    torch.testing.assert_close(together[0], head(regions[:4], None, [4])[0])
    torch.testing.assert_close(together[1], head(regions[4:], None, [5])[0])


def test_the_surroundings_are_subtracted_in_the_detection_stream_alone(head: MILHead):
    regions, surroundings = torch.randn(5, 6), torch.randn(5, 6)
    (scores,) = head(regions, surroundings, [5])
    which_class = softmax(linear(head.classify, regions), axis=1)
    contrast = linear(head.detect, regions) - linear(head.detect, surroundings)
    np.testing.assert_allclose(scores.detach().numpy(), which_class * softmax(contrast / 2, axis=0), rtol=1e-5)
    # A region that looks like its surroundings does not stand out: all proposals are alike.
    (alike,) = head(regions, regions, [5])
    np.testing.assert_allclose(alike.detach().numpy(), which_class / 5, rtol=1e-5)


def test_the_temperature_divides_the_detection_logits(head: MILHead):
    regions = torch.randn(5, 6)
    (warm,) = head(regions, None, [5])
    with torch.no_grad():
        head.detect.weight *= 2
    head.temperature = 4.0
    torch.testing.assert_close(head(regions, None, [5])[0], warm)


def test_new_layers_are_small():
    torch.manual_seed(0)
    head = MILHead(512, 20, 2.0)
    for layer in (head.classify, head.detect):
        assert 0.009 < layer.weight.std() < 0.011
        assert layer.bias is None or not layer.bias.any()


def test_scores_are_in_single_precision_whatever_the_features(head: MILHead):
    (scores,) = head.half()(torch.randn(5, 6).half(), None, [5])
    assert scores.dtype == torch.float32
