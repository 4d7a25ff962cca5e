"""From pictures to what training and evaluation read: proposals and feature maps in the caches."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boxless.config import ProposalConfig
from boxless.errors import BoxlessError
from boxless.features import FeatureStore, View
from boxless.pictures import content_keys, picture_size, skip_copies
from boxless.progress import report_skipped
from boxless.proposals import ProposalStore
from boxless.structures import Dataset


@dataclass(frozen=True)
class Prepared:
    """A dataset whose pictures are all readable, with proposals and feature maps computed.

    Args:
        dataset: without the pictures that were skipped.
        keys: content key of every sample.
        sizes: width and height of every picture in pixels.
        features: feature maps by key and view.
        proposals: by key, or None for methods without.
        skipped: pictures that could not be read -> reason.
        seconds: stage -> time it took.
    """

    dataset: Dataset
    keys: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    features: FeatureStore
    proposals: ProposalStore | None
    skipped: dict[Path, str]
    seconds: dict[str, float]


def prepare(
    dataset: Dataset, features: FeatureStore, views: Sequence[View], proposals: ProposalConfig | None
) -> Prepared:
    """Compute the proposals and feature maps that are missing; pictures that cannot be read are left out and reported.

    Args:
        dataset: any; boxes are not looked at.
        features: the store to fill.
        views: which views to extract.
        proposals: settings of the proposals, or None for methods without.

    Raises:
        BoxlessError: no picture can be read, or the disk does not take the caches.
    """
    skipped: dict[Path, str] = {}
    keys = content_keys((sample.path for sample in dataset.samples), skipped)
    pictures = {key: path for path, key in keys.items()}
    seconds = {}
    store = None if proposals is None else ProposalStore(proposals)
    if store is not None:
        start = time.perf_counter()
        skipped |= store.compute(pictures)
        seconds["proposals"] = time.perf_counter() - start
    start = time.perf_counter()
    readable = {key: path for key, path in pictures.items() if path not in skipped}
    skipped |= features.compute(readable, views)
    seconds["features"] = time.perf_counter() - start
    skip_copies(skipped, keys)
    kept = tuple(sample for sample in dataset.samples if sample.path not in skipped)
    report_skipped(skipped)
    if not kept:
        raise BoxlessError(
            f"{dataset.name}: no picture can be read; the first: {next(iter(skipped.values()), 'none there')}"
        )
    return Prepared(
        dataset=replace(dataset, samples=kept),
        keys=tuple(keys[sample.path] for sample in kept),
        sizes=tuple(picture_size(sample.path) for sample in kept),
        features=features,
        proposals=store,
        skipped=skipped,
        seconds=seconds,
    )
