"""The images of a dataset: files are read once, grouped by content, and joined with their tags."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from boxless.doctor.similarity import group_duplicates, group_scenes, thumbnail, turned_hashes
from boxless.images import content_key, read_image
from boxless.parallel import map_images
from boxless.structures import Dataset, FloatArray


@dataclass(frozen=True)
class ImageFile:
    """The content of a file.

    Args:
        key: its content key.
        longest_side: in pixels.
        scene: a number shared by files that look similar, such as photos of one scene.
        duplicates: a number shared by files that show the same image, also turned or mirrored.
        upright: a number shared by files that show the same image the same way up.
    """

    key: str
    longest_side: int
    scene: int
    duplicates: int
    upright: int


@dataclass(frozen=True)
class TaggedImage:
    """An image of a split; tags are names, since splits may number them differently.

    Args:
        split: name of the split.
        path: the image's file.
        file: its content.
        tags: classes in the image.
        unsure: classes that may be in the image.
        objects: number of objects of each class; None without boxes.
        given: classes of which a person has given boxes for training.
        counted: classes of which a person has counted the objects, or pointed at them.
    """

    split: str
    path: Path
    file: ImageFile
    tags: frozenset[str]
    unsure: frozenset[str]
    objects: Counter[str] | None
    given: frozenset[str] = frozenset()
    counted: frozenset[str] = frozenset()


def read_files(paths: Collection[Path]) -> tuple[dict[Path, ImageFile], dict[Path, str]]:
    """Read image files.

    Returns:
        The content of each file, and the files that cannot be read -> reason.
    """
    broken: dict[Path, str] = {}
    read = dict(map_images(_read, paths, "Read images", None, broken))
    thumbs = {key: thumb for key, _, thumb in read.values()}
    images = list(thumbs.values())
    scenes = group_scenes(turned_hashes(images))
    duplicates, upright = group_duplicates(scenes, images), group_duplicates(scenes, images, orientations=1)
    groups = dict(zip(thumbs, zip(scenes.tolist(), duplicates.tolist(), upright.tolist(), strict=True), strict=True))
    return {path: ImageFile(key, side, *groups[key]) for path, (key, side, _) in read.items()}, broken


def _read(path: Path) -> tuple[str, int, FloatArray]:
    image = read_image(path)
    return content_key(path), max(image.shape[:2]), thumbnail(image)


def tagged_images(splits: Mapping[str, Dataset], files: Mapping[Path, ImageFile]) -> list[TaggedImage]:
    """The images of the splits whose files could be read."""
    return [
        TaggedImage(
            split,
            sample.path,
            files[sample.path],
            frozenset(dataset.classes[tag] for tag in sample.tags),
            frozenset(dataset.classes[tag] for tag in sample.unsure),
            None if (boxes := sample.annotations) is None else Counter(dataset.classes[i] for i in boxes.labels),
            frozenset() if sample.given is None else frozenset(dataset.classes[i] for i in sample.given.labels),
            frozenset(dataset.classes[i] for i in (*sample.counts, *(point.label for point in sample.points))),
        )
        for split, dataset in splits.items()
        for sample in dataset.samples
        if sample.path in files
    ]
