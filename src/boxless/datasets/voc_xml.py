"""Annotation files of PASCAL VOC: the objects of an image, and the size its boxes refer to.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", section 3.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from boxless.datasets.common import Box, Object, loaded, to_floats, to_size
from boxless.datasets.problems import Problems
from boxless.datasets.sizes import AnnotatedImage, are_fractions, boxed_samples
from boxless.files import readable_bytes
from boxless.image_files import scan_images, walk_files
from boxless.structures import Dataset

NO_ANNOTATION = "images without an annotation, left out as their tags are unknown"
NO_IMAGE = "annotation files without an image"


class Annotation(NamedTuple):
    """One annotation file.

    Args:
        objects: of the image; boxes as in the file: xmin, ymin, xmax, ymax.
        size: width and height in pixels, None if unknown.
        names: what the file calls its image: <path> and <filename>, as far as it has them.
    """

    objects: list[Object]
    size: tuple[int, int] | None
    names: tuple[str, ...]


def annotated(
    name: str, images: Mapping[str, Path], read: Mapping[str, Annotation | None], problems: Problems
) -> Dataset:
    """The dataset of these images and annotations, both by sample id; classes are the names in it, sorted."""
    found = annotated_images(images, {id_: one for id_, one in read.items() if one is not None}, problems)
    classes = sorted({item.name for image in found for item in image.objects})
    return loaded("PASCAL VOC", name, classes, boxed_samples(found, classes, problems), problems)


def annotated_images(
    images: Mapping[str, Path], read: Mapping[str, Annotation], problems: Problems
) -> list[AnnotatedImage]:
    """The images of these annotations, both by sample id; boxes are xyxy from 0, right and bottom exclusive."""
    # Those of images in fractions have no pixels to count.
    counted = {id_: one for id_, one in read.items() if not are_fractions(one.objects)}
    known = {**read, **_to_exclusive(counted, problems)}
    return [AnnotatedImage(id_, images[id_], one.objects, one.size) for id_, one in known.items()]


def images_by_id(folder: Path, problems: Problems) -> dict[str, Path]:
    """The images of a folder by their paths in it, without suffix."""
    found = scan_images(folder)
    problems.add_unread(found.unread, folder)
    images: dict[str, Path] = {}
    for file in found.images:
        path = file.relative_to(folder)
        if images.setdefault(path.with_suffix("").as_posix(), file) is not file:
            problems.add("images with the name of another but for the suffix, left out", path.as_posix())
    return images


def annotation_files(folder: Path) -> list[Path]:
    """The XML files at any depth of a folder, sorted."""
    return sorted(walk_files(folder, {".xml"}))


def is_annotation(file: Path) -> bool:
    """Whether a file has the first tag of an annotation, unlike `<annotations>` of CVAT."""
    # In UTF-16 every other byte of these letters is 0.
    return re.search(rb"<annotation[\s>]", readable_bytes(file).replace(b"\0", b"")) is not None


def read_annotation(file: Path, problems: Problems) -> Annotation | None:
    """Read a file; None, and a problem, if it is not an annotation, or there is none."""
    try:
        root = _parse(file, problems)
    except FileNotFoundError:
        problems.add_unmatched(NO_ANNOTATION, file.name)
        return None
    except (ParseError, ValueError, LookupError, OSError):
        root = None  # defusedxml raises ValueErrors; an unknown encoding is a LookupError.
    if root is None or root.tag != "annotation":
        problems.add("annotations that are not valid VOC XML, their images left out", file.name)
        return None
    objects = []
    for node in root.findall("object"):
        name = _text(node, "name")
        if _is_set(node, "deleted"):
            problems.add("objects marked as deleted, left out", file.name)
        elif name:
            objects.append(Object(name, _box(node.find("bndbox")), _is_set(node, "difficult")))
        else:
            problems.add("objects without a name, left out", file.name)
    names = (name for name in (_text(root, tag) for tag in ("path", "filename")) if name)
    return Annotation(objects, to_size(root.findtext(f"size/{side}") for side in ("width", "height")), tuple(names))


def _parse(file: Path, problems: Problems) -> Element:
    content = file.read_bytes()
    try:
        root: Element = ElementTree.fromstring(content)
    except ParseError:
        try:
            content.decode()
        except UnicodeDecodeError:
            # Most that is not what it says, or UTF-8, is Latin-1, in which all bytes are letters.
            root = ElementTree.fromstring(content.decode("latin-1"))
            problems.add("annotation files that are not UTF-8, read as Latin-1", file.name)
        else:
            raise
    for node in root.iter():
        node.tag = node.tag.lower()
    return root


def _text(node: Element, tag: str) -> str:
    """The text of a child; `boxless.export.voc` writes what XML cannot hold in percent encoding."""
    child = node.find(tag)
    text = "" if child is None else (child.text or "").strip()
    if child is not None and child.get("encoding") == "percent":
        return unquote_to_bytes(text).decode("utf-8", "surrogateescape")
    return text


def _is_set(node: Element, tag: str) -> bool:
    return _text(node, tag).lower() in ("1", "true", "yes")


def _box(node: Element | None) -> Box | None:
    if node is None:
        return None
    numbers = to_floats(_text(node, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return None if numbers is None else (numbers[0], numbers[1], numbers[2], numbers[3])


def _to_exclusive(annotations: Mapping[str, Annotation], problems: Problems) -> dict[str, Annotation]:
    """Convert the boxes of a set to xyxy in pixels from 0, right and bottom exclusive.

    VOC counts pixels from 1, right and bottom inclusive: (xmin - 1, ymin - 1, xmax, ymax). A set in which more boxes
    begin at 0 than at 1 counts from 0: they are inclusive if more of them end at the last pixel than behind it.
    """
    begins = [begin for one in annotations.values() for box in _boxes(one) for begin in box[:2]]
    if sum(0 <= begin < 1 for begin in begins) <= sum(1 <= begin < 2 for begin in begins):
        return _shifted(annotations, -1, 0)
    for id_, one in annotations.items():
        if any(0 <= min(box[:2]) < 1 for box in _boxes(one)):
            problems.add("images with boxes that begin at pixel 0, so all are read as counted from 0, not from 1", id_)
    left = [side - end for one in annotations.values() for end, side in _ends(one)]
    inclusive = sum(0.5 < gap < 1.5 for gap in left) > sum(-0.5 < gap < 0.5 for gap in left)
    return _shifted(annotations, 0, 1 if inclusive else 0)


def _boxes(annotation: Annotation) -> list[Box]:
    return [item.box for item in annotation.objects if item.box is not None]


def _ends(annotation: Annotation) -> Iterable[tuple[float, int]]:
    """Right and bottom of every box, with width and height of the image."""
    if annotation.size is not None:
        for box in _boxes(annotation):
            yield from zip(box[2:], annotation.size, strict=True)


def _shifted(annotations: Mapping[str, Annotation], begin: int, end: int) -> dict[str, Annotation]:
    def shift(item: Object) -> Object:
        box = item.box
        return replace(item, box=box and (box[0] + begin, box[1] + begin, box[2] + end, box[3] + end))

    return {id_: one._replace(objects=list(map(shift, one.objects))) for id_, one in annotations.items()}
