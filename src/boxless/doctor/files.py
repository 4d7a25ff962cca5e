"""What is wrong with the image files: broken, tiny, there twice."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from boxless.doctor.finding import Finding
from boxless.doctor.images import Image

TINY = 96
"""Pixels of the longer side below which an image has lost too much detail.

Images are scaled to 512 px for a network whose map has a cell for 16 of them: here for 3. CorLoc of a `cam` detector
on 150 images of the animals benchmark's `train` that were scaled down to 256, 128, 96, 64, 32 px: 0.69, 0.57, 0.53,
0.36, 0.22.
"""


def check_files(images: Sequence[Image], broken: Mapping[Path, str]) -> list[Finding]:
    """Images that cannot be read, or are too small."""
    findings = []
    if broken:
        what = f"{len(broken):,} image(s) cannot be used; the first: {next(iter(broken.values()))}"
        mend = "replace or remove them; training leaves them out"
        findings.append(Finding("broken", "weak", what, mend, images=[[str(path)] for path in broken]))
    if tiny := {image.path: image.look.side for image in images if image.look.side < TINY}:
        what = f"{len(tiny):,} image(s) under {TINY} px on the longer side, the least {min(tiny.values())} px"
        mend = "take the originals instead of thumbnails, or remove them: too little can be seen"
        findings.append(Finding("tiny", "weak", what, mend, images=[[str(path)] for path in tiny]))
    return findings


def check_copies(images: Sequence[Image]) -> list[Finding]:
    """Images that are there more than once, or show one scene."""
    copies = _grouped(images, lambda image: image.look.same)
    splits = dict.fromkeys(image.split for image in images)
    return [
        *_conflicts([group for group in copies if _at_odds(group)]),
        *(finding for pair in combinations(splits, 2) for finding in _leakage(images, copies, *pair)),
        *_repeated(group for group in copies if not _at_odds(group)),
        *_scenes(_grouped(images, lambda image: image.look.alike)),
    ]


def _grouped(images: Iterable[Image], key: Callable[[Image], Hashable]) -> list[list[Image]]:
    """Those that share their key with another."""
    groups = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return [group for group in groups.values() if len(group) > 1]


def _at_odds(group: Sequence[Image]) -> bool:
    tags = frozenset().union(*(one.tags for one in group))
    return any(tags - one.tags - one.unsure for one in group)


def _files(groups: Iterable[Sequence[Image]]) -> list[list[str]]:
    return [list(dict.fromkeys(str(image.path) for image in group)) for group in groups]


def _conflicts(groups: Sequence[Sequence[Image]]) -> list[Finding]:
    if not groups:
        return []
    tags = " against ".join(dict.fromkeys(", ".join(sorted(one.tags)) or "none" for one in groups[0]))
    what = f"{len(groups):,} image(s) are there twice or more with different tags, such as {tags}"
    mend = "look at them, mend the tags, and keep one of each"
    return [Finding("conflicting tags", "weak", what, mend, images=_files(groups))]


def _leakage(images: Sequence[Image], copies: Sequence[Sequence[Image]], one: str, other: str) -> list[Finding]:
    sizes = Counter(image.split for image in images)
    small, large = sorted((one, other), key=lambda split: sizes[split])
    shared = [group for group in copies if {small, large} <= {image.split for image in group}]
    if not shared:
        return []
    leaked = sum(image.split == small for group in shared for image in group)
    what = f"{leaked:,} of {sizes[small]:,} images of {small} are in {large} too"
    mend = f"take them out of {small} or {large}: scores on what was trained on are too good to be true"
    return [Finding("leakage", "weak", what, mend, images=_files(shared))]


def _repeated(copies: Iterable[Sequence[Image]]) -> list[Finding]:
    repeated = [own for group in copies for own in _grouped(group, lambda image: image.split)]
    if not repeated:
        return []
    extra = sum(len(own) - 1 for own in repeated)
    what = f"{extra:,} image(s) are copies of another in their split: the same file, or re-encoded or scaled"
    mend = "keep one of each: copies teach nothing new, and weigh double"
    return [Finding("copies", "note", what, mend, images=_files(repeated))]


def _scenes(groups: Iterable[Sequence[Image]]) -> list[Finding]:
    scenes = [group for group in groups if len({image.look.same for image in group}) > 1]
    if not scenes:
        return []
    astride = sum(len({image.split for image in scene}) > 1 for scene in scenes)
    what = f"{sum(map(len, scenes)):,} images look much like others; they are of {len(scenes):,} scene(s), "
    what += f"{astride:,} of them in more than one split"
    mend = (
        "as it should be with a fixed camera; but takes of one moment belong into one split, and count for little more"
    )
    return [Finding("one scene", "note", what, mend, images=_files(scenes))]
