"""PASCAL VOC: JPEGImages, Annotations and ImageSets/Main of a year of the development kit, or images with XML files.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", sections 2 and 3.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from boxless.datasets.common import choose_split, dataset_name, first_path, loaded, read_lines, split_kinds
from boxless.datasets.layouts import Source
from boxless.datasets.lookup import FileFinder, NameIndex
from boxless.datasets.problems import Problems
from boxless.datasets.voc_pairs import find_pairs, load_pairs, pair
from boxless.datasets.voc_xml import NO_ANNOTATION, NO_IMAGE, annotated, annotation_files, images_by_id, read_annotation
from boxless.errors import BoxlessError
from boxless.image_files import is_hidden
from boxless.structures import Dataset, Sample

_NOT_THERE = "ids without an image in JPEGImages, left out"


def voc(path: Path) -> Source | None:
    """A folder with JPEGImages, ImageSets/Main/<split>.txt and Annotations, or with images and their .xml files."""
    years = find_years(path)
    if len(years) > 1:
        raise BoxlessError(f"{path} contains several VOC years; choose one of {', '.join(map(str, years))}")
    if years and (_lists(years[0]) or not (years[0] / "Annotations").is_dir()):
        return Source(partial(voc_splits, years[0]), partial(load_voc, years[0]))
    year = years[0] if years else None
    pairs = find_pairs(path) if year is None else pair(year, year / "JPEGImages", year / "Annotations")
    return Source(lambda: pairs.splits, partial(load_pairs, pairs)) if pairs else None


def find_years(path: Path) -> list[Path]:
    """The year folders (those with JPEGImages): `path` itself, else those in its VOCdevkit, else those in it."""
    for folders in ([path], sorted((path / "VOCdevkit").glob("*")), sorted(path.glob("*"))):
        years = [folder for folder in folders if first_path([folder / "JPEGImages"], Path.is_dir)]
        if years:
            return years
    return []


def voc_splits(year: Path) -> set[str]:
    """The splits of a year folder: its lists of images; without annotations, the suffixes of its class lists."""
    if (year / "Annotations").is_dir():
        return _lists_of_images(year, None)
    return {stem.rpartition("_")[2] for stem in _lists(year) if "_" in stem}


def load_voc(year: Path, split: str | None) -> Dataset:
    """Read one split of a year folder.

    Classes are the names in the split's annotations, sorted. Boxes in the files are 1-based, right and bottom
    inclusive; they become (xmin - 1, ymin - 1, xmax, ymax). A class with only difficult objects is unsure. Without a
    folder Annotations, tags are read from ImageSets/Main/<class>_<split>.txt: 1 present, -1 absent, 0 unsure.

    Args:
        year: a folder with JPEGImages and ImageSets/Main, or the lists in ImageSets itself.
        split: the stem of a list there; None for trainval, else train, else the only one.

    Raises:
        BoxlessError: there is no such split, or more than half of its images or annotations are missing.
    """
    problems = Problems()
    files = images_by_id(year / "JPEGImages", problems)
    if not (year / "Annotations").is_dir():
        return _from_class_lists(year, split, files, problems)
    split = choose_split(split, _lists_of_images(year, split), year)
    ids = read_lines(_lists(year)[split])
    index = NameIndex(files)
    images = {id_: files[id_] for id_ in _known_ids(year, ids, files, index, problems).values()}
    annotations = FileFinder([year / "Annotations"])
    read = {
        id_: read_annotation(annotations.find(f"{id_}.xml", problems) or year / "Annotations" / f"{id_}.xml", problems)
        for id_ in images
    }
    problems.refuse_most(NO_ANNOTATION, len(images), year, "add the annotations, or give them the names of the images")
    _add_files_without_image(year / "Annotations", index, problems)
    _add_unlisted(year, files, index, annotations, problems)
    return annotated(dataset_name(year, split), images, read, problems)


def _lists_of_images(year: Path, split: str | None) -> set[str]:
    """The splits; <class>_<split>.txt is one only if it is requested by its stem."""
    stems = _lists(year).keys()
    return {stem for stem in stems if stem == split or not any(stem.endswith(f"_{other}") for other in stems - {stem})}


def _lists(year: Path) -> dict[str, Path]:
    """The lists of ImageSets/Main by their stems; if there are none, those of splits in ImageSets itself."""
    folder = year / "ImageSets"
    found = {file.stem: file for file in (folder / "Main").glob("*.txt") if not is_hidden(file.name)}
    return found or {file.stem: file for file in folder.glob("*.txt") if split_kinds([file.stem])}


def _known_ids(
    year: Path, ids: list[str], files: Mapping[str, Path], index: NameIndex, problems: Problems
) -> dict[str, str]:
    """Listed id -> id of its image, for those that have one: the same, unless the list spells it otherwise."""
    own = {file: id_ for id_, file in files.items()}
    known: dict[str, str] = {}
    taken: set[str] = set()
    for listed in ids:
        file = index.find(listed, problems)
        if file is None:
            problems.add_unmatched(_NOT_THERE, listed)
        elif (id_ := own[file]) in taken:
            problems.add("ids listed more than once, taken once", id_)
        else:
            taken.add(id_)
            known[listed] = id_
    problems.refuse_most(_NOT_THERE, len(ids), year, "give the images the names in the list, or list those there are")
    return known


def _add_files_without_image(folder: Path, index: NameIndex, problems: Problems) -> None:
    silent = Problems()
    for file in annotation_files(folder):
        id_ = file.relative_to(folder).with_suffix("").as_posix()
        if index.find(id_, silent) is None:
            problems.add_unmatched(NO_IMAGE, file.relative_to(folder).as_posix())


def _add_unlisted(
    year: Path, files: Mapping[str, Path], index: NameIndex, annotations: FileFinder, problems: Problems
) -> None:
    """Count images with an annotation that no list has, of images or of a class."""
    silent = Problems()
    lines = {line for file in _lists(year).values() for line in read_lines(file)}
    # Lines of the list of a class end with a number.
    names = lines | {line.rpartition(" ")[0].strip() for line in lines}
    listed = {index.find(name, silent) for name in names if name}
    for id_, file in files.items():
        if file not in listed and annotations.find(f"{id_}.xml", silent):
            problems.add("images with annotations that no list in ImageSets has, not used", id_)


def _from_class_lists(year: Path, split: str | None, files: Mapping[str, Path], problems: Problems) -> Dataset:
    lists = _lists(year)
    stems = sorted(stem for stem in lists if "_" in stem)
    if not stems:
        raise BoxlessError(
            f"{year} has neither Annotations nor tags in ImageSets/Main/<class>_<split>.txt: add one of them"
        )
    split = choose_split(split, voc_splits(year), year)
    classes = [stem.removesuffix(f"_{split}") for stem in stems if stem.endswith(f"_{split}")]
    values: dict[str, dict[int, str]] = {}
    for label, name in enumerate(classes):
        file = lists[f"{name}_{split}"]
        for line in read_lines(file):
            id_, _, value = line.replace("\t", " ").rpartition(" ")
            if not id_ or value not in ("1", "-1", "0"):
                problems.add("lines that are not `id 1`, `id -1` or `id 0`, left out", file.name)
            else:
                values.setdefault(id_.strip(), {})[label] = value
    samples = []
    for listed, id_ in _known_ids(year, list(values), files, NameIndex(files), problems).items():
        tags, unsure = ({label for label, value in values[listed].items() if value == wanted} for wanted in ("1", "0"))
        samples.append(Sample(id_, files[id_], frozenset(tags), frozenset(unsure)))
    return loaded("PASCAL VOC, tags only", dataset_name(year, split), classes, samples, problems)
