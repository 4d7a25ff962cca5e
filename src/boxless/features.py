"""Batches of views, and the cache of feature maps: the frozen stages run once per view."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from boxless.backbones import BACKBONES, Backbone, Hypercolumns, fingerprint, folded, normalised
from boxless.cache import entry, find_arrays, load_array, open_store, save_array
from boxless.cache_use import record_use
from boxless.config import BackboneConfig
from boxless.devices import images_at_once, one_thread_per_image, views_at_once
from boxless.errors import ImageError
from boxless.images import read_image
from boxless.parallel import map_images, map_threads
from boxless.registry import outside_source
from boxless.views import View

HALF_MAX = 65504.0
"""Largest number in half precision."""
STORED = torch.float8_e5m2
"""Numbers of cached maps: half precision rounded to its upper byte, with five bits of exponent and two of mantissa."""


class Targets(NamedTuple):
    """Boxes of one view to train on: pseudo labels, or ground truth with `supervision=boxes`.

    Args:
        boxes: (M, 4) float32, xyxy pixels of the view.
        labels: (M,) int64.
        ignore: (M,) bool: neither object nor background, see `Annotations`.
        complete: (classes,) bool, of which every object of the view has a box; None where that is true of none.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    complete: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        """The same with every tensor changed, for example moved to another device."""
        complete = None if self.complete is None else change(self.complete)
        return Targets(change(self.boxes), change(self.labels), change(self.ignore), complete)


