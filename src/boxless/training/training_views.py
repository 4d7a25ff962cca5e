"""What a network is trained on: views of the training images with their boxes, and their order."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from boxless.cached_dataset import CachedDataset
from boxless.errors import BoxlessError
from boxless.features import Item, Targets
from boxless.methods import Model
from boxless.structures import Dataset, IntArray, Sample
from boxless.training.fixed_maps import FixedMaps, compute_fixed_maps
from boxless.views import View

GIVEN_SHARE = 0.25
"""Least share of images with given boxes in an epoch: they are few and right, pseudo labels many and partly wrong."""


class TrainingViews(TorchDataset[Item]):
    """Views of the training images, by (row, view), with boxes to train on where the dataset has any.

    Args:
        data: the images.
        views: of each.
        averages_only: whether averages of the maps are enough: they are kept in memory, a few kilobytes an image, and
            each map is read once.
        fixed: what takes the place of the maps, where a part of the model is fixed.
    """

    def __init__(
        self, data: CachedDataset, views: Sequence[View], averages_only: bool, fixed: FixedMaps | None = None
    ) -> None:
        self.data = data
        self.views = views
        self.fixed = fixed
        # One tensor for all, (views, images, channels), NaN where a map was not yet read: many small ones, allocated
        # between maps, would fragment the heap, and memory would grow by gigabytes.
        self.averages: Tensor | None = None
        self.averages_only = averages_only
        self.image_labels = torch.from_numpy(data.dataset.image_labels())

    def __getitem__(self, index: tuple[int, int]) -> Item:
        row, view = index[0], self.views[index[1]]
        if self.averages_only:
            return Item(self._average(index)[:, None, None], (1, 1), image_labels=self.image_labels[row])
        sample, size = self.data.dataset.samples[row], self.data.sizes[row]
        boxes = None
        if self.data.proposals is not None:
            boxes = torch.from_numpy(view.boxes(self.data.proposals_of(row), *size))
        width, height = view.size(*size)
        targets = None if sample.annotations is None else _targets(sample, view, size, len(self.image_labels[row]))
        features = self.data.map(row, view) if self.fixed is None else self.fixed.load(self.data.keys[row], view)
        return Item(features, (height, width), boxes, self.image_labels[row], targets)

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> list[Item] | BoxlessError:
        """The items of a batch, as a loader asks for them.

        An error is returned: raised in a worker, it would come back with the worker's traceback in its text.
        """
        try:
            return [self[index] for index in indices]
        except BoxlessError as error:
            return error

    def _average(self, index: tuple[int, int]) -> Tensor:
        """The mean over a view's map, (C,)."""
        row, view = index
        if self.averages is None or self.averages[view, row, 0].isnan():
            features = self.data.map(row, self.views[view])
            if self.averages is None:
                self.averages = torch.full((len(self.views), len(self.data), len(features)), torch.nan)
            self.averages[view, row] = features.float().mean(dim=(1, 2))
        return self.averages[view, row]


def training_views(model: Model, data: CachedDataset, views: Sequence[View], folder: Path) -> TrainingViews:
    """What a model is trained on; what its fixed part makes of the maps is computed in the folder.

    Raises:
        BoxlessError: a feature map is lost, or the disk is full.
    """
    fixed = None if model.fixed_part is None else compute_fixed_maps(model.fixed_part, data, views, folder)
    return TrainingViews(data, views, model.needs_averages_only, fixed)


def _targets(sample: Sample, view: View, size: tuple[int, int], classes: int) -> Targets:
    assert sample.annotations is not None
    boxes = view.boxes(sample.annotations.boxes, *size)
    targets = Targets(*map(torch.from_numpy, (boxes, sample.annotations.labels, sample.annotations.ignore)))
    if not sample.complete:
        return targets
    complete = torch.zeros(classes, dtype=torch.bool)
    complete[list(sample.complete)] = True
    return targets._replace(complete=complete)


def epoch_rows(dataset: Dataset) -> IntArray:
    """Rows of the images of one epoch: all, and those with given boxes again until they are `GIVEN_SHARE` of it."""
    given = [row for row, sample in enumerate(dataset.samples) if sample.given is not None and sample.given.labels]
    others = len(dataset) - len(given)
    wanted = math.ceil(others * GIVEN_SHARE / (1 - GIVEN_SHARE))
    again = np.resize(np.array(given, np.int64), max(wanted - len(given), 0)) if given else np.zeros(0, np.int64)
    return np.concatenate([np.arange(len(dataset)), again])


class TrainingOrder(Sampler[tuple[int, int]]):
    """The order of images and their views, drawn from seed and epoch alone, so that a resumed run continues the same.

    Args:
        rows: of the images, see `epoch_rows`.
        views: number of them.
        seed: of the run.
    """

    def __init__(self, rows: IntArray, views: int, seed: int) -> None:
        self.rows, self.views, self.seed = rows, views, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        rows, views = random.permutation(self.rows), random.integers(self.views, size=len(self.rows))
        return zip(rows.tolist(), views.tolist(), strict=True)
