"""Boxes that refer to another size of their image than that of its file, brought to the file's.

An image is shrunk after it was annotated, a tool ignores the rotation in EXIF, a converter swaps width and height: the
numbers of the boxes then belong elsewhere. The size that the annotations state tells; where they state none, boxes that
lie outside of the file do.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from boxless.datasets.common import Box, Object, boxed_sample
from boxless.datasets.problems import Problems
from boxless.errors import ImageError
from boxless.images import TURNS, Header, image_header
from boxless.progress import track
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
_WRONG_FRACTIONS = (-1, 2)
"""Where the sides of boxes lie that reach outside of their image, in a set that has boxes in fractions."""

_THREADS = 8
"""Readers of headers, which wait for the disk."""
_PART = 100
"""Headers between two steps of the progress bar."""
_BAR_PARTS = 50
"""Parts from which on there is a bar: fewer take less than a second."""
_START = 2**14
"""Bytes of a file that hold most headers."""

_FRACTIONS = "images whose boxes are fractions of the image, scaled to pixels"
_SCALED = "images whose annotations state another size than the file has, their boxes scaled to the file"
_TURNED = "images annotated without the rotation in their EXIF, their boxes turned with the image"
_MISSTATED = "images whose annotations state a wrong size, their boxes fit the file and are taken as they are"
_SWAPPED = "images whose annotations swap width and height, for no reason in EXIF, boxes left out (the tags stay)"
_OTHER = "images whose annotations state a size of another shape than the file's, boxes left out (the tags stay)"
_BEYOND = "images of no stated size with boxes beyond the file, so the other boxes may refer to another size, too"


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

    Headers are read of the images that have a box. Boxes of an image that all lie between 0 and 1 are fractions of it,
    and become pixels. Else, where the stated size and the file's differ and have one aspect, boxes are scaled; where
    the file's is that of the turned image and EXIF says how it is turned, they are turned; else they are left out. If
    all images with a quarter turn in EXIF were annotated without it, those with a half turn or a mirroring were, too,
    though their sizes are the same. Boxes that fit the files better than the stated sizes are taken as they are.

    Where no size is stated, boxes refer to the file as displayed, or, if they lie beyond it but not beyond the image
    before a quarter turn in EXIF, to the latter. Many boxes beyond the files are reported.

    Args:
        images: the images.
        classes: the class names; every object has one of them.
        problems: receives what was done.
    """
    headers = _headers(images)
    images = _in_pixels(images, headers, problems)
    images = _before_rotation(images, headers)
    _report_beyond(images, headers, problems)
    relations = [_relation(image.size, header) for image, header in zip(images, headers, strict=True)]
    trusted = _misstated_kinds(images, headers, relations)
    if _TURNED not in trusted:
        relations = _with_half_turns(images, headers, relations)
    return [
        _sample(image, header, _MISSTATED if relation in trusted else relation, classes, problems)
        for image, header, relation in zip(images, headers, relations, strict=True)
    ]


def are_fractions(objects: Iterable[Object]) -> bool:
    """Whether all boxes of an image lie between 0 and 1, and not all of their numbers are integers."""
    sides = _sides(objects)
    return _are_within(sides, 0, _LARGEST_FRACTION) and any(not side.is_integer() for side in sides)


def _sides(objects: Iterable[Object]) -> list[float]:
    return [side for item in objects if item.box is not None for side in item.box]


def _are_within(sides: Sequence[float], least: float, most: float) -> bool:
    return bool(sides) and all(least <= side <= most for side in sides)


def _headers(images: Sequence[AnnotatedImage]) -> list[Header | None]:
    """The headers of the images that have a box; None of the others, and where they cannot be read."""
    boxed = [image.path for image in images if _sides(image.objects)]
    parts = [boxed[start : start + _PART] for start in range(0, len(boxed), _PART)]
    pool = ThreadPoolExecutor(_THREADS)
    try:
        read = pool.map(_read_headers, parts)
        if len(parts) > _BAR_PARTS:
            read = track(read, "Image sizes, hundreds", len(parts), transient=True)
        found = iter([header for part in read for header in part])
    finally:
        pool.shutdown(cancel_futures=True)
    return [next(found) if _sides(image.objects) else None for image in images]


def _read_headers(paths: Iterable[Path]) -> list[Header | None]:
    return [_header(path) for path in paths]


def _header(path: Path) -> Header | None:
    try:
        # Pillow opens one file at a time; so that threads wait for a slow disk together, it finds this in memory.
        with path.open("rb", buffering=0) as file:
            file.read(_START)
        return image_header(path)
    except (OSError, ImageError):  # Reported when the image is decoded.
        return None


