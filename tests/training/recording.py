"""Records what the networks of a run are trained on, and which images they predict."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.pseudo_labels import cross_fitting, mosaic
from boxless.structures import Annotations, Dataset, Sample
from boxless.training import fit

Boxes = dict[str, tuple[list[list[float]], list[int], list[bool]]]


@dataclass
class Record:
    """By network, that is by the name of its folder.

    Args:
        trained: what it was trained on.
        predicted: ids of the images whose boxes it predicted out of fold.
        sources: ids of the images that crops of its mosaics may come from.
    """

    trained: dict[str, CachedDataset] = field(default_factory=dict)
    predicted: dict[str, list[str]] = field(default_factory=dict)
    sources: dict[str, set[str]] = field(default_factory=dict)

    def images(self, network: str) -> set[str]:
        """Ids of the training images of a network, without its mosaics."""
        return {name for name in ids(self.trained[network].dataset) if not name.startswith("mosaic ")}

    def mosaics(self, network: str) -> set[str]:
        return ids(self.trained[network].dataset) - self.images(network)


def record_training(patch: pytest.MonkeyPatch) -> Record:
    record = Record()
    train_model, boxes_for_tags, compose = fit.train_model, cross_fitting.boxes_for_tags, mosaic.compose_mosaics

    def recorded_training(accelerator: Any, run: Path, model: Any, data: CachedDataset, *rest: Any) -> float:
        record.trained[run.name] = data
        return train_model(accelerator, run, model, data, *rest)

    def recorded_prediction(
        detector: Detector, data: CachedDataset, rows: Sequence[int], text: str
    ) -> list[Annotations]:
        record.predicted[detector.name] = [data.dataset.samples[row].id for row in rows]
        return boxes_for_tags(detector, data, rows, text)

    def recorded_mosaics(
        samples: Sequence[Sample], most: int, seed: int, scale: int, folder: Path
    ) -> tuple[Sample, ...]:
        record.sources[folder.parent.name] = {sample.id for sample in samples}
        return compose(samples, most, seed, scale, folder)

    patch.setattr(fit, "train_model", recorded_training)
    patch.setattr(cross_fitting, "boxes_for_tags", recorded_prediction)
    patch.setattr(mosaic, "compose_mosaics", recorded_mosaics)
    return record


def ids(dataset: Dataset) -> set[str]:
    return {sample.id for sample in dataset.samples}


def boxes_by_id(dataset: Dataset) -> Boxes:
    """Boxes, labels and ignore flags of every image that has annotations."""
    known = {sample.id: sample.annotations for sample in dataset.samples}
    return {
        name: (own.boxes.tolist(), own.labels.tolist(), own.ignore.tolist())
        for name, own in known.items()
        if own is not None
    }
