"""Fitted after a heatmap model is trained, so that boxes can be drawn around its maps.

Local CAMs, the objectness that is trained on where they are certain, and the threshold.

No box is read. The threshold is chosen by how consistent the boxes of two scales are.
"""

import logging
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.images import read_image
from boxless.methods import CAM, HeatmapModel
from boxless.methods.box_ops import chance_iou, paired_iou
from boxless.methods.cam import DEFAULT_THRESHOLD
from boxless.methods.local_cam import LocalCAM, fit_local_cam
from boxless.methods.objectness import Objectness, fit_objectness
from boxless.progress import track
from boxless.structures import Dataset, FloatArray
from boxless.views import View, views_of

logger = logging.getLogger(__name__)

OBJECTNESS_IMAGES = 1000
"""Most images that objectness is trained on."""
THRESHOLD_IMAGES = 100
"""Most images whose boxes are compared across two scales."""
THRESHOLDS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56)
"""Candidates, as fractions of a heatmap's maximum."""
SCALE = 1.375
"""The second scale over the first."""
SHARPNESS = 50
"""Weight of consistency: a chance-corrected IoU higher by 0.02 weighs e times as much."""


def fit_cam_boxes(model: HeatmapModel, data: CachedDataset, detector: Detector) -> None:
    """Fit local CAMs and objectness, where the model has them, and the threshold, where the settings leave it open.

    Args:
        model: is left in evaluation mode.
        data: the images it was trained on; some have a tag.
        detector: the detector that the model is part of.
    """
    model.eval()
    logger.info("Fitting where objects end")
    if isinstance(model, CAM) and model.objectness is not None and model.local is not None:
        view = views_of(detector.config.views)[0]

        def levels(row: int) -> Tensor:
            return data.map(row, view)[model.levels].float().to(detector.device)

        fit_local_cam(model.local, levels, torch.from_numpy(data.dataset.image_labels()), detector.config.seed)
        _fit_objectness(model.objectness, model.local, levels, data.dataset, detector.config.seed)
    # The model outputs objectness only once the threshold is a number.
    configured = getattr(detector.config.head, "threshold", None)
    model.threshold.fill_(configured or DEFAULT_THRESHOLD)
    if configured is None:
        model.threshold.fill_(_fit_threshold(data, detector))


def _fit_objectness(
    objectness: Objectness, local: LocalCAM, levels: Callable[[int], Tensor], dataset: Dataset, seed: int
) -> None:
    def maps() -> Iterator[tuple[Tensor, Tensor]]:
        for row in tagged_rows(dataset, seed, OBJECTNESS_IMAGES):
            own = levels(row)
            with torch.inference_mode():
                heatmaps = local(own)
            yield own[: local.channels[0]], heatmaps[sorted(dataset.samples[row].tags)]

    fit_objectness(objectness, maps(), seed)


def _fit_threshold(data: CachedDataset, detector: Detector) -> float:
    first, samples = views_of(detector.config.views)[0], data.dataset.samples
    near, far = (detector.with_views((view,)) for view in (first, View(round(first.scale * SCALE))))
    rows = tagged_rows(data.dataset, detector.config.seed, THRESHOLD_IMAGES)
    boxes: list[list[list[FloatArray]]] = [[], []]
    for row in track(rows, "CAM threshold", len(rows), transient=True):
        path, size, labels = samples[row].path, data.sizes[row], sorted(samples[row].tags)
        stored = data.map(row, first)
        larger = detector.features.extract(read_image(path), far.views[0])
        for side, (scaled, maps) in enumerate(((near, stored), (far, larger))):
            found = scaled.cam_boxes_at([maps], size, labels, THRESHOLDS)
            sides = np.array([*size, *size], np.float32)
            boxes[side].append([np.asarray(part / sides, np.float32) for part in found])
    one, other = ([np.concatenate(parts) for parts in zip(*side, strict=True)] for side in boxes)
    if len(one[0]) < 2:
        return DEFAULT_THRESHOLD
    return consistent_threshold(dict(zip(THRESHOLDS, zip(one, other, strict=True), strict=True)))


def tagged_rows(dataset: Dataset, seed: int, most: int) -> list[int]:
    """Rows of at most so many images with a tag, in an order drawn from the seed."""
    rows = [row for row, sample in enumerate(dataset.samples) if sample.tags]
    return list(np.random.default_rng(seed).permutation(rows)[:most].tolist())


def chance_corrected_iou(boxes: FloatArray, others: FloatArray) -> float:
    """Mean IoU of pairs beyond that of random pairs, relative to what is possible beyond it (as Cohen's kappa).

    A threshold at which every box fills the image makes all pairs overlap, and random pairs just as much.

    Args:
        boxes: (N, 4), xyxy in fractions of the image, N at least 2.
        others: (N, 4), of the same objects.
    """
    one, other = torch.from_numpy(boxes), torch.from_numpy(others)
    same, chance = (float(values.double().mean()) for values in (paired_iou(one, other), chance_iou(one, other)))
    return (same - chance) / max(1 - chance, 1e-9)


def consistent_threshold(boxes: Mapping[float, tuple[FloatArray, FloatArray]]) -> float:
    """The geometric mean of the thresholds, each weighted by the consistency of its boxes across two scales.

    The mean rather than the best, as the consistency changes little from one threshold to the next.

    Args:
        boxes: threshold -> boxes of the same objects at both scales, as `chance_corrected_iou` takes them.
    """
    values = np.array([chance_corrected_iou(*pair) for pair in boxes.values()])
    weights = np.exp(SHARPNESS * (values - values.max()))
    return float(np.exp(np.average(np.log(list(boxes)), weights=weights)))
