"""Class names that may mean the same."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from boxless.doctor.finding import Finding
from boxless.doctor.images import Image


def check_names(images: Sequence[Image], names: Sequence[str], wanted: Sequence[str]) -> list[Finding]:
    """Names that may stand for one class; blamed are those that miss a tenth of their images by it, or more."""
    counts = Counter(tag for image in images for tag in image.tags)
    keys, words = {name: _key(name) for name in names}, {name: _words(name) for name in names}
    findings = []
    for pair in combinations(names, 2):
        rare, common = sorted(pair, key=lambda name: counts[name])
        alone = 10 * counts[rare] < counts[common]
        alike = _same_but_for_plural(keys[rare], keys[common]) or (alone and _misspelt(words[rare], words[common]))
        if not alike or not set(pair) & set(wanted):
            continue
        what = f"{rare!r} ({counts[rare]} images) and {common!r} ({counts[common]}) look like one class, spelt twice"
        mend = f"if they are, rename {rare!r}: images of the one now teach that the other is not there"
        findings.append(Finding("alike names", "weak", what, mend, [rare] if alone else [rare, common]))
    return findings


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name).casefold())


def _same_but_for_plural(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) > 2 and long in (f"{short}s", f"{short}es"))


def _misspelt(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one long word differs, by one slip; cat and car, type a and type b, 10001 and 10002 are different."""
    differing = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    if len(one) != len(other) or len(differing) != 1:
        return False
    short, long = sorted(differing[0], key=len)
    return len(short) >= 5 and (short + long).isalpha() and _one_slip(short, long)


def _one_slip(short: str, long: str) -> bool:
    """Whether a letter is missing, is another one, or has changed places with the next."""
    cut = [long[:i] + long[i + 1 :] for i in range(len(long))]
    if len(short) < len(long):
        return short in cut
    others = [short[:i] + short[i + 1 :] for i in range(len(short))]
    return any(letters in cut[max(i - 1, 0) : i + 2] for i, letters in enumerate(others))
