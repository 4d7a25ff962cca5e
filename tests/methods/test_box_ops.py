import math

import pytest
import torch
from torchvision.ops import box_iou

from boxless.methods.box_ops import areas, chance_iou, clip_boxes, decode, encode, mirror_boxes, paired_iou

SIZE = torch.tensor([80, 100])
"""Height and width."""
BOXES = torch.tensor([[0.0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]])
"""IoU with the first: 1, 0.818, 0, 0.2, 0.143."""


def test_areas_and_paired_iou_by_hand():
    assert areas(BOXES).tolist() == [1600, 1600, 1600, 8000, 1600]
    ious = paired_iou(BOXES[:1].expand(5, 4), BOXES)
    torch.testing.assert_close(ious, torch.tensor([1, 36 / 44, 0, 0.2, 10 / 70]))


def test_boxes_are_clipped_to_the_view():
    boxes = torch.tensor([[-5.0, -1, 120, 90], [10, 20, 30, 40], [110, 85, 120, 90]])
    expected = torch.tensor([[0.0, 0, 100, 80], [10, 20, 30, 40], [100, 80, 100, 80]])
    assert torch.equal(clip_boxes(boxes, SIZE), expected)


def test_mirroring_twice_changes_nothing():
    assert mirror_boxes(BOXES, 100)[1].tolist() == [56, 0, 96, 40]
    assert torch.equal(mirror_boxes(mirror_boxes(BOXES, 100), 100), BOXES)


def test_deltas_by_hand():
    # A box of 40 x 40 about (20, 20) onto one of 80 x 20 about (60, 40): shifts of 1 and 0.5 sides, factors 2 and 1/2.
    deltas = encode(BOXES[:1], torch.tensor([[20.0, 30, 100, 50]]))
    torch.testing.assert_close(deltas, torch.tensor([[10, 5, math.log(2) / 0.2, -math.log(2) / 0.2]]))


def test_decoding_inverts_encoding_and_stays_within_the_view():
    targets = torch.tensor([[10.0, 5, 40, 50]]).expand(5, 4)
    torch.testing.assert_close(decode(BOXES, encode(BOXES, targets), SIZE), targets)
    assert decode(BOXES, torch.full((5, 4), 100.0), SIZE).amax(0).tolist() == [100, 80, 100, 80]
    torch.testing.assert_close(decode(BOXES, torch.zeros(5, 4), SIZE), BOXES)


def test_no_box_grows_more_than_fourfold():
    one = torch.tensor([[48.0, 38, 52, 42]])
    (found,) = decode(one, torch.tensor([[0.0, 0, 1e6, -1e6]]), SIZE)
    torch.testing.assert_close(found[2:] - found[:2], torch.tensor([4 * math.exp(1.4), 4 * math.exp(-1.4)]))


def test_chance_iou_is_the_mean_with_the_boxes_of_other_rows():
    random = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 7, 2, generator=random)
    boxes, others = (torch.cat([part, part + 0.3], dim=1) for part in corners)
    overlaps = box_iou(boxes, others)
    expected = [(overlaps[row].sum() - overlaps[row, row]) / 6 for row in range(7)]
    torch.testing.assert_close(chance_iou(boxes, others), torch.stack(expected))


def test_chance_iou_of_many_rows_compares_some_of_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.methods.box_ops.CHANCE_ROWS", 3)
    boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(9, 1)
    others = boxes * torch.tensor([1, 0.5, 1, 1, 1, 0.5, 1, 1, 1])[:, None]
    # Rows 0, 3 and 6 are compared, but never a row with itself.
    others[[0, 3, 6]] = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 0.25, 1]])
    expected = [0.375, 1.75 / 3, 1.75 / 3, 0.625, 1.75 / 3, 1.75 / 3, 0.75, 1.75 / 3, 1.75 / 3]
    torch.testing.assert_close(chance_iou(boxes, others), torch.tensor(expected))
