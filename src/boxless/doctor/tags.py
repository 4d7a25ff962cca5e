"""What the tags alone tell: how many images a class has, and in what company."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxless.doctor.finding import Finding, Level
from boxless.doctor.images import Image
from boxless.structures import BoolArray, IntArray

HOPELESS = 5
"""With fewer images of a class, or fewer without it, there is next to nothing to learn from.

Measured with `cam` on 400 held-out images of the animals benchmark's `train` (means of two seeds). From n images of
each of the five animals CorLoc is 0.17 (n=2), 0.30 (5), 0.38 (10), 0.51 (20), 0.55 (50), 0.57 (200). With 100 images
of dogs and n without, the average precision of saying whether a dog is there is 0.49 (n=1; chance is 0.4), 0.61 (2),
0.74 (5), 0.89 (10), 0.94 (20), 0.96 (50).
"""
WEAK = 20
"""From as many on, both are within about a tenth of what ten times as many give; below, they fall (see `HOPELESS`).

The playing cards, which the backbone was not trained on, bend at the same place: classification mAP on their test split
is 0.47 (n=5), 0.51 (10), 0.57 (20), 0.62 (40), 0.64 (80).
"""
NEARLY_ALL = 0.95
"""A share that is as good as all."""


@dataclass(frozen=True)
class Table:
    """Which image shows which class.

    Args:
        names: the classes.
        present: (images, classes) bool.
        absent: (images, classes) bool; what is unsure is neither.
        together: (classes, classes) int64, in how many images of the row's class the column's is present.
        apart: (classes, classes) int64, in how many it is absent.
    """

    names: tuple[str, ...]
    present: BoolArray
    absent: BoolArray
    together: IntArray
    apart: IntArray

    @classmethod
    def of(cls, images: Sequence[Image], names: tuple[str, ...]) -> "Table":
        """Count the tags."""
        present = np.array([[name in p.tags for name in names] for p in images])
        absent = ~present & np.array([[name not in p.unsure for name in names] for p in images])
        # Sums below 2**24 are exact in float32, whose products are far quicker than those of integers.
        shown, hidden = present.astype(np.float32), absent.astype(np.float32)
        return cls(names, present, absent, (shown.T @ shown).astype(np.int64), (shown.T @ hidden).astype(np.int64))

    def counts(self, where: BoolArray) -> dict[str, int]:
        """By class, in how many images `present` or `absent` holds."""
        return dict(zip(self.names, where.sum(axis=0).tolist(), strict=True))


def check_counts(table: Table, wanted: Sequence[str], misnamed: Sequence[Finding]) -> list[Finding]:
    """Classes with too few images, or too few without them."""
    # What goes by two names has few images for that reason.
    excused = {name for finding in misnamed for name in finding.classes}
    shown, missing = table.counts(table.present), table.counts(table.absent)
    levels: tuple[tuple[Level, int, int], ...] = (("hopeless", 0, HOPELESS), ("weak", HOPELESS, WEAK))
    findings = []
    for level, least, most in levels:
        if few := [name for name in wanted if least <= shown[name] < most and name not in excused]:
            what = f"fewer than {most} images show {_listed(few, shown)}"
            mend = f"tag more images of it, {WEAK} at least, or leave the class out (--classes)"
            findings.append(Finding("too few images", level, what, mend, few))
        if few := [name for name in wanted if least <= missing[name] < most]:
            what = f"fewer than {most} images are without {_listed(few, missing)}"
            mend = f"add images without it, {WEAK} at least, of the same places: they alone tell it from the background"
            findings.append(Finding("too few negatives", level, what, mend, few))
    return findings


def _listed(names: Iterable[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({counts[name]})" for name in names)


def check_company(table: Table, wanted: Sequence[str]) -> list[Finding]:
    """Classes that cannot be told from another, or hardly, since they come together."""
    together = _always_together(table, wanted)
    return together + _hardly_apart(table, wanted, together)


def _always_together(table: Table, wanted: Sequence[str]) -> list[Finding]:
    shown, missing = table.counts(table.present), table.counts(table.absent)
    groups = defaultdict(list)
    for name, column in zip(table.names, table.present.T, strict=True):
        if min(shown[name], missing[name]) >= HOPELESS:
            groups[column.tobytes()].append(name)
    findings = []
    for group in groups.values():
        if len(group) > 1 and set(group) & set(wanted):
            what = f"{' and '.join(group)} are on the same {shown[group[0]]} images: nothing tells one from the other"
            mend = f"add images that show one of them alone, {WEAK} of each, or make them one class"
            findings.append(Finding("always together", "hopeless", what, mend, group))
    return findings


def _hardly_apart(table: Table, wanted: Sequence[str], together: Sequence[Finding]) -> list[Finding]:
    both = table.together + table.apart
    absent = table.absent.sum(axis=0)
    # So many images of the row's class would be without the column's if the two had nothing to do with each other.
    expected = both * absent / np.maximum(absent + table.present.sum(axis=0), 1)
    follows = (expected >= 2 * HOPELESS) & (table.apart <= np.minimum((1 - NEARLY_ALL) * both, expected / 4))
    findings = []
    for row, column in np.argwhere(follows):
        name, other = table.names[row], table.names[column]
        if row == column or name not in wanted or any({name, other} <= set(pair.classes) for pair in together):
            continue
        what = f"{table.together[row, column]} of {both[row, column]} images of {name} show {other} too"
        mend = f"add images of {name} without {other}, {WEAK} at least: its boxes may take in both otherwise"
        findings.append(Finding("hardly apart", "weak", what, mend, [name]))
    return findings


def check_tagging(images: Sequence[Image]) -> list[Finding]:
    """Whether the tags as a whole look as if something was left out."""
    findings = []
    tagged = [image for image in images if image.tags]
    single = sum(len(image.tags) == 1 for image in tagged)
    bare = [image for image in images if not image.tags and not image.unsure]
    if len(bare) > len(images) / 2:
        what = f"{len(bare):,} of {len(images):,} images have no tag"
        mend = "good negatives if they show no class; a tag that was forgotten teaches that its class is not there"
        findings.append(Finding("untagged", "note", what, mend, images=[[str(image.path)] for image in bare]))
    if len({tag for image in tagged for tag in image.tags}) > 1 and single >= NEARLY_ALL * len(tagged):
        what = f"{single:,} of {len(tagged):,} tagged images have a single tag"
        mend = "all right if only one class was in sight; tag every class that is, and add images with several"
        findings.append(Finding("single tags", "note", what, mend))
    return findings


def check_objects(images: Sequence[Image], wanted: Sequence[str]) -> list[Finding]:
    """Classes of which an image shows one object."""
    shares = {name: _single_object(name, images) for name in wanted}
    counts = Counter(tag for image in images for tag in image.tags)
    alone = [n for n in wanted if counts[n] >= WEAK and (share := shares[n]) is not None and share >= NEARLY_ALL]
    if not alone:
        return []
    what = f"nearly all images show one object only of {', '.join(alone)}"
    mend = "all right for images of the same kind; a group of them may come out as one box"
    return [Finding("single objects", "note", what, mend, alone)]


def _single_object(name: str, images: Iterable[Image]) -> float | None:
    counts = [image.objects[name] for image in images if name in image.tags and image.objects is not None]
    return round(sum(count == 1 for count in counts) / len(counts), 4) if counts else None


def class_row(name: str, table: Table, images: Sequence[Image], findings: Sequence[Finding]) -> dict[str, Any]:
    """What `examine` says of one class; `findings` come gravest first."""
    own = [finding for finding in findings if name in finding.classes and finding.level != "note"]
    index = table.names.index(name)
    beside = table.together[index].copy()
    number, beside[index] = int(beside[index]), 0
    most = int(beside.argmax())
    company = {"class": table.names[most], "share": round(int(beside[most]) / number, 4)} if beside[most] else None
    return {
        "verdict": own[0].level if own else "fine",
        "reasons": list(dict.fromkeys(finding.fault for finding in own)),
        "images": number,
        "negatives": int(table.absent[:, index].sum()),
        "unsure": int((~table.present & ~table.absent)[:, index].sum()),
        "company": company,
        "single_object": _single_object(name, images),
    }
