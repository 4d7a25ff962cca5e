"""Whether boxes of local CAMs are worth training on, told by tags: by how local CAMs classify images held out.

Local CAMs are trained on single cells. Of few images, or of kinds that single cells do not tell, they learn too little:
then they classify held-out images worse than the CAM does, and their boxes are worse too (docs/lab_book).
"""

import logging
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.methods import CAM
from boxless.methods.local_cam import LocalCAM, fit_classifier, fit_local_cam
from boxless.metrics import classification_ap
from boxless.progress import track
from boxless.pseudo_labels.cross_fitting import draw_folds
from boxless.structures import BoolArray

logger = logging.getLogger(__name__)

HALVES = 2
MAX_ERRORS = 1.85
"""Most classification errors of local CAMs, over those of CAMs, at which their boxes are worth training on."""


def local_cams_classify(data: CachedDataset, cam: Detector, seed: int) -> bool:
    """Whether local CAMs make at most `MAX_ERRORS` times the classification errors of CAMs on held-out images.

    Args:
        data: the training images; only their tags are used.
        cam: the CAM, for the maps that it reads.
        seed: of the halves, and of the order of images in training.
    """
    whole, local = held_out_errors(data, cam, seed)
    enough = local <= MAX_ERRORS * whole
    logger.info(
        "On images held out, local CAMs have a classification mAP of %.2f, CAMs of %.2f: trained with%s boxes of local "
        "CAMs",
        1 - local,
        1 - whole,
        "" if enough else "out",
    )
    return enough


def held_out_errors(data: CachedDataset, cam: Detector, seed: int) -> tuple[float, float]:
    """Classification errors, 1 less mAP, of CAMs and of local CAMs: trained on one half, measured on the other.

    Args:
        data, cam, seed: see `local_cams_classify`.

    Returns:
        Of each the mean over classes and halves; NaN where no image shows a class.
    """
    model = cam.model
    assert isinstance(model, CAM)
    halves, maps = draw_folds(data, HALVES, seed), partial(_maps, data, cam)
    rows = track(range(len(data)), "Averages of feature maps", len(data), transient=True)
    averages = torch.stack([maps(row)[: model.channels].mean(dim=(1, 2)) for row in rows])
    # Where nearly all boxes are given, the only image to predict is one of the halves.
    aps = [_aps(model, averages, maps, data, halves == half, seed) for half in range(int(halves.max()) + 1)]
    known = [own[np.isfinite(own)] for own in np.concatenate(aps, axis=1)]
    whole, local = (1 - float(own.mean()) if len(own) else math.nan for own in known)
    return whole, local


def _maps(data: CachedDataset, cam: Detector, row: int) -> Tensor:
    return data.map(row, cam.views[0]).float().to(cam.device)


def _aps(
    cam: CAM, averages: Tensor, maps: Callable[[int], Tensor], data: CachedDataset, held_out: BoolArray, seed: int
) -> NDArray[np.float64]:
    """AP of every class (2, classes) by a CAM and by local CAMs that are trained on the other images."""
    assert cam.local is not None
    rest, own = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    image_labels = data.dataset.image_labels()
    labels = torch.from_numpy(image_labels[rest])
    whole = nn.Linear(cam.channels, labels.shape[1]).to(averages.device)
    for parameter in whole.parameters():
        nn.init.zeros_(parameter)
    fit_classifier(whole, lambda rows: whole(averages[rest[rows]]), labels, seed, "CAM of half the images")
    local = LocalCAM(cam.local.channels, labels.shape[1]).to(averages.device)
    fit_local_cam(local, lambda row: maps(rest[row])[cam.levels], labels, seed)
    with torch.inference_mode():
        found = whole(averages[own]), torch.stack([local.pool(local(maps(row)[cam.levels])) for row in own.tolist()])
    return np.stack([classification_ap(logits.cpu().numpy(), image_labels[own]) for logits in found])
