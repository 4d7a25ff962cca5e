"""Views of images, batches, and the cache of feature maps: the frozen stages run once per view."""

from collections.abc import Mapping, Sequence
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
from boxless.config import BackboneConfig, ViewConfig
from boxless.devices import one_thread_per_image
from boxless.images import read_image
from boxless.parallel import map_images
from boxless.registry import outside_source
from boxless.structures import FloatArray

HALF_MAX = 65504.0
"""Largest number in half precision."""


@dataclass(frozen=True)
class View:
    """One way to give an image to the network.

    Args:
        scale: longest side in pixels.
        flipped: whether it is mirrored left to right.
    """

    scale: int
    flipped: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in this view of an image of `width` x `height` pixels."""
        factor = self.scale / max(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))

    def boxes(self, boxes: FloatArray, width: int, height: int) -> FloatArray:
        """Move boxes (N, 4), xyxy pixels of an image of `width` x `height`, into the pixels of this view."""
        view_width, view_height = self.size(width, height)
        moved = boxes * np.array([view_width / width, view_height / height] * 2, np.float32)
        if self.flipped:
            moved[:, [0, 2]] = view_width - moved[:, [2, 0]]
        return moved

    def restore(self, boxes: FloatArray, width: int, height: int) -> FloatArray:
        """Move boxes (N, 4), xyxy pixels of this view, back into the pixels of the image: the inverse of `boxes`."""
        view_width, view_height = self.size(width, height)
        moved = boxes.copy()
        if self.flipped:
            moved[:, [0, 2]] = view_width - moved[:, [2, 0]]
        return np.asarray(moved * np.array([width / view_width, height / view_height] * 2, np.float32), np.float32)


def views_of(config: ViewConfig) -> tuple[View, ...]:
    """Every view of a configuration, mirrored ones after plain ones."""
    flips = (False, True) if config.flips else (False,)
    return tuple(View(scale, flipped) for flipped in flips for scale in config.scales)


class Targets(NamedTuple):
    """Boxes of one view to train on: pseudo labels, or ground truth with `supervision=boxes`.

    Args:
        boxes: (M, 4) float32, xyxy pixels of the view.
        labels: (M,) int64.
        ignore: (M,) bool: neither object nor background, see `Annotations`.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor


