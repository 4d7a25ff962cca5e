"""PASCAL VOC: JPEGImages, Annotations and ImageSets/Main of one year of the development kit.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", sections 2 and 3.
"""

from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from boxless.datasets._shared import (
    Box,
    Object,
    Problems,
    boxed_sample,
    choose_split,
    dataset_name,
    read_lines,
    to_floats,
    to_size,
)
from boxless.errors import BoxlessError
from boxless.images import find_images
from boxless.structures import Dataset, Sample


def find_years(path: Path) -> list[Path]:
    """The year folders (those with JPEGImages): `path` itself, else those in its VOCdevkit, else those in it."""
    for folders in ([path], sorted((path / "VOCdevkit").glob("*")), sorted(path.glob("*"))):
        years = [folder for folder in folders if (folder / "JPEGImages").is_dir()]
        if years:
            return years
    return []


def voc_splits(year: Path) -> set[str]:
    """The splits of a year folder: its lists of images, or without annotations what its lists of classes end in."""
    if (year / "Annotations").is_dir():
        return _lists_of_images(year, None)
    return {stem.rpartition("_")[2] for stem in _list_stems(year) if "_" in stem}


def load_voc(year: Path, split: str | None) -> Dataset:
    """Read one split of a year folder.

    Classes are the names that the split's annotations hold, sorted. Boxes are 1-based with the last pixel inside in
    the files: (xmin - 1, ymin - 1, xmax, ymax) here. A class with only difficult objects is unsure. Without a folder
    Annotations, tags are read from ImageSets/Main/<class>_<split>.txt: 1 present, -1 absent, 0 unsure.

    Args:
        year: a folder with JPEGImages and ImageSets/Main.
        split: the stem of a list in ImageSets/Main; None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split.
    """
    problems = Problems()
    if (year / "Annotations").is_dir():
        split, classes, samples = _with_annotations(year, split, problems)
    else:
        split, classes, samples = _from_class_lists(year, split, problems)
    return Dataset(dataset_name(year, split), tuple(classes), tuple(samples), problems.lines())


def _with_annotations(year: Path, split: str | None, problems: Problems) -> tuple[str, list[str], list[Sample]]:
    split = choose_split(split, _lists_of_images(year, split), year)
    ids = read_lines(year / "ImageSets" / "Main" / f"{split}.txt")
    images = _known_images(year, ids, problems)
    read = {id_: _read_annotation(year / "Annotations" / f"{id_}.xml", problems) for id_ in images}
    known = {id_: annotation for id_, annotation in read.items() if annotation is not None}
    classes = sorted({thing.name for annotation in known.values() for thing in annotation.objects})
    samples = [
        boxed_sample(id_, images[id_], annotation.objects, classes, annotation.size, problems)
        for id_, annotation in known.items()
    ]
    return split, classes, samples


def _lists_of_images(year: Path, asked: str | None) -> set[str]:
    """The splits; a <class>_<split>.txt is one only if it is asked for by its name."""
    stems = _list_stems(year)
    return {stem for stem in stems if stem == asked or not any(stem.endswith(f"_{other}") for other in stems - {stem})}


def _list_stems(year: Path) -> set[str]:
    return {file.stem for file in (year / "ImageSets" / "Main").glob("*.txt")}


def _known_images(year: Path, ids: list[str], problems: Problems) -> dict[str, Path]:
    folder = year / "JPEGImages"
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in find_images(folder)}
    known: dict[str, Path] = {}
    for id_ in ids:
        if id_ in known:
            problems.add("ids listed more than once, taken once", id_)
        elif id_ in files:
            known[id_] = files[id_]
        else:
            problems.add("ids without an image in JPEGImages, left out", id_)
    return known


class _Annotation(NamedTuple):
    objects: list[Object]
    size: tuple[int, int] | None


def _read_annotation(file: Path, problems: Problems) -> _Annotation | None:
    """None where the image's tags stay unknown, which is not the same as none."""
    try:
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        problems.add("images without an annotation, left out as their tags are unknown", file.name)
        return None
    except (ParseError, ValueError, LookupError, OSError):
        root = None  # defusedxml's refusals are ValueErrors, an unheard-of encoding is a LookupError.
    if root is None or root.tag != "annotation":
        problems.add("annotations that are not valid VOC XML, their images left out", file.name)
        return None
    objects = []
    for node in root.findall("object"):
        name = _text(node, "name")
        if name:
            objects.append(Object(name, _box(node.find("bndbox")), _text(node, "difficult") == "1"))
        else:
            problems.add("objects without a name, left out", file.name)
    return _Annotation(objects, to_size(root.findtext(f"size/{side}") for side in ("width", "height")))


def _text(node: Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def _box(node: Element | None) -> Box | None:
    if node is None:
        return None
    numbers = to_floats(_text(node, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return None if numbers is None else (numbers[0] - 1, numbers[1] - 1, numbers[2], numbers[3])


def _from_class_lists(year: Path, split: str | None, problems: Problems) -> tuple[str, list[str], list[Sample]]:
    stems = sorted(stem for stem in _list_stems(year) if "_" in stem)
    if not stems:
        raise BoxlessError(
            f"{year} has neither Annotations nor tags in ImageSets/Main/<class>_<split>.txt: add one of them"
        )
    split = choose_split(split, voc_splits(year), year)
    classes = [stem.removesuffix(f"_{split}") for stem in stems if stem.endswith(f"_{split}")]
    values: dict[str, dict[int, str]] = {}
    for label, name in enumerate(classes):
        file = year / "ImageSets" / "Main" / f"{name}_{split}.txt"
        for line in read_lines(file):
            id_, _, value = line.replace("\t", " ").rpartition(" ")
            if not id_ or value not in ("1", "-1", "0"):
                problems.add("lines that are not `id 1`, `id -1` or `id 0`, left out", file.name)
            else:
                values.setdefault(id_.strip(), {})[label] = value
    samples = []
    for id_, path in _known_images(year, list(values), problems).items():
        tags, unsure = ({label for label, value in values[id_].items() if value == wanted} for wanted in ("1", "0"))
        samples.append(Sample(id_, path, frozenset(tags), frozenset(unsure)))
    return split, classes, samples
