import pytest
import torch
from torch import nn

from boxless.methods.drop_block import BLOCK, MAX_SHARE, ConcreteDropBlock


def with_constant_odds(odds: float, channels: int = 4) -> ConcreteDropBlock:
    """A module that drops a block around each cell with this probability, whatever the regions are."""
    torch.manual_seed(0)
    module = ConcreteDropBlock(channels).train()
    last = module.deep[-1]
    assert isinstance(last, nn.BatchNorm2d)
    # The logits are then the bias of the last layer.
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, torch.tensor(odds / (MAX_SHARE / BLOCK**2)).logit().item())
    nn.init.zeros_(module.shallow.weight)
    return module


def test_nothing_is_dropped_in_evaluation_mode_or_without_regions():
    regions = torch.rand(3, 4, 7, 7)
    assert ConcreteDropBlock(4).eval()(regions) is regions
    assert ConcreteDropBlock(4).train()(regions[:0]).shape == (0, 4, 7, 7)


def test_whole_blocks_of_all_channels_are_dropped_and_the_mean_is_kept():
    dropped = with_constant_odds(0.02)(torch.ones(40, 4, 7, 7))
    gone = dropped == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    zeros = gone[:, :1].float()
    # Every cell that is gone lies in a block of 3 x 3 cells (clipped at the edge) that is gone.
    around = 1 - nn.functional.max_pool2d(1 - zeros, 3, stride=1, padding=1)
    assert torch.equal(nn.functional.max_pool2d(around, 3, stride=1, padding=1), zeros)
    assert dropped.mean().item() == pytest.approx(1)
    assert dropped.unique().tolist() == [0, pytest.approx(1 / (1 - zeros.mean().item()))]


@pytest.mark.parametrize("odds", [0.01, 0.033])
def test_a_cell_is_dropped_with_the_probability_of_any_of_the_blocks_around_it(odds: float):
    share = (with_constant_odds(odds, 1)(torch.ones(4000, 1, 7, 7))[:, 0, 3, 3] == 0).float().mean().item()
    assert share == pytest.approx(1 - (1 - odds) ** 9, abs=0.02)


def test_at_most_three_tenths_of_a_region_are_to_be_dropped():
    module = ConcreteDropBlock(4).train()
    odds = module.odds(1000 * torch.randn(8, 4, 7, 7))
    assert odds.shape == (8, 1, 7, 7)
    assert odds.max().item() == pytest.approx(0.3 / 9)


def test_the_gradient_of_the_odds_is_reversed():
    torch.manual_seed(0)
    module = ConcreteDropBlock(4)
    odds = torch.full((500, 1, 5, 5), 0.03, requires_grad=True)
    # A loss that grows with what is dropped: its own gradient would be positive.
    module.blocks(odds).sum().backward()
    assert odds.grad is not None and odds.grad.sum() < 0


def test_training_drops_the_cells_that_lower_the_loss_most():
    torch.manual_seed(0)
    module = ConcreteDropBlock(4).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    # Only the cells in the middle lower the loss of the detector.
    regions = torch.rand(256, 4, 7, 7) * 0.1
    regions[:, :, 2:5, 2:5] += 1
    weights = torch.zeros(7, 7)
    weights[2:5, 2:5] = 1
    for _ in range(60):
        optimizer.zero_grad()
        loss = -(module(regions) * weights).mean()
        loss.backward()
        optimizer.step()
    odds = module.odds(regions).mean(dim=(0, 1))
    assert odds[3, 3] > 2 * odds[0, 0]


def test_gradients_reach_regions_only_where_they_are_kept():
    regions = torch.ones(10, 4, 7, 7, requires_grad=True)
    dropped = with_constant_odds(0.02)(regions)
    dropped.sum().backward()
    assert regions.grad is not None
    assert torch.equal(regions.grad == 0, dropped == 0)
