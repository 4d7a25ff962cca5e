"""Concrete DropBlock: drops the most discriminative parts of regions in training (MIST; Ren et al., CVPR 2020)."""

from torch import Tensor, nn
from torch.distributions import RelaxedBernoulli

MAX_SHARE = 0.3
"""Largest share of a region to drop (MIST, section 4.2, tau; the authors' settings)."""
BLOCK = 3
"""Side of a dropped block in cells (the authors' settings)."""
TEMPERATURE = 0.01
"""Temperature of the Concrete distribution (the authors' code)."""
REVERSED = 1e-4
"""Factor of the reversed gradient: the authors' weight of 0.01, and a hundredth of the learning rate."""


class ConcreteDropBlock(nn.Module):
    """Zeroes blocks of pooled regions in training, where a small network predicts them (MIST, section 4.2).

    That network is trained to raise the losses that the rest is trained to lower, so the detector has to classify an
    object by all of it. The dropped blocks are drawn from a Concrete distribution (Maddison, Mnih, Teh, ICLR 2017),
    through which gradients flow; there they are reversed (Ganin and Lempitsky, ICML 2015), so that one optimizer does
    both. The remaining cells are scaled up to keep the mean, as in DropBlock (Ghiasi, Lin, Le, NeurIPS 2018, algorithm
    1). No gradient of the small network reaches the regions.

    Args:
        channels: of the pooled regions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 3, padding=1, bias=False),
            nn.BatchNorm2d(1),
        )
        self.shallow = nn.Conv2d(channels, 1, 1, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, regions: Tensor) -> Tensor:
        """Pooled regions (N, C, side, side) with blocks of zeros; in evaluation mode as they are."""
        if not self.training or not len(regions):
            return regions
        kept = 1 - self.blocks(self.odds(regions.detach()))
        return regions * kept * (kept.numel() / kept.sum().clamp(min=1))

    def odds(self, regions: Tensor) -> Tensor:
        """Probability that a block is dropped around each cell: (N, 1, side, side), at most `MAX_SHARE` / `BLOCK`^2."""
        logits: Tensor = self.deep(regions) + self.shallow(regions)
        return logits.float().sigmoid() * (MAX_SHARE / BLOCK**2)

    def blocks(self, odds: Tensor) -> Tensor:
        """Draw the cells that are dropped, 1 or 0: (N, 1, side, side); the gradient of the odds is reversed."""
        soft = RelaxedBernoulli(odds.new_tensor(TEMPERATURE), probs=odds).rsample()
        grown = nn.functional.max_pool2d(soft, BLOCK, stride=1, padding=BLOCK // 2)
        # Straight-through estimator: ones and zeros forward, the gradient of the relaxed sample backward.
        return (grown > 0.5).to(grown.dtype) + REVERSED * (grown.detach() - grown)
