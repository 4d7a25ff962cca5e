"""Boxes that refer to another size of their image than that of its file, brought to the file's.

An image is shrunk after it was annotated, a tool ignores the rotation in EXIF, a converter swaps width and height: the
numbers of the boxes then belong elsewhere. The size that the annotations state tells.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from boxless.datasets.common import Box, Object, boxed_sample
from boxless.datasets.problems import Problems
from boxless.errors import ImageError
from boxless.images import Header, image_header, image_size
from boxless.structures import Sample

Size = tuple[int, int]

ASPECT = 0.01
"""Relative difference of two aspects, or one pixel of the shortest side if that is more, that rounding explains."""
OUTSIDE = 1
"""Pixels by which a box must leave a frame to count as outside of it."""
MOST_OUTSIDE = 0.05
"""Share of boxes outside of the frame they are said to refer to, above which they do not: a few are mistakes."""

_LARGEST_FRACTION = 1.001
"""Rounded fractions may exceed 1."""

_FRACTIONS = "images whose boxes are fractions of the image, scaled to pixels"
_SCALED = "images whose annotations state another size than the file has, their boxes scaled to the file"
_TURNED = "images annotated without the rotation in their EXIF, their boxes turned with the image"
_MISSTATED = "images whose annotations state a wrong size, their boxes fit the file and are taken as they are"
_SWAPPED = "images whose annotations swap width and height, for no reason in EXIF, boxes left out (the tags stay)"
_OTHER = "images whose annotations state a size of another shape than the file's, boxes left out (the tags stay)"


class AnnotatedImage(NamedTuple):
    """An image with its objects.

    Args:
        id: of the sample.
        path: of the image.
        objects: of the image.
        size: width and height in pixels of the frame that the boxes refer to; None if the annotations do not say.
    """

    id: str
    path: Path
    objects: Sequence[Object]
    size: Size | None


def boxed_samples(images: Sequence[AnnotatedImage], classes: Sequence[str], problems: Problems) -> list[Sample]:
    """Turn annotated images into samples, with their boxes in pixels of the displayed files.

    Boxes that all lie between 0 and 1 are fractions of the images, and become pixels. Else headers are read of the
    images that have a box and state a size. Where both sizes differ and have one aspect, boxes
    are scaled; where the file's is that of the turned image and EXIF says how it is turned, they are turned; else they
    are left out. If all images with a quarter turn in EXIF were annotated without it, those with a half turn or a
    mirroring were, too, though their sizes are the same. Boxes that fit the files better than the stated sizes are
    taken as they are.

    Args:
        images: the images.
        classes: the class names; every object has one of them.
        problems: receives what was done.
    """
    if _has_fractions(images):
        images = [_to_pixels(image, problems) for image in images]
    headers = [_header(image) for image in images]
    relations = [_relation(image.size, header) for image, header in zip(images, headers, strict=True)]
    trusted = _trusted(images, headers, relations)
    if _TURNED not in trusted:
        relations = _with_half_turns(relations, headers)
    return [
        _sample(image, header, _MISSTATED if relation in trusted else relation, classes, problems)
        for image, header, relation in zip(images, headers, relations, strict=True)
    ]


def _has_fractions(images: Iterable[AnnotatedImage]) -> bool:
    """Whether all boxes lie between 0 and 1, and not all of their numbers are integers."""
    sides = [side for image in images for item in image.objects if item.box is not None for side in item.box]
    return all(0 <= side <= _LARGEST_FRACTION for side in sides) and any(not side.is_integer() for side in sides)


def _to_pixels(image: AnnotatedImage, problems: Problems) -> AnnotatedImage:
    """An image with boxes in fractions as one with boxes in pixels."""
    if all(item.box is None for item in image.objects):
        return image
    try:
        width, height = image_size(image.path)
    except ImageError as error:
        problems.add("images whose size cannot be read, their boxes dropped (the tags stay)", str(error))
        return image._replace(objects=[replace(item, box=None, has_box=False) for item in image.objects], size=None)
    problems.add(_FRACTIONS, image.id)

    def scaled(box: Box | None) -> Box | None:
        if box is None:
            return None
        x1, y1, x2, y2 = (min(side, 1) for side in box)
        return (x1 * width, y1 * height, x2 * width, y2 * height)

    return image._replace(objects=[replace(item, box=scaled(item.box)) for item in image.objects], size=None)


def _header(image: AnnotatedImage) -> Header | None:
    if image.size is None or all(item.box is None for item in image.objects):
        return None
    try:
        return image_header(image.path)
    except ImageError:  # Whoever decodes the image reports it.
        return None


def _relation(stated: Size | None, header: Header | None) -> str:
    """What makes the stated size differ from the file's: one of the kinds above, or nothing."""
    if stated is None or header is None or stated == header.size:
        return ""
    upright, swapped = _aspect_difference(stated, header.size), _aspect_difference(stated[::-1], header.size)
    if min(upright, swapped) > max(ASPECT, 1 / min(*stated, *header.size)):
        return _OTHER
    if upright <= swapped:
        return _SCALED
    return _TURNED if _is_quarter_turn(header) else _SWAPPED