@dataclass(frozen=True)
class Batch:
    """The input of a model: views of images, as feature maps or as pixels, with what is known about them.

    Args:
        maps: (B, C, H, W) float16 as they are stored, or float32: the frozen part's output (or normalised pixels where
            nothing is frozen), zero beyond each view's own extent.
        sizes: (B, 2) int64, height and width of each view in pixels.
        extents: (B, 2) int64, height and width of each view's own map in cells; some networks have no cell for the last
            pixels.
        boxes: for each view its proposals, (N, 4) float32, xyxy pixels of the view; None for methods without.
        image_labels: (B, classes) float32: 1 present, 0 absent, NaN unsure; None at inference.
        targets: for each view the boxes to train on; None for methods trained on image labels alone, and at inference.
    """

    maps: Tensor
    sizes: Tensor
    extents: Tensor
    boxes: list[Tensor] | None = None
    image_labels: Tensor | None = None
    targets: list[Targets] | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.maps.to(device),
            self.sizes.to(device),
            self.extents.to(device),
            None if self.boxes is None else [boxes.to(device) for boxes in self.boxes],
            None if self.image_labels is None else self.image_labels.to(device),
            None if self.targets is None else [Targets(*(part.to(device) for part in view)) for view in self.targets],
        )

    def own(self, maps: Tensor) -> list[Tensor]:
        """Cut the padding off maps (B, C, h, w) that were made from `self.maps`: for each view (C, h', w')."""
        shares = self.extents.cpu() * torch.tensor(maps.shape[-2:]) / torch.tensor(self.maps.shape[-2:])
        return [
            row[:, :height, :width] for row, (height, width) in zip(maps, shares.ceil().long().tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Item:
    """One row of a `Batch`: `map` (C, h, w) of any precision, `size` (height, width), `boxes` (N, 4), `image_labels`
    (classes,), `targets`."""

    map: Tensor
    size: tuple[int, int]
    boxes: Tensor | None = None
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
    boxes = [item.boxes for item in items if item.boxes is not None]
    image_labels = [item.image_labels for item in items if item.image_labels is not None]
    targets = [item.targets for item in items if item.targets is not None]
    return Batch(
        maps,
        torch.tensor([item.size for item in items]),
        torch.tensor([item.map.shape[1:] for item in items]),
        boxes or None,
        torch.stack(image_labels) if image_labels else None,
        targets or None,
    )


def to_pixels(image: NDArray[np.uint8], view: View, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize, mirror and normalise an image (h, w, 3) uint8 into (3, h', w') float32."""
    size = view.size(image.shape[1], image.shape[0])
    shrinks = size[0] < image.shape[1]
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if view.flipped:
        resized = resized[:, ::-1]
    pixels = (resized.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


class FeatureStore:
    """Feature maps of the frozen part of a backbone, keyed by image content, view and weights.

    Maps lie on disk in half precision, one file a view, and are read when they are needed, so that memory does not grow
    with their number. Where nothing is frozen, nothing is stored: `load` then gives the pixels themselves.

    Args:
        backbone: for the pixels' mean and deviation.
        frozen: its frozen stages, in evaluation mode.
        config: what to name in the artefact.
        device: where the frozen stages run.

    Raises:
        BoxlessError: the cache folder cannot be written.
    """

    def __init__(self, backbone: Backbone, frozen: nn.Sequential, config: BackboneConfig, device: torch.device) -> None:
        self._mean, self._std = backbone.mean, backbone.std
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
            "versions": {module.__name__: module.__version__ for module in (torch, torchvision, timm, cv2)},
        }

    def extract(self, image: NDArray[np.uint8], view: View) -> Tensor:
        """Run the frozen stages on one view of an image (h, w, 3) uint8: (C, h', w') float32, rounded as if stored."""
        pixels = to_pixels(image, view, self._mean, self._std)
        if not self.cached:
            return pixels
        with torch.inference_mode():
            batch = pixels[None].to(self._device).contiguous(memory_format=torch.channels_last)
            features: Tensor = self._folded(batch)[0]
            # Half precision would turn larger values into infinity.
            return features.clamp(-HALF_MAX, HALF_MAX).half().float().cpu().contiguous()

    @cached_property
    def _folded(self) -> nn.Module:
        # Not in the constructor, as most stores only load.
        return folded(self._frozen).to(memory_format=torch.channels_last)

    def compute(self, images: Mapping[str, Path], views: Sequence[View]) -> dict[Path, str]:
        """Extract and cache the maps that are missing or damaged; where nothing is frozen, only check the images.

        Images go through the network one by one, so that a map does not depend on which others were missing.

        Args:
            images: content key -> file.
            views: which views of each.

        Returns:
            Images that could not be read -> reason.
        """
        if not self.cached:
            return _unreadable(images)
        entries = {path: [(self._entry(key, view), view) for view in views] for key, path in images.items()}
        whole = find_arrays([file for pairs in entries.values() for file, _ in pairs])
        missing = {path: [pair for pair in pairs if pair[0] not in whole] for path, pairs in entries.items()}
        todo = [path for path, pairs in missing.items() if pairs]
        skipped: dict[Path, str] = {}

        def work(path: Path) -> None:
            image = read_image(path)
            for file, view in missing[path]:
                save_array(file, self.extract(image, view).half().numpy())

        if todo:
            # Before the threads start, so that it is folded once.
            self._folded.eval()
        with one_thread_per_image(self._device) as threads:
            for _ in map_images(work, todo, "Features", threads, skipped):
                pass
        return skipped

    def load(self, key: str, path: Path, view: View) -> Tensor:
        """The cached map of a view, (C, h, w) float16; or the view's pixels, float32, where nothing is frozen."""
        if not self.cached:
            return self.extract(read_image(path), view)
        return torch.from_numpy(load_array(self._entry(key, view)))

    def _entry(self, key: str, view: View) -> Path:
        if view not in self._folders:
            name = {"scale": view.scale, "flipped": view.flipped}
            self._folders[view] = open_store("features", {**self._settings, **name})
        return entry(self._folders[view], key)


def _unreadable(images: Mapping[str, Path]) -> dict[Path, str]:
    skipped: dict[Path, str] = {}
    for _ in map_images(read_image, list(images.values()), "Check images", None, skipped):
        pass
    return skipped
