"""What detectors that boxes teach have in common: what describes a cell, and who says what is in an image."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import LocalizerConfig
from boxless.features import Batch
from boxless.methods.cam import Localizer
from boxless.methods.heads import cell_rms, unit_rms
from boxless.methods.outputs import ViewOutput

IMAGE_SCORE_POWER = 0.25
"""Power of how likely the class is in the image: of few images the localizer learns the tags by heart, and the head
is the better judge of others (docs/experiments.md)."""


class PCA(nn.Module):
    """Principal components of the cells of maps, of one magnitude, fitted once and then fixed.

    Args:
        channels: of the maps that describe a cell together; its part of each is scaled to the same magnitude first.
        components: how many are kept; the first has a variance of one.
    """

    def __init__(self, channels: Sequence[int], components: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        total = sum(channels)
        components = min(components, total)
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("components", torch.eye(total)[:components].clone())
        self.mean: Tensor
        self.components: Tensor

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The components of `unit_rms`d maps, each (C, h, w), of cells of any magnitude: (components, h, w)."""
        found = -(self.components @ self.mean)[:, None]
        for own, weights in zip(maps, torch.split(self.components, list(self.channels), dim=1), strict=True):
            # A cell's scale is the same for all its channels: applied to the few that come out, no map is copied.
            found = found + weights @ own.flatten(1) / cell_rms(own).flatten()
        return found.view(-1, *maps[0].shape[1:])

    def fit(self, total: Tensor, products: Tensor, number: int) -> None:
        """Fit to `number` cells from their sum (C,) and the sum of their outer products (C, C)."""
        mean = total.double() / number
        values, vectors = torch.linalg.eigh(products.double() / number - torch.outer(mean, mean))
        kept = vectors.flip(1)[:, : len(self.components)] / values[-1].clamp(min=1e-12).sqrt()
        self.mean.copy_(mean)
        self.components.copy_(kept.T)


class BoxSupervisedDetector(nn.Module):
    """The part of a detector that is the same whichever head the boxes teach.

    The network below is frozen, so all that is learned beside the head is learned before it: a localizer that says how
    likely each class is in the image and has its heatmap, and the principal components of the cells of hypercolumns.

    Args:
        backbone: for channels and stride; its maps come as hypercolumns.
        components: how many are kept of the last map, and of the earlier ones together.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, components: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.tail = nn.Sequential()
        self.stride, self.classes = backbone.stride, classes
        self.channels = (backbone.channels, *backbone.level_channels)
        early = backbone.level_channels[0]
        self.localizer = Localizer(nn.Sequential(), backbone.channels, LocalizerConfig(objectness=True), classes, early)
        self.last = PCA(self.channels[:1], components[0])
        self.earlier = PCA(self.channels[1:], components[1])

    @property
    def out_channels(self) -> int:
        """How many numbers describe a cell."""
        return len(self.last.components) + len(self.earlier.components)

    def start_from(self, localizer: Localizer) -> None:
        """Take over a trained localizer, which says what is in an image and where; it is not trained on."""
        self.localizer.load_state_dict(localizer.state_dict())
        self.localizer.requires_grad_(False)

    def follow(self, other: "BoxSupervisedDetector") -> None:
        """Take over another's localizer and principal components, of the same number; neither is fitted anew."""
        self.start_from(other.localizer)
        self.last.load_state_dict(other.last.state_dict())
        self.earlier.load_state_dict(other.earlier.state_dict())

    def first_opinions(self, batch: Batch) -> list[ViewOutput]:
        """What the localizer says of each view in evaluation mode: what is in it, and heatmaps."""
        found = self.localizer(batch)
        assert isinstance(found, list)
        return found

    def fit_pca(self, maps: Iterable[Tensor]) -> None:
        """Fit the principal components to maps (C, h, w)."""
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

    def project(self, view: Tensor) -> Tensor:
        """What the head reads of a map of hypercolumns: (C, h, w) -> (out_channels, h, w)."""
        last, *earlier = self._parts(view)
        # Nothing of it is learned, and differences of large numbers want all their digits.
        with torch.autocast(view.device.type, enabled=False):
            return torch.cat([self.last([last]), self.earlier(earlier)])

    def _parts(self, view: Tensor) -> tuple[Tensor, ...]:
        """The last map and the earlier ones, (C, h, w) each."""
        return torch.split(view.float(), list(self.channels))
