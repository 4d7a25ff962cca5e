"""The images of the splits of a YOLO set, and those in their folders that no split has."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from boxless.datasets.common import first_path, read_lines
from boxless.datasets.lookup import FileFinder
from boxless.datasets.problems import Problems
from boxless.datasets.yolo_files import YoloData
from boxless.errors import BoxlessError
from boxless.image_files import scan_images, suffixes

MISSING = "images listed but missing, left out"


def split_images(data: YoloData, split: str, problems: Problems) -> Collection[Path]:
    """The images of a split, each once, in the order of its folders and lists.

    Raises:
        BoxlessError: one of these does not exist or is far above the description, or most images of a list are missing.
    """
    images: list[Path] = []
    for entry in data.splits[split]:
        source = _existing(entry, data, problems)
        if source is None:
            places = f"neither at {data.base / entry} nor at {data.root / entry}"
            raise BoxlessError(f"{data.file}: `{split}: {entry}` is {places}")
        if source.resolve() in data.file.resolve().parents[2:]:
            raise BoxlessError(f"{data.file}: `{split}: {entry}` is far above it; give the folder of its images")
        if source.is_file() and source.suffix.lower() not in suffixes():
            images += _listed(source, data.base, problems)
        else:
            found = scan_images(source)
            problems.add_unread(found.unread, data.root)
            images += found.images
    counts = Counter(images)
    for image, count in counts.items():
        if count > 1:
            problems.add("images listed more than once, taken once", str(image))
    return counts


def _existing(entry: str, data: YoloData, problems: Problems) -> Path | None:
    bases = (data.base, data.root)
    # Roboflow writes `../train/images` for a folder beside its data.yaml.
    usual = first_path((base / one for one in (entry, entry.removeprefix("../")) for base in bases), Path.exists)
    return usual or FileFinder(bases).find(entry, problems, Path.exists)


def _listed(file: Path, base: Path, problems: Problems) -> list[Path]:
    finder = FileFinder((file.parent, base))
    lines = read_lines(file)
    images = []
    for line in lines:
        # Darknet's paths start in a folder above, which is called data.
        image = finder.find(line, problems) or finder.find(line.removeprefix("data/"), problems)
        if image is None:
            problems.add_unmatched(MISSING, line)
        else:
            images.append(image)
    problems.refuse_most(MISSING, len(lines), file, "give paths that start in its folder")
    return images


def add_unlisted(data: YoloData, split: str, images: Collection[Path], problems: Problems) -> None:
    """Count image files in the folders of these images, at any depth of those called images, that no split has."""
    known = set(images)
    for other in data.splits.keys() - {split}:
        try:
            known.update(split_images(data, other, Problems()))
        except BoxlessError:  # Whoever loads that split is told.
            continue
    folders = {folder: Path(os.path.realpath(folder)) for folder in {image.parent for image in known}}
    real = {folders[image.parent] / image.name for image in known}
    tops = {_top(image.parent, (data.base, data.root)) for image in images}
    for image in sorted({image for top in tops for image in scan_images(top).images}):
        if image.parent not in folders:
            folders[image.parent] = Path(os.path.realpath(image.parent))
        if folders[image.parent] / image.name not in real:
            problems.add_unmatched("image files that no split has, not used", name_of_image(image, data.root))


def _top(folder: Path, bases: Sequence[Path]) -> Path:
    """The folder called images of the set that a folder lies in; the folder itself if there is none."""
    above = [one for one in (folder, *folder.parents) if one.name.lower() == "images"]
    return above[0] if above and any(above[0].is_relative_to(base) for base in bases) else folder


def name_of_image(image: Path, root: Path) -> str:
    """The path of an image relative to the folder of the set, if it lies in that."""
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.as_posix()
