"""What the images of a data set show: read once, and put together with their tags."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boxless.doctor.similarity import BITS, group_alike, group_same, image_hash, thumbnail
from boxless.errors import ImageError
from boxless.images import content_key, read_image
from boxless.progress import track_threads
from boxless.structures import Dataset, FloatArray


@dataclass(frozen=True)
class Look:
    """What a file shows.

    Args:
        key: its content key.
        side: its longer side in pixels.
        alike: a number it shares with files that look much like it, as of one scene.
        same: a number it shares with files that show the same image.
    """

    key: str
    side: int
    alike: int
    same: int


@dataclass(frozen=True)
class Image:
    """An image in a split, its tags by name, since splits may number them differently.

    Args:
        objects: how many of each class there are; None where there are no boxes.
    """

    split: str
    path: Path
    look: Look
    tags: frozenset[str]
    unsure: frozenset[str]
    objects: Counter[str] | None


def look_at(paths: Iterable[Path]) -> tuple[dict[Path, Look], dict[Path, str]]:
    """Read all images.

    Returns:
        What each file shows, and those that cannot be read -> reason.
    """
    files = list(paths)
    seen, broken = {}, {}
    with closing(track_threads(_read, files, "Look at images", None)) as found:
        for path, result in zip(files, found, strict=True):
            if isinstance(result, ImageError):
                broken[path] = str(result)
            else:
                seen[path] = result
    thumbs = {key: thumb for key, _, thumb in seen.values()}
    alike = group_alike(np.array([image_hash(thumb) for thumb in thumbs.values()], np.bool_).reshape(-1, BITS))
    same = group_same(alike, list(thumbs.values()))
    groups = dict(zip(thumbs, zip(alike.tolist(), same.tolist(), strict=True), strict=True))
    return {path: Look(key, side, *groups[key]) for path, (key, side, _) in seen.items()}, broken


def _read(path: Path) -> tuple[str, int, FloatArray] | ImageError:
    try:
        image = read_image(path)
        return content_key(path), max(image.shape[:2]), thumbnail(image)
    except ImageError as error:
        return error


def images_of(splits: Mapping[str, Dataset], looks: Mapping[Path, Look]) -> list[Image]:
    """The images of the splits, those that could be read."""
    return [
        Image(
            split,
            sample.path,
            looks[sample.path],
            frozenset(dataset.classes[tag] for tag in sample.tags),
            frozenset(dataset.classes[tag] for tag in sample.unsure),
            None if (boxes := sample.annotations) is None else Counter(dataset.classes[i] for i in boxes.labels),
        )
        for split, dataset in splits.items()
        for sample in dataset.samples
        if sample.path in looks
    ]
