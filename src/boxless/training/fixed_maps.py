"""Outputs of the layers that training steps do not change (the principal components), computed once for all steps."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from boxless.backbones import fingerprint
from boxless.cache import digest, entry, find_arrays, load_array, save_array
from boxless.cached_dataset import CachedDataset
from boxless.devices import one_thread_per_image
from boxless.distributed import on_main_process
from boxless.parallel import map_threads
from boxless.views import View


@dataclass(frozen=True)
class FixedMaps:
    """The output of a fixed part for the maps of images, on disk in half precision.

    Args:
        folder: that has a folder for each view.
        part: fingerprint of the part.
    """

    folder: Path
    part: str

    def load(self, key: str, view: View) -> Tensor:
        """The output (C, h, w), float16, for a view of the image with this content key."""
        return torch.from_numpy(load_array(self.file(key, view)))

    def file(self, key: str, view: View) -> Path:
        """Where it is."""
        return entry(self.folder / digest({"part": self.part, "scale": view.scale, "flipped": view.flipped}), key)


def compute_fixed_maps(part: nn.Module, data: CachedDataset, views: Sequence[View], folder: Path) -> FixedMaps:
    """Compute what is missing in the folder; of several processes the main one does.

    Args:
        part: takes a map (C, h, w); it is not changed.
        data: the images.
        views: of each.
        folder: takes the outputs.

    Raises:
        BoxlessError: a feature map is lost, or the disk is full.
    """
    # Training may have it on a GPU, or change its precision.
    part = deepcopy(part).cpu().float().eval()
    fixed = FixedMaps(folder, fingerprint(part))

    def work(place: tuple[Path, int, View]) -> None:
        file, row, view = place
        with torch.inference_mode():
            save_array(file, part(data.map(row, view)).half().numpy())

    def work_through() -> None:
        places = {fixed.file(key, view): (row, view) for row, key in enumerate(data.keys) for view in views}
        whole = find_arrays(list(places))
        missing = [(file, *place) for file, place in places.items() if file not in whole]
        with one_thread_per_image(torch.device("cpu")) as threads:
            for _ in map_threads(work, missing, "Maps to train on", threads):
                pass

    on_main_process(work_through)
    return fixed
