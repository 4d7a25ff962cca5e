"""What of a network is fitted beside the loop: principal components before it, where objects end after it."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.config import LocalizerConfig
from boxless.detector import Detector
from boxless.features import View, views_of
from boxless.images import read_image
from boxless.methods import BoxSupervisedDetector, Localizer
from boxless.methods.cam_threshold import DEFAULT_THRESHOLD, SCALE, THRESHOLDS, consistent_threshold
from boxless.methods.objectness import Objectness, fit_objectness
from boxless.progress import console, track
from boxless.structures import Dataset, FloatArray

FITTED = 100
"""Images that principal components are fitted to: more change nothing that counts."""
TEACHING_PLACES = 1000
"""Most images that teach what is an object at all."""
SCALED = 100
"""Most images that are looked at in a second scale to find out how far objects reach."""


def fit_pca(model: BoxSupervisedDetector, ready: CachedDataset, view: View, seed: int) -> None:
    """Fit the principal components of a detector that boxes teach to maps of some of the images."""
    rows = np.random.default_rng(seed).permutation(len(ready.keys))[:FITTED].tolist()
    model.fit_pca(_maps(ready, rows, view))


def fit_outlines(model: Localizer, ready: CachedDataset, detector: Detector) -> float:
    """Find out where objects end, for a localizer whose heatmaps are trained.

    Args:
        model: is left in evaluation mode.
        ready: the images it was trained on; some have a tag.
        detector: the detector that the model is part of.

    Returns:
        Seconds that it took.
    """
    start = time.perf_counter()
    model.eval()
    console.print("Learning where objects end", highlight=False)
    if model.objectness is not None:
        _fit_objectness(model, model.objectness, ready, detector)
    head = detector.config.head
    assert isinstance(head, LocalizerConfig)
    # From here on the foreground has its say.
    model.threshold.fill_(head.threshold or DEFAULT_THRESHOLD)
    if head.threshold is None:
        model.threshold.fill_(_threshold(ready, detector))
    return time.perf_counter() - start


def _fit_objectness(model: Localizer, objectness: Objectness, ready: CachedDataset, detector: Detector) -> None:
    """Learn what is an object at all from the places that the trained heatmaps are sure of."""
    rows = tagged(ready.dataset, detector.config.seed, TEACHING_PLACES)

    def sure() -> Iterator[tuple[Tensor, Tensor]]:
        for row, features in zip(rows, _maps(ready, rows, views_of(detector.config.views)[0]), strict=True):
            labels = sorted(ready.dataset.samples[row].tags)
            with torch.inference_mode():
                heat = model.heatmaps(features[None].to(detector.device))[0]
            yield features[model.early].to(detector.device), heat[labels]

    fit_objectness(objectness, sure(), detector.config.seed)


def _threshold(ready: CachedDataset, detector: Detector) -> float:
    """The mean of the thresholds, weighted by how well the boxes of two scales agree at each."""
    first, samples = views_of(detector.config.views)[0], ready.dataset.samples
    near, far = (detector.with_views((view,)) for view in (first, View(round(first.scale * SCALE))))
    rows = tagged(ready.dataset, detector.config.seed, SCALED)
    boxes: list[list[list[FloatArray]]] = [[], []]
    for row in track(rows, "Where objects end", len(rows), transient=True):
        path, size, labels = samples[row].path, ready.sizes[row], sorted(samples[row].tags)
        stored = ready.map(row, first)
        larger = detector.features.extract(read_image(path), far.views[0])
        for side, (look, maps) in enumerate(((near, stored), (far, larger))):
            found = look.extents([maps], size, labels, THRESHOLDS)
            sides = np.array([*size, *size], np.float32)
            boxes[side].append([np.asarray(part / sides, np.float32) for part in found])
    one, other = ([np.concatenate(parts) for parts in zip(*side, strict=True)] for side in boxes)
    if len(one[0]) < 2:
        # Nothing to compare a box with.
        return DEFAULT_THRESHOLD
    return consistent_threshold(dict(zip(THRESHOLDS, zip(one, other, strict=True), strict=True)))


def tagged(dataset: Dataset, seed: int, most: int) -> list[int]:
    """Rows of at most so many images with a tag, in an order drawn from the seed."""
    rows = [row for row, sample in enumerate(dataset.samples) if sample.tags]
    return list(np.random.default_rng(seed).permutation(rows)[:most].tolist())


def _maps(ready: CachedDataset, rows: Sequence[int], view: View) -> Iterator[Tensor]:
    """The maps of these images, one at a time, in single precision."""
    for row in rows:
        yield ready.map(row, view).float()