def _aspect_difference(one: Size, other: Size) -> float:
    products = one[0] * other[1], one[1] * other[0]
    return abs(products[0] - products[1]) / max(products)


def _is_quarter_turn(header: Header) -> bool:
    return header.orientation >= 5


def _with_half_turns(relations: Sequence[str], headers: Sequence[Header | None]) -> list[str]:
    """Add the images whose rotation leaves the size as it is, if EXIF was ignored wherever the size shows it."""
    quarter = [
        relation
        for relation, header in zip(relations, headers, strict=True)
        if header is not None and _is_quarter_turn(header) and header.size[0] != header.size[1]
    ]
    ignored = _TURNED in quarter and all(relation in (_TURNED, _OTHER) for relation in quarter)
    return [
        _TURNED if ignored and header and header.orientation > 1 and relation in ("", _SCALED) else relation
        for relation, header in zip(relations, headers, strict=True)
    ]


def _trusted(
    images: Sequence[AnnotatedImage], headers: Sequence[Header | None], relations: Sequence[str]
) -> frozenset[str]:
    """The kinds whose boxes leave the stated frame clearly more often than the file's."""
    boxes, surplus = Counter[str](), Counter[str]()
    for image, header, relation in zip(images, headers, relations, strict=True):
        if relation in (_SCALED, _TURNED, _SWAPPED) and header is not None and image.size is not None:
            for item in image.objects:
                boxes[relation] += 1
                surplus[relation] += _leaves(item.box, image.size) - _leaves(item.box, header.size)
    return frozenset(kind for kind, number in boxes.items() if surplus[kind] > MOST_OUTSIDE * number)


def _leaves(box: Box | None, size: Size) -> bool:
    return box is not None and (box[2] > size[0] + OUTSIDE or box[3] > size[1] + OUTSIDE)


def _sample(
    image: AnnotatedImage, header: Header | None, relation: str, classes: Sequence[str], problems: Problems
) -> Sample:
    if relation:
        problems.add(relation, image.id)
    size = image.size if header is None else header.size
    if relation in (_SWAPPED, _OTHER):
        unboxed = [replace(item, box=None) for item in image.objects]
        return boxed_sample(image.id, image.path, unboxed, classes, size, Problems())
    objects: Iterable[Object] = image.objects
    if image.size is not None and header is not None and relation in (_SCALED, _TURNED):
        orientation = header.orientation if relation == _TURNED else 1
        objects = (replace(item, box=_moved(item.box, image.size, header.size, orientation)) for item in objects)
    return boxed_sample(image.id, image.path, list(objects), classes, size, problems)


def _moved(box: Box | None, stated: Size, shown: Size, orientation: int) -> Box | None:
    """A box of the stored frame in the displayed image, which EXIF turns by `orientation`."""
    if box is None:
        return None
    stored = shown[::-1] if orientation >= 5 else shown
    width, height = stored
    across, down = width / stated[0], height / stated[1]
    x1, y1, x2, y2 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    moved: dict[int, Box] = {
        1: (x1, y1, x2, y2),
        2: (width - x2, y1, width - x1, y2),
        3: (width - x2, height - y2, width - x1, height - y1),
        4: (x1, height - y2, x2, height - y1),
        5: (y1, x1, y2, x2),
        6: (height - y2, x1, height - y1, x2),
        7: (height - y2, width - x2, height - y1, width - x1),
        8: (y1, width - x2, y2, width - x1),
    }
    return moved[orientation]
