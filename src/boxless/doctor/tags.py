"""Checks of the tags: numbers of images of the classes, and their co-occurrence."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxless.doctor.finding import Finding, Level
from boxless.doctor.images import TaggedImage
from boxless.structures import BoolArray, IntArray
from boxless.wording import counted

HOPELESS = 5
"""With fewer images of a class, or fewer without it, a detector learns next to nothing.

Measured with `cam` on 400 held-out images of the animals benchmark's `train` (means of two seeds). From n images of
each of the five animals CorLoc is 0.17 (n=2), 0.30 (5), 0.38 (10), 0.51 (20), 0.55 (50), 0.57 (200). With 100 images
of dogs and n without, the average precision of classifying dogs is 0.49 (n=1; chance is 0.4), 0.61 (2),
0.74 (5), 0.89 (10), 0.94 (20), 0.96 (50).
"""
WEAK = 20
"""With this many, both are within about a tenth of the values at ten times as many (see `HOPELESS`).

On the playing cards, which the backbone was not trained on, classification mAP on the test split
is 0.47 (n=5), 0.51 (10), 0.57 (20), 0.62 (40), 0.64 (80).
"""
NEARLY_ALL = 0.95
"""A share above which all images count as concerned."""


@dataclass(frozen=True)
class Table:
    """The tags of all images.

    Args:
        names: the classes.
        present: (images, classes) bool.
        absent: (images, classes) bool; unsure classes are neither.
        together: (classes, classes) int64, number of images with the row's class in which the column's is present.
        apart: (classes, classes) int64, number of them in which it is absent.
    """

    names: tuple[str, ...]
    present: BoolArray
    absent: BoolArray
    together: IntArray
    apart: IntArray

    @classmethod
    def of(cls, images: Sequence[TaggedImage], names: tuple[str, ...]) -> "Table":
        """Count the tags."""
        present = np.array([[name in p.tags for name in names] for p in images])
        absent = ~present & np.array([[name not in p.unsure for name in names] for p in images])
        # Sums below 2**24 are exact in float32, whose matrix products are much faster than those of integers.
        shown, hidden = present.astype(np.float32), absent.astype(np.float32)
        return cls(names, present, absent, (shown.T @ shown).astype(np.int64), (shown.T @ hidden).astype(np.int64))

    def counts(self, where: BoolArray) -> dict[str, int]:
        """Class -> number of images in which `present` or `absent` holds."""
        return dict(zip(self.names, where.sum(axis=0).tolist(), strict=True))


def check_counts(table: Table, wanted: Sequence[str], misnamed: Sequence[Finding]) -> list[Finding]:
    """Classes with too few images, or too few without them."""
    # A class with two spellings has few images for that reason.
    misspelt = {name for finding in misnamed for name in finding.classes}
    shown, missing = table.counts(table.present), table.counts(table.absent)
    levels: tuple[tuple[Level, int, int], ...] = (("hopeless", 0, HOPELESS), ("weak", HOPELESS, WEAK))
    findings = []
    for level, least, most in levels:
        if few := [name for name in wanted if least <= shown[name] < most and name not in misspelt]:
            what = f"fewer than {most} images show {_listed(few, shown)}"
            fix = f"tag more images of it, {WEAK} at least, or drop the class (--classes)"
            findings.append(Finding("too few images", level, what, fix, few))
        if few := [name for name in wanted if least <= missing[name] < most]:
            what = f"fewer than {most} images are without {_listed(few, missing)}"
            fix = (
                f"add images without it, {WEAK} at least, of the same places: only they separate it from the background"
            )
            findings.append(Finding("too few negatives", level, what, fix, few))
    return findings


def _listed(names: Iterable[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({counts[name]})" for name in names)


def check_co_occurrence(table: Table, wanted: Sequence[str]) -> list[Finding]:
    """Classes that always or nearly always occur together, so that tags do not distinguish them."""
    together = _always_together(table, wanted)
    return together + _rarely_apart(table, wanted, together)


def _always_together(table: Table, wanted: Sequence[str]) -> list[Finding]:
    shown, missing = table.counts(table.present), table.counts(table.absent)
    groups = defaultdict(list)
    for name, column in zip(table.names, table.present.T, strict=True):
        if min(shown[name], missing[name]) >= HOPELESS:
            groups[column.tobytes()].append(name)
    findings = []
    for group in groups.values():
        if len(group) > 1 and set(group) & set(wanted):
            what = (
                f"{' and '.join(group)} are on the same {counted(shown[group[0]], 'image')}: nothing distinguishes them"
            )
            fix = f"add images that show one of them alone, {WEAK} of each, or merge them into one class"
            findings.append(Finding("always together", "hopeless", what, fix, group))
    return findings


def _rarely_apart(table: Table, wanted: Sequence[str], together: Sequence[Finding]) -> list[Finding]:
    both = table.together + table.apart
    absent = table.absent.sum(axis=0)
    # Images of the row's class without the column's, if the two classes were independent.
    expected = both * absent / np.maximum(absent + table.present.sum(axis=0), 1)
    follows = (expected >= 2 * HOPELESS) & (table.apart <= np.minimum((1 - NEARLY_ALL) * both, expected / 4))
    findings = []
    for row, column in np.argwhere(follows):
        name, other = table.names[row], table.names[column]
        if row == column or name not in wanted or any({name, other} <= set(pair.classes) for pair in together):
            continue
        what = f"{table.together[row, column]} of {both[row, column]} images of {name} also show {other}"
        fix = f"add images of {name} without {other}, {WEAK} at least: its boxes may include both otherwise"
        findings.append(Finding("rarely apart", "weak", what, fix, [name]))
    return findings


def check_tagging(images: Sequence[TaggedImage]) -> list[Finding]:
    """Signs that tags are missing."""
    findings = []
    tagged = [image for image in images if image.tags]
    single = sum(len(image.tags) == 1 for image in tagged)
    untagged = [image for image in images if not image.tags and not image.unsure]
    if len(untagged) > len(images) / 2:
        what = f"{len(untagged):,} of {len(images):,} images have no tag"
        fix = "good negatives if they show no class; an image with a forgotten tag is used as a negative of its class"
        findings.append(Finding("untagged", "note", what, fix, images=[[str(image.path)] for image in untagged]))
    if len({tag for image in tagged for tag in image.tags}) > 1 and single >= NEARLY_ALL * len(tagged):
        what = f"{single:,} of {len(tagged):,} tagged images have a single tag"
        fix = "correct if they show one class only; otherwise tag every class, and add images with several"
        findings.append(Finding("single tags", "note", what, fix))
    return findings


def check_objects(images: Sequence[TaggedImage], wanted: Sequence[str]) -> list[Finding]:
    """Classes with one object per image."""
    shares = {name: _single_object(name, images) for name in wanted}
    counts = Counter(tag for image in images for tag in image.tags)
    single = [n for n in wanted if counts[n] >= WEAK and (share := shares[n]) is not None and share >= NEARLY_ALL]
    if not single:
        return []
    what = f"nearly all images show only one object of {', '.join(single)}"
    fix = "no problem for images of the same kind; a group of objects may be detected as one box"
    return [Finding("single objects", "note", what, fix, single)]


def _single_object(name: str, images: Iterable[TaggedImage]) -> float | None:
    counts = [image.objects[name] for image in images if name in image.tags and image.objects is not None]
    return round(sum(count == 1 for count in counts) / len(counts), 4) if counts else None


def class_row(name: str, table: Table, images: Sequence[TaggedImage], findings: Sequence[Finding]) -> dict[str, Any]:
    """The report of `examine` on one class; `findings` are sorted, the most severe first."""
    own = [finding for finding in findings if name in finding.classes and finding.level != "note"]
    index = table.names.index(name)
    others = table.together[index].copy()
    number, others[index] = int(others[index]), 0
    most = int(others.argmax())
    co_occurrence = (
        {"class": table.names[most], "share": round(int(others[most]) / number, 4)} if others[most] else None
    )
    return {
        "verdict": own[0].level if own else "fine",
        "reasons": list(dict.fromkeys(finding.fault for finding in own)),
        "images": number,
        "negatives": int(table.absent[:, index].sum()),
        "unsure": int((~table.present & ~table.absent)[:, index].sum()),
        "given": sum(name in image.given for image in images),
        "counted": sum(name in image.counted for image in images),
        "co_occurrence": co_occurrence,
        "single_object": _single_object(name, images),
    }