def _in_pixels(
    images: Sequence[AnnotatedImage], headers: Sequence[Header | None], problems: Problems
) -> list[AnnotatedImage]:
    """The images, boxes in fractions as pixels: those between 0 and 1, and if there are some, those hardly outside."""
    least, most = _WRONG_FRACTIONS if any(are_fractions(image.objects) for image in images) else (0, -1)
    return [
        _to_pixels(image, header, problems) if _are_within(_sides(image.objects), least, most) else image
        for image, header in zip(images, headers, strict=True)
    ]


def _to_pixels(image: AnnotatedImage, header: Header | None, problems: Problems) -> AnnotatedImage:
    if header is None:
        problems.add("images whose size cannot be read, their boxes dropped (the tags stay)", image.id)
        return image._replace(objects=[replace(item, box=None, has_box=False) for item in image.objects], size=None)
    problems.add(_FRACTIONS, image.id)
    width, height = header.size

    def scaled(box: Box | None) -> Box | None:
        if box is None:
            return None
        x1, y1, x2, y2 = (1 if 1 < side <= _LARGEST_FRACTION else side for side in box)
        return (x1 * width, y1 * height, x2 * width, y2 * height)

    return image._replace(objects=[replace(item, box=scaled(item.box)) for item in image.objects], size=header.size)


def _before_rotation(images: Sequence[AnnotatedImage], headers: Sequence[Header | None]) -> list[AnnotatedImage]:
    """The images; those of no stated size with the size before a quarter turn in EXIF, if the boxes show it."""
    turned = {
        number: header
        for number, (image, header) in enumerate(zip(images, headers, strict=True))
        if header is not None and image.size is None and _is_quarter_turn(header)
    }
    boxes = [(item.box, header) for number, header in turned.items() for item in images[number].objects]
    surplus = sum(_is_beyond(box, header.size) - _is_beyond(box, _stored(header)) for box, header in boxes)
    if surplus <= MOST_OUTSIDE * len(boxes):
        return list(images)
    return [
        image._replace(size=_stored(turned[number])) if number in turned else image
        for number, image in enumerate(images)
    ]


def _report_beyond(images: Sequence[AnnotatedImage], headers: Sequence[Header | None], problems: Problems) -> None:
    """Name the images of no stated size with boxes beyond the file, if these are more than a few mistakes."""
    boxes = [
        (image.id, _is_beyond(item.box, header.size))
        for image, header in zip(images, headers, strict=True)
        if header is not None and image.size is None
        for item in image.objects
    ]
    beyond = [id_ for id_, is_beyond in boxes if is_beyond]
    if len(beyond) > MOST_OUTSIDE * len(boxes):
        for id_ in dict.fromkeys(beyond):
            problems.add(_BEYOND, id_)


def _is_beyond(box: Box | None, size: Size) -> bool:
    """Whether the centre of a box lies outside of a frame, unlike that of a box drawn carelessly at its edge."""
    return box is not None and any(
        not -OUTSIDE <= (box[axis] + box[axis + 2]) / 2 <= size[axis] + OUTSIDE for axis in (0, 1)
    )


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


def _stored(header: Header) -> Size:
    """The size before the rotation in EXIF."""
    return header.size[::-1] if _is_quarter_turn(header) else header.size


def _with_half_turns(
    images: Sequence[AnnotatedImage], headers: Sequence[Header | None], relations: Sequence[str]
) -> list[str]:
    """Add the images whose rotation leaves the size as it is, if EXIF was ignored wherever the size shows it."""
    quarter = [
        relation
        for image, header, relation in zip(images, headers, relations, strict=True)
        if image.size and header and _is_quarter_turn(header) and header.size[0] != header.size[1]
    ]
    ignored = _TURNED in quarter and all(relation in (_TURNED, _OTHER) for relation in quarter)
    return [
        _TURNED if ignored and header and header.orientation > 1 and relation in ("", _SCALED) else relation
        for relation, header in zip(relations, headers, strict=True)
    ]


def _misstated_kinds(
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
    if header is not None and relation in (_SCALED, _TURNED):
        stated = image.size or _stored(header)
        orientation = header.orientation if relation == _TURNED else 1
        objects = (replace(item, box=_moved(item.box, stated, header.size, orientation)) for item in objects)
    return boxed_sample(image.id, image.path, list(objects), classes, size, problems)


def _moved(box: Box | None, stated: Size, shown: Size, orientation: int) -> Box | None:
    """A box of the stored frame in the displayed image, which EXIF turns by `orientation`."""
    if box is None:
        return None
    mirrored, upside_down, exchanged = TURNS.get(orientation, (0, 0, 0))
    stored = shown[::-1] if exchanged else shown
    across, down = stored[0] / stated[0], stored[1] / stated[1]
    x1, y1, x2, y2 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    if exchanged:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if mirrored:
        x1, x2 = shown[0] - x2, shown[0] - x1
    if upside_down:
        y1, y2 = shown[1] - y2, shown[1] - y1
    return x1, y1, x2, y2
