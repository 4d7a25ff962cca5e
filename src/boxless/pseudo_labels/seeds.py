"""Where the first boxes of each tag come from."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.heatmap_boxes import separating_proposal
from boxless.methods import CAM
from boxless.postprocess import cam_boxes
from boxless.pseudo_labels.held_out import boxes_for_tags, map_tags
from boxless.registry import Registry
from boxless.structures import Annotations, FloatArray, IntArray

Seed = Callable[[CachedDataset, Detector], list[Annotations]]

SEEDS: Registry[Seed] = Registry("pseudo_labels.seeds")
"""Seeds by name: from the training images and the trained CAM to one box for each tag of each image, the tags in the
order of their class indices."""
LOCAL_SHARE = 1 / 3
"""Weight of the local CAM in `mixed_cam`."""
LOCAL_CAM_SEEDS = frozenset({"mixed_cam", "local_cam"})
"""Those that need good local CAMs (`local_cam_errors`)."""


@SEEDS.register("cam")
def cam_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """The CAM box of every tag, with objectness (`heatmap_boxes.objectness_box`)."""
    return boxes_for_tags(cam, data, range(len(data)), "CAM boxes")


@SEEDS.register("mixed_cam")
def mixed_cam_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """The CAM box of every tag, of the weighted mean of CAM and local CAM, each divided by its maximum."""
    cam = cam.with_views(cam.views[:1])

    def find(row: int, tags: IntArray) -> FloatArray:
        (output,) = cam.view_outputs(cam.read(data, row))
        assert output.maps is not None and output.objectness is not None
        local = _over_maximum(_local_cams(data, cam, row))
        maps = (1 - LOCAL_SHARE) * _over_maximum(output.maps) + LOCAL_SHARE * local
        return cam_boxes(maps, output.objectness, data.sizes[row], tags, cam.cam_threshold, cam.views)

    return map_tags(find, cam, data, range(len(data)), "CAM boxes with local CAMs")


@SEEDS.register("local_cam")
def local_cam_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """The proposal that separates the local CAM of the tag best (`heatmap_boxes.separating_proposal`)."""

    def find(row: int, tags: IntArray) -> FloatArray:
        heatmaps = _local_cams(data, cam, row)
        proposals = data.proposals_of(row)
        return proposals[[separating_proposal(heatmaps[tag], proposals, data.sizes[row]) for tag in tags]]

    return map_tags(find, cam, data, range(len(data)), "Local CAM boxes")


def _local_cams(data: CachedDataset, cam: Detector, row: int) -> FloatArray:
    """Local CAMs of an image: (classes, h, w)."""
    model = cam.model
    assert isinstance(model, CAM) and model.local is not None
    with torch.inference_mode():
        heatmaps: Tensor = model.local(data.map(row, cam.views[0])[model.levels].float().to(cam.device))
    found: FloatArray = heatmaps.cpu().numpy()
    return found


def _over_maximum(heatmaps: FloatArray) -> FloatArray:
    """Each of the heatmaps (classes, h, w) over its maximum; zeros where it is nowhere positive: no evidence."""
    top = heatmaps.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.where(top > 0, heatmaps / np.maximum(top, 1e-6), 0), np.float32)
