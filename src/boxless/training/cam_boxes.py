"""Fitted after a CAM is trained, so that boxes can be drawn around its maps: local CAMs, and the objectness that is
trained on where they are certain. No box is read."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.methods import CAM, HeatmapModel
from boxless.methods.local_cam import LocalCAM, fit_local_cam
from boxless.methods.objectness import Objectness, fit_objectness
from boxless.structures import Dataset
from boxless.views import views_of

logger = logging.getLogger(__name__)

OBJECTNESS_IMAGES = 1000
"""Most images that objectness is trained on."""


def fit_cam_boxes(model: HeatmapModel, data: CachedDataset, detector: Detector) -> None:
    """Fit local CAMs and objectness, where the model has them.

    Args:
        model: is left in evaluation mode.
        data: the images it was trained on; some have a tag.
        detector: the detector that the model is part of.
    """
    model.eval()
    if not isinstance(model, CAM) or model.objectness is None or model.local is None:
        return
    logger.info("Fitting local CAM and objectness")
    view = views_of(detector.config.views)[0]

    def levels(row: int) -> Tensor:
        return data.map(row, view)[model.levels].float().to(detector.device)

    fit_local_cam(model.local, levels, torch.from_numpy(data.dataset.image_labels()), detector.config.seed)
    _fit_objectness(model.objectness, model.local, levels, data.dataset, detector.config.seed)
    # The model outputs objectness once the threshold is a number.
    model.threshold.fill_(model.threshold_once_fitted)


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


def tagged_rows(dataset: Dataset, seed: int, most: int) -> list[int]:
    """Rows of at most so many images with a tag, in an order drawn from the seed."""
    rows = [row for row, sample in enumerate(dataset.samples) if sample.tags]
    return list(np.random.default_rng(seed).permutation(rows)[:most].tolist())
