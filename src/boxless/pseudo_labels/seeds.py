"""Where the first box of each tag comes from."""

from collections.abc import Callable

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.pseudo_labels.held_out import boxes_for_tags
from boxless.registry import Registry
from boxless.structures import Annotations

Seed = Callable[[CachedDataset, Detector], list[Annotations]]

SEEDS: Registry[Seed] = Registry("pseudo_labels.seed")
"""Seeds by name: from the training images and the trained CAM to one box for each tag of each image, the tags in the
order of their class indices."""


@SEEDS.register("cam")
def cam_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """The CAM box of every tag, with objectness (`methods.heatmap_boxes.objectness_box`)."""
    return boxes_for_tags(cam, data, range(len(data)), "CAM boxes")
