"""Checks of the image files: unreadable, tiny, duplicate."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, product
from pathlib import Path
from typing import Any

from boxless.doctor.finding import Finding
from boxless.doctor.images import TaggedImage
from boxless.doctor.names import source_name
from boxless.doctor.similarity import differ_in_detail
from boxless.images import read_image
from boxless.wording import counted

TINY = 96
"""Pixels of the longest side below which an image has too little detail.

Images are scaled to 512 px for a network whose feature map has one cell per 16 px: here 3 px of the file. CorLoc of a
`cam` detector on 150 images of the animals benchmark's `train` that were scaled down to 256, 128, 96, 64, 32 px: 0.69,
0.57, 0.53, 0.36, 0.22.
"""


MAX_COMPARED = 45
"""Pairs of images of a group that are compared in detail, as many as ten images have: each is decoded for it."""


def check_files(images: Sequence[TaggedImage], broken: Mapping[Path, str]) -> list[Finding]:
    """Images that cannot be read, or are too small."""
    findings = []
    if broken:
        what = f"{counted(len(broken), 'image')} cannot be used; the first: {next(iter(broken.values()))}"
        fix = "replace or remove them; training skips them"
        findings.append(Finding("broken", "weak", what, fix, images=[[str(path)] for path in broken]))
    if tiny := {image.path: image.file.longest_side for image in images if image.file.longest_side < TINY}:
        what = f"{counted(len(tiny), 'image')} under {TINY} px on the longest side, the smallest "
        what += f"{min(tiny.values())} px"
        fix = "use the originals instead of thumbnails, or remove them: they have too little detail"
        findings.append(Finding("tiny", "weak", what, fix, images=[[str(path)] for path in tiny]))
    return findings


def check_duplicates(images: Sequence[TaggedImage]) -> list[Finding]:
    """Images that occur more than once, images of one scene, and images that differ in a detail from others."""
    alike = _grouped(images, lambda image: image.file.duplicates)
    conflicts, details = _contradictions(alike)
    detailed, contradicting = set(map(id, details)), set(map(id, conflicts))
    groups = [group for group in alike if id(group) not in detailed]
    different = {image.file.key for group in details for image in group}
    splits = dict.fromkeys(image.split for image in images)
    return [
        *_conflicts(conflicts),
        *(finding for pair in combinations(splits, 2) for finding in _leakage(images, groups, *pair)),
        *_siblings(images, groups),
        *_repeated(group for group in groups if id(group) not in contradicting),
        *_details(details),
        *_scenes(_grouped(images, lambda image: image.file.scene), different),
    ]


def _grouped(images: Iterable[TaggedImage], key: Callable[[TaggedImage], Hashable]) -> list[list[TaggedImage]]:
    """Groups of two or more images with the same key."""
    groups = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return [group for group in groups.values() if len(group) > 1]


_Groups = list[list[TaggedImage]]


def _contradictions(groups: _Groups) -> tuple[_Groups, _Groups]:
    """Duplicates with contradicting tags, and duplicates whose tags differ as a detail of the images does."""
    conflicts: _Groups = []
    details: _Groups = []
    for group in groups:
        pairs = list(islice(_contradicting(group), MAX_COMPARED))
        if pairs:
            (details if all(_differ(*pair) for pair in pairs) else conflicts).append(group)
    return conflicts, details


def _contradicting(group: Sequence[TaggedImage]) -> Iterator[tuple[TaggedImage, TaggedImage]]:
    """Pairs of images with contradicting tags."""
    by_tags: defaultdict[Any, dict[str, TaggedImage]] = defaultdict(dict)
    for image in group:
        # One of each, as the same file may be there very often.
        by_tags[image.tags, image.unsure].setdefault(image.file.key, image)
    for some, others in combinations(by_tags.values(), 2):
        if _contradict(next(iter(some.values())), next(iter(others.values()))):
            yield from product(some.values(), others.values())


def _contradict(one: TaggedImage, other: TaggedImage) -> bool:
    return bool(one.tags - other.tags - other.unsure or other.tags - one.tags - one.unsure)


def _is_turned(group: Sequence[TaggedImage]) -> bool:
    return len({image.file.upright for image in group}) > 1


def _differ(one: TaggedImage, other: TaggedImage) -> bool:
    return one.file.key != other.file.key and differ_in_detail(read_image(one.path), read_image(other.path))


def _files(groups: Iterable[Sequence[TaggedImage]]) -> list[list[str]]:
    return [list(dict.fromkeys(str(image.path) for image in group)) for group in groups]


def _conflicts(groups: Sequence[Sequence[TaggedImage]]) -> list[Finding]:
    if not groups:
        return []
    tags = " against ".join(dict.fromkeys(", ".join(sorted(one.tags)) or "none" for one in groups[0]))
    what = f"{counted(len(groups), 'image occurs', 'images occur')} more than once with different tags, such as {tags}"
    fix = "correct the tags, and keep one of each"
    if any(map(_is_turned, groups)):
        fix += "; some are turned or mirrored: right for a class that depends on it, such as an arrow"
    return [Finding("conflicting tags", "weak", what, fix, images=_files(groups))]


def _leakage(
    images: Sequence[TaggedImage], groups: Sequence[Sequence[TaggedImage]], one: str, other: str
) -> list[Finding]:
    sizes = Counter(image.split for image in images)
    small, large = sorted((one, other), key=lambda split: sizes[split])
    shared = [group for group in groups if {small, large} <= {image.split for image in group}]
    if not shared:
        return []
    leaked = sum(image.split == small for group in shared for image in group)
    what = f"{leaked:,} of {counted(sizes[small], 'image')} of {small} {'is' if leaked == 1 else 'are'} also in {large}"
    if turned := sum(
        image.split == small and all(image.file.upright != one.file.upright for one in group if one.split == large)
        for group in shared
        for image in group
    ):
        what += f", {turned:,} of them turned or mirrored"
    fix = f"remove them from {small} or {large}: scores on training images are too high"
    return [Finding("leakage", "weak", what, fix, images=_files(shared))]


def _siblings(images: Sequence[TaggedImage], groups: _Groups) -> list[Finding]:
    """Images of several splits whose names say that they were made of one image, but which are no duplicates."""
    known = {frozenset(image.path for image in group) for group in groups}
    found = [
        group
        for group in _grouped(images, lambda image: source_name(image.path))
        if len({image.split for image in group}) > 1
        and any(source_name(image.path) != image.path.stem for image in group)
        and not any(paths.issuperset(image.path for image in group) for paths in known)
    ]
    if not found:
        return []
    what = (
        f"{sum(map(len, found)):,} images of several splits have names of augmented copies of "
        f"{counted(len(found), 'image')}"
    )
    fix = "split the originals before augmenting them: scores on copies of training images are too high"
    return [Finding("augmented copies", "weak", what, fix, images=_files(found))]


def _repeated(groups: Iterable[Sequence[TaggedImage]]) -> list[Finding]:
    repeated = [own for group in groups for own in _grouped(group, lambda image: image.split)]
    if not repeated:
        return []
    extra = sum(len(own) - 1 for own in repeated)
    what = (
        f"{counted(extra, 'image is a duplicate', 'images are duplicates')} of another in the same split: re-encoded, "
        "scaled, turned, mirrored or the same"
    )
    fix = "keep one of each: duplicates add no information, and have twice the weight"
    return [Finding("duplicates", "note", what, fix, images=_files(repeated))]


def _details(groups: _Groups) -> list[Finding]:
    if not groups:
        return []
    tags = " against ".join(dict.fromkeys(", ".join(sorted(one.tags)) or "none" for one in groups[0]))
    across = sum(len({image.split for image in group}) > 1 for group in groups)
    what = f"{counted(len(groups), 'image differs', 'images differ')} in a detail from others with other tags, such as "
    what += f"{tags}, {across:,} of them across splits"
    fix = "keep them: the same place with and without an object makes the best negatives; both belong in one split"
    return [Finding("details", "note", what, fix, images=_files(groups))]


def _scenes(groups: Iterable[Sequence[TaggedImage]], different: Collection[str]) -> list[Finding]:
    rest = ([image for image in group if image.file.key not in different] for group in groups)
    scenes = [group for group in rest if len({image.file.duplicates for image in group}) > 1]
    if not scenes:
        return []
    across = sum(len({image.split for image in scene}) > 1 for scene in scenes)
    what = f"{sum(map(len, scenes)):,} images are nearly the same as others: they show "
    what += f"{counted(len(scenes), 'scene')}, {across:,} of them in more than one split"
    fix = "expected of a fixed camera; but images of one moment belong in one split, and add little information"
    return [Finding("near duplicates", "note", what, fix, images=_files(scenes))]
