"""Principal components of map locations, fitted before training and then fixed."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from boxless.methods.layers import cell_rms, unit_rms


class PCA(nn.Module):
    """Projection of locations of unit RMS onto their principal components.

    Args:
        channels: of the maps that describe a location together; each is normalised to unit RMS on its own.
        dims: components kept; they are scaled so that the first has a variance of one.
    """

    def __init__(self, channels: Sequence[int], dims: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        total = sum(channels)
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("components", torch.eye(total)[: min(dims, total)].clone())
        self.mean: Tensor
        self.components: Tensor

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The components of maps (C, h, w), which are normalised here: (dims, h, w)."""
        found = -(self.components @ self.mean)[:, None]
        for own, weights in zip(maps, torch.split(self.components, list(self.channels), dim=1), strict=True):
            # The RMS of a location is the same for all its channels: dividing the few outputs saves a copy of the map.
            found = found + weights @ own.flatten(1) / cell_rms(own).flatten()
        return found.view(-1, *maps[0].shape[1:])

    def fit(self, total: Tensor, products: Tensor, number: int) -> None:
        """Fit to `number` locations from their sum (C,) and the sum of their outer products (C, C)."""
        mean = total.double() / number
        values, vectors = torch.linalg.eigh(products.double() / number - torch.outer(mean, mean))
        kept = vectors.flip(1)[:, : len(self.components)] / values[-1].clamp(min=1e-12).sqrt()
        self.mean.copy_(mean)
        self.components.copy_(kept.T)


class HypercolumnPCA(nn.Module):
    """Principal components of hypercolumns: of the last map, and of the earlier maps together.

    Args:
        channels: of the last map and of each earlier one.
        dims: components kept of the last map, and of the earlier maps together.
    """

    def __init__(self, channels: Sequence[int], dims: tuple[int, int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.last = PCA(self.channels[:1], dims[0])
        self.earlier = PCA(self.channels[1:], dims[1])

    @property
    def out_channels(self) -> int:
        """Channels after the projection."""
        return len(self.last.components) + len(self.earlier.components)

    def forward(self, view: Tensor) -> Tensor:
        """(C, h, w) -> (out_channels, h, w)."""
        last, *earlier = self._parts(view)
        # Differences of large numbers need full precision.
        with torch.autocast(view.device.type, enabled=False):
            return torch.cat([self.last([last]), self.earlier(earlier)])

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Fit to maps (C, h, w)."""
        sums: list[tuple[Tensor, Tensor]] = []
        number = 0
        for view in maps:
            last, *earlier = (unit_rms(part).flatten(1) for part in self._parts(view))
            parts = (last, torch.cat(earlier))
            own = [(cells.sum(dim=1), cells @ cells.T) for cells in parts]
            sums = own if not sums else [(a + c, b + d) for (a, b), (c, d) in zip(sums, own, strict=True)]
            number += last.shape[1]
        for projection, (total, products) in zip((self.last, self.earlier), sums, strict=True):
            projection.fit(total, products, number)

    def _parts(self, view: Tensor) -> tuple[Tensor, ...]:
        return torch.split(view.float(), list(self.channels))
