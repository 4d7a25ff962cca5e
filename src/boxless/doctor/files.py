"""What is wrong with the picture files: broken, tiny, there twice."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from boxless.doctor.finding import Finding
from boxless.doctor.pictures import Picture

TINY = 96
"""Pixels of the longer side below which a picture has lost too much detail.

Pictures are scaled to 512 px for a network whose map has a cell for 16 of them: here for 3. CorLoc of a `cam` detector
on 150 pictures of the animals benchmark's `train` that were scaled down to 256, 128, 96, 64, 32 px: 0.69, 0.57, 0.53,
0.36, 0.22.
"""


def check_files(pictures: Sequence[Picture], broken: Mapping[Path, str]) -> list[Finding]:
    """Pictures that cannot be read, or are too small."""
    findings = []
    if broken:
        what = f"{len(broken):,} picture(s) cannot be used; the first: {next(iter(broken.values()))}"
        mend = "replace or remove them; training leaves them out"
        findings.append(Finding("broken", "weak", what, mend, pictures=[[str(path)] for path in broken]))
    if tiny := {picture.path: picture.look.side for picture in pictures if picture.look.side < TINY}:
        what = f"{len(tiny):,} picture(s) under {TINY} px on the longer side, the least {min(tiny.values())} px"
        mend = "take the originals instead of thumbnails, or remove them: too little can be seen"
        findings.append(Finding("tiny", "weak", what, mend, pictures=[[str(path)] for path in tiny]))
    return findings


def check_copies(pictures: Sequence[Picture]) -> list[Finding]:
    """Pictures that are there more than once, or show one scene."""
    copies = _grouped(pictures, lambda picture: picture.look.same)
    splits = dict.fromkeys(picture.split for picture in pictures)
    return [
        *_conflicts([group for group in copies if _at_odds(group)]),
        *(finding for pair in combinations(splits, 2) for finding in _leakage(pictures, copies, *pair)),
        *_repeated(group for group in copies if not _at_odds(group)),
        *_scenes(_grouped(pictures, lambda picture: picture.look.alike)),
    ]


def _grouped(pictures: Iterable[Picture], key: Callable[[Picture], Hashable]) -> list[list[Picture]]:
    """Those that share their key with another."""
    groups = defaultdict(list)
    for picture in pictures:
        groups[key(picture)].append(picture)
    return [group for group in groups.values() if len(group) > 1]


def _at_odds(group: Sequence[Picture]) -> bool:
    tags = frozenset().union(*(one.tags for one in group))
    return any(tags - one.tags - one.unsure for one in group)


def _files(groups: Iterable[Sequence[Picture]]) -> list[list[str]]:
    return [list(dict.fromkeys(str(picture.path) for picture in group)) for group in groups]


def _conflicts(groups: Sequence[Sequence[Picture]]) -> list[Finding]:
    if not groups:
        return []
    tags = " against ".join(dict.fromkeys(", ".join(sorted(one.tags)) or "none" for one in groups[0]))
    what = f"{len(groups):,} picture(s) are there twice or more with different tags, such as {tags}"
    mend = "look at them, mend the tags, and keep one of each"
    return [Finding("conflicting tags", "weak", what, mend, pictures=_files(groups))]


def _leakage(pictures: Sequence[Picture], copies: Sequence[Sequence[Picture]], one: str, other: str) -> list[Finding]:
    sizes = Counter(picture.split for picture in pictures)
    small, large = sorted((one, other), key=lambda split: sizes[split])
    shared = [group for group in copies if {small, large} <= {picture.split for picture in group}]
    if not shared:
        return []
    leaked = sum(picture.split == small for group in shared for picture in group)
    what = f"{leaked:,} of {sizes[small]:,} pictures of {small} are in {large} too"
    mend = f"take them out of {small} or {large}: scores on what was trained on are too good to be true"
    return [Finding("leakage", "weak", what, mend, pictures=_files(shared))]


def _repeated(copies: Iterable[Sequence[Picture]]) -> list[Finding]:
    repeated = [own for group in copies for own in _grouped(group, lambda picture: picture.split)]
    if not repeated:
        return []
    extra = sum(len(own) - 1 for own in repeated)
    what = f"{extra:,} picture(s) are copies of another in their split: the same file, or re-encoded or scaled"
    mend = "keep one of each: copies teach nothing new, and weigh double"
    return [Finding("copies", "note", what, mend, pictures=_files(repeated))]


def _scenes(groups: Iterable[Sequence[Picture]]) -> list[Finding]:
    scenes = [group for group in groups if len({picture.look.same for picture in group}) > 1]
    if not scenes:
        return []
    astride = sum(len({picture.split for picture in scene}) > 1 for scene in scenes)
    what = f"{sum(map(len, scenes)):,} pictures look much like others; they are of {len(scenes):,} scene(s), "
    what += f"{astride:,} of them in more than one split"
    mend = (
        "as it should be with a fixed camera; but takes of one moment belong into one split, and count for little more"
    )
    return [Finding("one scene", "note", what, mend, pictures=_files(scenes))]