@dataclass(frozen=True)
class Batch:
    """The input of a model: views of images, as feature maps or as pixels, with what is known about them.

    Args:
        maps: (B, C, H, W) float16 as the cache gives them, or float32: the frozen part's output (or normalised pixels
            where nothing is frozen), zero beyond each view's own extent; in training what `Model.fixed_part` makes of
            it.
        sizes: (B, 2) int64, height and width of each view in pixels.
        extents: (B, 2) int64, height and width of each view's own map in cells; some networks have no cell for the last
            pixels.
        proposals: for each view (N, 4) float32, xyxy pixels of the view; None for methods without.
        image_labels: (B, classes) float32: 1 present, 0 absent, NaN unknown; None at inference.
        targets: for each view the boxes to train on; None for methods trained on image labels alone, and at inference.
    """

    maps: Tensor
    sizes: Tensor
    extents: Tensor
    proposals: list[Tensor] | None = None
    image_labels: Tensor | None = None
    targets: list[Targets] | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same on another device; `non_blocking` as for tensors."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same in memory from which a GPU copies while it computes; a `DataLoader` calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            change(self.maps),
            change(self.sizes),
            change(self.extents),
            None if self.proposals is None else [change(boxes) for boxes in self.proposals],
            None if self.image_labels is None else change(self.image_labels),
            None if self.targets is None else [view.map(change) for view in self.targets],
        )

    def unpadded(self, maps: Tensor) -> list[Tensor]:
        """Cut the padding off maps (B, C, h, w) that were made from `self.maps`: for each view (C, h', w')."""
        shares = self.extents.cpu() * torch.tensor(maps.shape[-2:]) / torch.tensor(self.maps.shape[-2:])
        return [
            row[:, :height, :width] for row, (height, width) in zip(maps, shares.ceil().long().tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Item:
    """One row of a `Batch`: `map` (C, h, w) of any precision, `size` (height, width), `proposals` (N, 4),
    `image_labels` (classes,), `targets`."""

    map: Tensor
    size: tuple[int, int]
    proposals: Tensor | None = None
    image_labels: Tensor | None = None
    targets: Targets | None = None


def collate(items: Sequence[Item]) -> Batch:
    """Put items into one batch, padded with zeros to the largest map.

    Maps keep the precision of the first, and only the padding is zeroed: hypercolumns of eight images take 50 MB in
    single precision, newly allocated at every step.
    """
    channels = items[0].map.shape[0]
    height, width = (max(item.map.shape[axis] for item in items) for axis in (1, 2))
    maps = torch.empty(len(items), channels, height, width, dtype=items[0].map.dtype)
    for row, item in zip(maps, items, strict=True):
        rows, columns = item.map.shape[1:]
        row[:, :rows, :columns] = item.map
        row[:, rows:] = row[:, :, columns:] = 0
    proposals = [item.proposals for item in items if item.proposals is not None]
    image_labels = [item.image_labels for item in items if item.image_labels is not None]
    targets = [item.targets for item in items if item.targets is not None]
    return Batch(
        maps,
        torch.tensor([item.size for item in items]),
        torch.tensor([item.map.shape[1:] for item in items]),
        proposals or None,
        torch.stack(image_labels) if image_labels else None,
        targets or None,
    )


def to_pixels(image: NDArray[np.uint8], view: View, backbone: Backbone) -> Tensor:
    """Resize, mirror and normalise an image (h, w, 3) uint8 into (3, h', w') float32, with zeros up to `min_side`."""
    mean, std = np.array(backbone.mean, np.float32), np.array(backbone.std, np.float32)
    pixels = (view.resize(image).astype(np.float32) / 255 - mean) / std
    lacking = (max(0, backbone.min_side - side) for side in pixels.shape[:2])
    return torch.from_numpy(np.pad(pixels.transpose(2, 0, 1), [(0, 0), *((0, more) for more in lacking)]))


class FeatureStore:
    """Feature maps of the frozen part of a backbone, keyed by image content, view and weights.

    Maps lie on disk in 8 bits a number (`STORED`), one file a view, and are read when they are needed, so that memory
    does not grow with their number. Where nothing is frozen, nothing is stored: `load` gives the pixels themselves.

    Args:
        backbone: for the pixels' mean, deviation and least number.
        frozen: its frozen stages, in evaluation mode.
        config: what to name in the artefact.
        device: where the frozen stages run.

    Raises:
        BoxlessError: the cache folder cannot be written.
    """

    def __init__(self, backbone: Backbone, frozen: nn.Sequential, config: BackboneConfig, device: torch.device) -> None:
        self._backbone = backbone
        self._device = device
        self._frozen = frozen.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.cached = len(frozen) > 0
        self._folders: dict[View, Path] = {}
        self._settings = {
            "backbone": config.model_dump(exclude={"weights", "freeze"}),
            "stages": len(frozen),
            "weights": fingerprint(frozen),
            **({"levels": frozen.levels} if isinstance(frozen, Hypercolumns) else {}),
            **({"folding": 1} if normalised(frozen) else {}),
            **(outside_source(BACKBONES[config.name]) if config.name in BACKBONES else {}),
            "precision": str(STORED),
            "versions": {module.__name__: module.__version__ for module in (torch, torchvision, timm, cv2)},
        }

    def extract(self, image: NDArray[np.uint8], view: View) -> Tensor:
        """The map of a view of an image (h, w, 3) uint8: (C, h', w') float32, rounded to half precision."""
        return self._forward(to_pixels(image, view, self._backbone)[None])[0]

    def extract_all(self, pairs: Sequence[tuple[NDArray[np.uint8], View]]) -> Iterator[tuple[int, Tensor]]:
        """`extract` for pairs of image and view, in batches where the device gains by it; yields numbers of pairs, not
        in order, and maps."""
        sizes = [view.size(image.shape[1], image.shape[0]) for image, view in pairs]
        for numbers in views_at_once(sizes, self._device):
            batch = [to_pixels(*pairs[number], self._backbone) for number in numbers]
            yield from zip(numbers, self._forward(torch.stack(batch)), strict=True)

    def _forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps (C, h, w) of views (B, 3, h', w'), rounded to half precision."""
        if not self.cached:
            return list(pixels)
        with torch.inference_mode():
            batch = pixels.to(self._device).contiguous(memory_format=torch.channels_last)
            features: Tensor = self._folded(batch)
            # Half precision would turn larger values into infinity.
            features = features.clamp(-HALF_MAX, HALF_MAX).half().float().cpu()
            return [own.contiguous() for own in features]

    @cached_property
    def _folded(self) -> nn.Module:
        # Not in the constructor, as most stores only load.
        return folded(self._frozen).to(memory_format=torch.channels_last)

    def compute(self, images: Mapping[str, Path], views: Sequence[View]) -> dict[Path, str]:
        """Extract and cache the maps that are missing or damaged; where nothing is frozen, only check the images.

        On the CPU images go through the network one by one, so that a map does not depend on which others were missing.

        Args:
            images: content key -> file.
            views: which views of each.

        Returns:
            Images that could not be read -> reason.
        """
        if not self.cached:
            return _unreadable(images)
        entries = {path: [(self._entry(key, view), view) for view in views] for key, path in images.items()}
        record_use({file.parents[1] for pairs in entries.values() for file, _ in pairs}, images)
        whole = find_arrays([file for pairs in entries.values() for file, _ in pairs])
        missing = {path: [pair for pair in pairs if pair[0] not in whole] for path, pairs in entries.items()}
        todo = [path for path, pairs in missing.items() if pairs]
        skipped: dict[Path, str] = {}

        def work(paths: Sequence[Path]) -> dict[Path, str]:
            unread: dict[Path, str] = {}
            images = _read(paths, unread)
            rows = [(file, (image, view)) for path, image in images.items() for file, view in missing[path]]
            for number, features in self.extract_all([pair for _, pair in rows]):
                save_array(rows[number][0], to_stored(features))
            return unread

        if todo:
            # Before the threads start, so that it is folded once.
            self._folded.eval()
        size = images_at_once(self._device)
        parts = [todo[first : first + size] for first in range(0, len(todo), size)]
        with one_thread_per_image(self._device) as threads:
            for unread in map_threads(work, parts, "Features", threads):
                skipped |= unread
        return skipped

    def load(self, key: str, path: Path, view: View) -> Tensor:
        """The cached map of a view, (C, h, w) float16; or the view's pixels, float32, where nothing is frozen."""
        return self.load_all(key, path, [view])[0]

    def load_all(self, key: str, path: Path, views: Sequence[View]) -> list[Tensor]:
        """The same for several views; an image that has to be read is read once."""
        if self.cached:
            return [from_stored(load_array(self._entry(key, view))) for view in views]
        image = read_image(path)
        return [to_pixels(image, view, self._backbone) for view in views]

    def _entry(self, key: str, view: View) -> Path:
        if view not in self._folders:
            name = {"scale": view.scale, "flipped": view.flipped}
            self._folders[view] = open_store("features", {**self._settings, **name})
        return entry(self._folders[view], key)


def to_stored(features: Tensor) -> NDArray[np.uint8]:
    """The bytes of the nearest numbers of `STORED`; beyond its range the largest, which would else be infinity."""
    largest = torch.finfo(STORED).max
    content: NDArray[np.uint8] = features.clamp(-largest, largest).to(STORED).view(torch.uint8).numpy()
    return content


def from_stored(content: NDArray[np.uint8]) -> Tensor:
    """The same numbers in half precision, which has them all."""
    return torch.from_numpy((content.astype(np.uint16) << 8).view(np.float16))


def _read(paths: Sequence[Path], unread: dict[Path, str]) -> dict[Path, NDArray[np.uint8]]:
    images = {}
    for path in paths:
        try:
            images[path] = read_image(path)
        except ImageError as error:
            unread[path] = str(error)
    return images


def _unreadable(images: Mapping[str, Path]) -> dict[Path, str]:
    skipped: dict[Path, str] = {}
    for _ in map_images(read_image, list(images.values()), "Check images", None, skipped):
        pass
    return skipped
