import math

import torch

from boxless.methods.box_ops import decode, encode, mirror_boxes, paired_iou

SIZE = torch.tensor([80, 100])
"""Height and width."""
BOXES = torch.tensor([[0.0, 0, 40, 40], [4, 0, 44, 40], [60, 40, 100, 80], [0, 0, 100, 80], [30, 0, 70, 40]])
"""IoU with the first: 1, 0.818, 0, 0.2, 0.143."""


def test_paired_iou_by_hand():
    ious = paired_iou(BOXES[:1].expand(5, 4), BOXES)
    torch.testing.assert_close(ious, torch.tensor([1, 36 / 44, 0, 0.2, 10 / 70]))


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
