"""Where the first box of each tag comes from."""

from collections.abc import Callable

import numpy as np
import torch

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.heatmap_boxes import separating_proposal
from boxless.methods import CAM
from boxless.pseudo_labels.held_out import boxes_for_tags, map_rows
from boxless.registry import Registry
from boxless.structures import Annotations

Seed = Callable[[CachedDataset, Detector], list[Annotations]]

SEEDS: Registry[Seed] = Registry("pseudo_labels.seed")
"""Seeds by name: from the training images and the trained CAM to one box for each tag of each image, the tags in the
order of their class indices."""


@SEEDS.register("cam")
def cam_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """The CAM box of every tag, with objectness (`heatmap_boxes.objectness_box`)."""
    return boxes_for_tags(cam, data, range(len(data)), "CAM boxes")


@SEEDS.register("local_cam")
def local_cam_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """The proposal that separates the local CAM of the tag best (`heatmap_boxes.separating_proposal`)."""
    model = cam.model
    assert isinstance(model, CAM) and model.local is not None
    local, levels = model.local, model.levels

    def find(row: int) -> Annotations:
        labels = np.array(sorted(data.dataset.samples[row].tags), np.int64)
        with torch.inference_mode():
            heatmaps = local(data.map(row, cam.views[0])[levels].float().to(cam.device)).cpu().numpy()
        proposals = data.boxes(row)
        rows = [separating_proposal(heatmaps[label], proposals, data.sizes[row]) for label in labels]
        return Annotations(proposals[rows], labels, np.zeros(len(labels), np.bool_))

    return map_rows(find, cam, range(len(data)), "Local CAM boxes")
