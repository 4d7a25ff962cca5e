"""A dataset with its proposals and feature maps in the caches: what training and evaluation read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from boxless.config import ProposalConfig
from boxless.distributed import on_main_process
from boxless.errors import BoxlessError
from boxless.features import FeatureStore
from boxless.images import content_keys, image_size, skip_copies
from boxless.logs import log_skipped
from boxless.proposals.store import ProposalStore
from boxless.structures import Annotations, Dataset, FloatArray, IntArray
from boxless.views import View


@dataclass(frozen=True)
class CachedDataset:
    """A dataset whose images can all be read, with cached proposals and feature maps.

    Args:
        dataset: without the images that were skipped.
        keys: content key of every sample.
        sizes: width and height of every image in pixels.
        features: feature maps by key and view.
        proposals: by key, or None for methods without.
        skipped: images that could not be read -> reason.
        seconds: stage -> time it took.
    """

    dataset: Dataset
    keys: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    features: FeatureStore
    proposals: ProposalStore | None
    skipped: dict[Path, str]
    seconds: dict[str, float]

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, rows: Sequence[int]) -> "CachedDataset":
        """Only these images; none of them was skipped or has to be computed."""
        return replace(
            self,
            dataset=replace(self.dataset, samples=tuple(self.dataset.samples[row] for row in rows)),
            keys=tuple(self.keys[row] for row in rows),
            sizes=tuple(self.sizes[row] for row in rows),
            skipped={},
            seconds={},
        )

    def with_boxes(self, boxes: Sequence[Annotations]) -> "CachedDataset":
        """The same images with these boxes, one set an image."""
        pairs = zip(self.dataset.samples, boxes, strict=True)
        samples = tuple(replace(sample, annotations=own) for sample, own in pairs)
        return replace(self, dataset=replace(self.dataset, samples=samples))

    def with_each(self, sets: Sequence[Sequence[Annotations]]) -> "CachedDataset":
        """These images once for every set of boxes, of which there is at least one."""
        first, *others = map(self.with_boxes, sets)
        for other in others:
            first = first.joined(other)
        return first

    def tags_only(self) -> "CachedDataset":
        """The same images without boxes and proposals."""
        return replace(self, dataset=self.dataset.tags_only(), proposals=None, skipped={}, seconds={})

    def joined(self, other: "CachedDataset") -> "CachedDataset":
        """These images and others of the same classes, from the same caches."""
        return replace(
            self,
            dataset=replace(self.dataset, samples=self.dataset.samples + other.dataset.samples),
            keys=self.keys + other.keys,
            sizes=self.sizes + other.sizes,
            skipped=self.skipped | other.skipped,
        )

    def map(self, row: int, view: View) -> Tensor:
        """The cached map of an image in a view, as `FeatureStore.load` gives it: (C, h, w)."""
        return self.features.load(self.keys[row], self.dataset.samples[row].path, view)

    def maps(self, row: int, views: Sequence[View]) -> list[Tensor]:
        """The same for several views; an image that has to be read is read once."""
        return self.features.load_all(self.keys[row], self.dataset.samples[row].path, views)

    def tags_of(self, row: int) -> IntArray:
        """The classes that are in an image, in order: (tags,) int64."""
        return np.array(sorted(self.dataset.samples[row].tags), np.int64)

    def proposals_of(self, row: int) -> FloatArray:
        """Proposals of an image, (N, 4) float32, xyxy pixels; the method must have proposals."""
        assert self.proposals is not None
        return self.proposals.load(self.keys[row])


def cache_together(
    dataset: Dataset, features: FeatureStore, views: Sequence[View], proposals: ProposalConfig | None
) -> CachedDataset:
    """As `cache_dataset`, for all processes of a run: the main one works, and the others read no image.

    Raises:
        BoxlessError: see `cache_dataset`.
    """

    def work() -> tuple[Dataset, tuple[str, ...], tuple[tuple[int, int], ...], dict[Path, str], dict[str, float]]:
        data = cache_dataset(dataset, features, views, proposals)
        return data.dataset, data.keys, data.sizes, data.skipped, data.seconds

    kept, keys, sizes, skipped, seconds = on_main_process(work)
    store = None if proposals is None else ProposalStore(proposals)
    return CachedDataset(kept, keys, sizes, features, store, skipped, seconds)


def cache_dataset(
    dataset: Dataset, features: FeatureStore, views: Sequence[View], proposals: ProposalConfig | None
) -> CachedDataset:
    """Compute the proposals and feature maps that are missing; images that cannot be read are skipped and reported.

    Args:
        dataset: any; its boxes are not read.
        features: the store to fill.
        views: the views to extract.
        proposals: settings of the proposals, or None for methods without.

    Raises:
        BoxlessError: no image can be read, or the caches cannot be written.
    """
    skipped: dict[Path, str] = {}
    keys = content_keys((sample.path for sample in dataset.samples), skipped)
    images = {key: path for path, key in keys.items()}
    seconds = {}
    store = None if proposals is None else ProposalStore(proposals)
    if store is not None:
        start = time.perf_counter()
        skipped |= store.compute(images)
        seconds["proposals"] = time.perf_counter() - start
    start = time.perf_counter()
    readable = {key: path for key, path in images.items() if path not in skipped}
    # An image with cached proposals is known to be readable.
    if features.cached or store is None:
        skipped |= features.compute(readable, views)
    seconds["features"] = time.perf_counter() - start
    skip_copies(skipped, keys)
    kept = tuple(sample for sample in dataset.samples if sample.path not in skipped)
    log_skipped(skipped)
    if not kept:
        raise BoxlessError(
            f"{dataset.name}: no image can be read; the first: {next(iter(skipped.values()), 'there is none')}"
        )
    return CachedDataset(
        dataset=replace(dataset, samples=kept),
        keys=tuple(keys[sample.path] for sample in kept),
        sizes=tuple(image_size(sample.path) for sample in kept),
        features=features,
        proposals=store,
        skipped=skipped,
        seconds=seconds,
    )
