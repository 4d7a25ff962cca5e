"""Class names that look like mistakes in tags."""

import re
import unicodedata
from collections.abc import Sequence

from boxless.datasets.problems import Problems

_AND = r"\s+(?:and|und|et|y|e)\s+"
_MOST_FIXED = 2 / 3
"""Share of words that always stand first, or never do, above which words have their places, as in `red apple`."""


def report_names(classes: Sequence[str], problems: Problems) -> None:
    """Record classes whose names join those of others, combine the same words, or differ in spelling only."""
    plain = {name: unicodedata.normalize("NFC", name) for name in classes}
    joined = {name for name in classes if _joins(plain[name], set(plain.values()))}
    words = {name: [word for word in re.split(rf"{_AND}|[\s/+&,]+", plain[name]) if word] for name in classes}
    several = {name for name in classes if len(words[name]) > 1} - joined
    combined = several if _are_combinations([words[name] for name in several]) else set()
    spelled: dict[str, str] = {}
    for name in classes:
        if name in joined:
            problems.add("classes that join the names of others; in a table `;` separates tags", name)
        elif name in combined:
            problems.add(
                "classes that combine the same few words, as joined tags do; in a table `;` separates tags", name
            )
        if (first := spelled.setdefault(_key(plain[name]), name)) != name:
            problems.add(_difference(plain[first], plain[name]), f"{first} and {name}")


def _joins(name: str, others: set[str]) -> bool:
    parts = re.split(rf"{_AND}|\W+", name)
    return len(parts) > 1 and set(parts) <= others


def _are_combinations(names: Sequence[Sequence[str]]) -> bool:
    """Whether names are made of fewer words than there are names, many of which stand now first and now later.

    The words of other names have their places: in `ace of spades` the suit is last, in `red apple` the colour first.
    """
    first, later = {words[0] for words in names}, {word for words in names for word in words[1:]}
    distinct = first | later
    return len(names) >= len(distinct) > 0 and len(first ^ later) <= _MOST_FIXED * len(distinct)


def spelling(name: str) -> str:
    """What spellings of one name have in common, those in other Unicode forms too."""
    return _key(unicodedata.normalize("NFC", name))


def _key(name: str) -> str:
    """What spellings of one name have in common."""
    if _is_number(name):
        return str(float(name))
    # 1.5 is not 15.
    text = re.sub(r"(?<=\d)[\W_]+(?=\d)", "|", name.casefold())
    # Signs that combine with a letter, as vowels in Hindi, belong to it.
    return "".join(char for char in text if unicodedata.category(char)[0] not in "PZC") or name


def _is_number(name: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", name) is not None


def _difference(one: str, other: str) -> str:
    if one == other:
        return "classes whose names differ in the encoding of accents only (NFC and NFD)"
    if _is_number(one) and _is_number(other):
        return "classes whose names are the same number"
    return "classes whose names differ in case or punctuation only"
