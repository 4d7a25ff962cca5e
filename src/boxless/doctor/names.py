"""Class names that may mean the same class, and names of files that were made of the same image."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from boxless.doctor.finding import Finding
from boxless.doctor.images import TaggedImage
from boxless.wording import counted

_COPIES = (
    # Roboflow: photo_jpg.rf.<hash>.jpg
    re.compile(r"(?P<source>.+)\.rf\.[0-9A-Za-z]{8,}"),
    # Augmentor: class_original_photo.jpg_<uuid>.jpg
    re.compile(r".+?_original_(?P<source>.+?)(\.\w{3,4})?_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    re.compile(r"(?P<source>.+?)[-_ .]?[-_ .]aug(mented|mentation)?[-_ .]?\d*", re.IGNORECASE),
)
"""Names, without suffix, that exporters give to augmented copies of an image."""


def source_name(path: Path) -> str:
    """The name of the image that a file was made of, by the names that exporters give: its own stem if by none."""
    return next((found["source"] for pattern in _COPIES if (found := pattern.fullmatch(path.stem))), path.stem)


def check_names(images: Sequence[TaggedImage], names: Sequence[str], wanted: Sequence[str]) -> list[Finding]:
    """Pairs of names that may mean one class; one is weak if a tenth or more of its class's images have the other."""
    counts = Counter(tag for image in images for tag in image.tags)
    keys, words = {name: _key(name) for name in names}, {name: _words(name) for name in names}
    findings = []
    for pair in combinations(names, 2):
        rare, common = sorted(pair, key=lambda name: counts[name])
        rarely = 10 * counts[rare] < counts[common]
        similar = _same_but_for_plural(keys[rare], keys[common]) or (rarely and _misspelt(words[rare], words[common]))
        if not similar or not set(pair) & set(wanted):
            continue
        what = (
            f"{rare!r} ({counted(counts[rare], 'image')}) and {common!r} ({counts[common]}) look like two spellings of "
            "one class"
        )
        fix = f"if they are, rename {rare!r}: images of one are used as negatives of the other"
        findings.append(Finding("similar names", "weak", what, fix, [rare] if rarely else [rare, common]))
    return findings


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name).casefold())


def _same_but_for_plural(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) > 2 and long in (f"{short}s", f"{short}es"))


def _misspelt(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one long word differs by one typo; cat and car, type a and type b, 10001 and 10002 are different."""
    differing = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    if len(one) != len(other) or len(differing) != 1:
        return False
    short, long = sorted(differing[0], key=len)
    return len(short) >= 5 and (short + long).isalpha() and _one_typo(short, long)


def _one_typo(short: str, long: str) -> bool:
    """Whether a letter is missing, replaced, or swapped with the next one."""
    shortened = [long[:i] + long[i + 1 :] for i in range(len(long))]
    if len(short) < len(long):
        return short in shortened
    others = [short[:i] + short[i + 1 :] for i in range(len(short))]
    return any(letters in shortened[max(i - 1, 0) : i + 2] for i, letters in enumerate(others))
