"""Decides from tags whether boxes of local CAMs are trained on: by how local CAMs classify held-out images.

Local CAMs are trained on single cells. Of few images, or of kinds that single cells do not tell, they learn too little:
then they classify held-out images worse than the CAM does, and their boxes are worse too (docs/lab_book).
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.files import write_json
from boxless.methods import CAM
from boxless.methods.local_cam import LocalCAM, fit_classifier, fit_local_cam
from boxless.metrics import classification_ap
from boxless.progress import track
from boxless.pseudo_labels.cross_fitting import draw_folds
from boxless.structures import BoolArray

logger = logging.getLogger(__name__)

HALVES, MAX_IMAGES = 2, 1000
"""Images are divided into halves; of more images so many are drawn."""
MAX_ERROR_RATIO = 1.85
"""Largest classification error of local CAMs, over that of CAMs, at which their boxes are trained on."""
MIN_ERROR = 0.02
"""Smaller errors of CAMs count as this one: they are a few images."""


def local_cams_classify_well(data: CachedDataset, cam: Detector, seed: int, file: Path) -> bool:
    """Whether the error of local CAMs on held-out images is at most `MAX_ERROR_RATIO` times that of CAMs.

    Args:
        data: the training images; only their tags are used.
        cam: the CAM, for the maps that it reads.
        seed: of the images, the halves, and the order of images in training.
        file: JSON that keeps both errors, so that a resumed run decides as before.
    """
    try:
        errors = json.loads(file.read_text(encoding="utf-8"))
        cam_error, local_error = float(errors["cam"]), float(errors["local_cam"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.info("Comparing CAMs and local CAMs on held-out images")
        cam_error, local_error = held_out_errors(data, cam, seed)
        write_json(file, {"cam": cam_error, "local_cam": local_error})
    well = local_error <= MAX_ERROR_RATIO * max(cam_error, MIN_ERROR)
    logger.info(
        "Classification mAP on held-out images: %.2f by CAMs, %.2f by local CAMs; the boxes of local CAMs are %s",
        1 - cam_error,
        1 - local_error,
        "trained on" if well else "left out",
    )
    return well


def held_out_errors(data: CachedDataset, cam: Detector, seed: int) -> tuple[float, float]:
    """Classification errors, 1 less mAP, of CAMs and of local CAMs: trained on one half, measured on the other.

    A CAM of half the images is a linear classifier of averages, trained as the local CAM is.

    Args:
        data, cam, seed: see `local_cams_classify_well`.

    Returns:
        Of each the mean over halves and classes, without those that all images of a half show, or none; NaN without
        any, and where all of the images have given boxes.
    """
    assert isinstance(cam.model, CAM)
    rows = np.random.default_rng(seed).permutation(len(data))[:MAX_IMAGES]
    data, view, channels = data.subset(sorted(rows.tolist())), cam.views[0], slice(cam.model.channels)
    halves = draw_folds(data, HALVES, seed)
    if halves.max() < 0:
        return math.nan, math.nan

    def maps(row: int, channels: slice) -> Tensor:
        return data.map(row, view)[channels].float().to(cam.device)

    numbers = track(range(len(data)), "Averages of feature maps", len(data), transient=True)
    averages = torch.stack([maps(row, channels).mean(dim=(1, 2)) for row in numbers])
    # Where nearly all boxes are given, the only image to predict is one of the halves.
    aps = [_aps(cam.model, averages, maps, data, halves == half, seed) for half in range(int(halves.max()) + 1)]
    known = [values[np.isfinite(values)] for values in np.concatenate(aps, axis=1)]
    cam_error, local_error = (1 - float(values.mean()) if len(values) else math.nan for values in known)
    return cam_error, local_error


def _aps(
    cam: CAM,
    averages: Tensor,
    maps: Callable[[int, slice], Tensor],
    data: CachedDataset,
    held_out: BoolArray,
    seed: int,
) -> NDArray[np.float64]:
    """AP of every class (2, classes) by a CAM and by local CAMs that are trained on the other images."""
    assert cam.local is not None
    train_rows, held_out_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    image_labels = data.dataset.image_labels()
    labels = torch.from_numpy(image_labels[train_rows])
    whole = nn.Linear(cam.channels, labels.shape[1]).to(averages.device)
    for parameter in whole.parameters():
        nn.init.zeros_(parameter)
    fit_classifier(whole, lambda rows: whole(averages[train_rows[rows]]), labels, seed, "CAM of half the images")
    local = LocalCAM(cam.local.channels, labels.shape[1]).to(averages.device)
    fit_local_cam(local, lambda row: maps(train_rows[row], cam.levels), labels, seed)
    with torch.inference_mode():
        pooled = [local.pool(local(maps(row, cam.levels))) for row in held_out_rows.tolist()]
        found = whole(averages[held_out_rows]), torch.stack(pooled)
    aps = [classification_ap(logits.cpu().numpy(), image_labels[held_out_rows]) for logits in found]
    told = ((labels == 1).any(dim=0) & (labels == 0).any(dim=0)).numpy()
    return np.where(told, np.stack(aps), np.nan)
