"""Damaged copies of a file."""

import json
import re
import zlib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import yaml

NUMBERS = (b"0", b"-1", b"1e999", b"99999999999999999999", b"0.5", b"NaN", b"", b"1" * 5000)
WORDS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b"../" * 9,
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"[",
)
"""What often breaks a reader of any text."""
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    10**30,
    "",
    "nan",
    "\ud800",
    "../" * 9,
    [],
    {},
    [[]],
    {"a": []},
    [1] * 9,
)
"""What often breaks a reader of a tree of values."""


def _flip(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    content[place] ^= 1 << value % 8


def _set(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    content[place] = value % 256


def _fill(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    # Lengths and sizes in binary headers are often of four bytes.
    content[place : place + 4] = (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4, b"\xff\xff\xff\x7f")[value % 4]


def _cut(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    del content[place:]


def _drop(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    del content[place : place + 1 + value % 64]


def _repeat(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    content[place:place] = content[place : place + 1 + value % 64] * (1 + value % 50)


def _move(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    start = value % len(content)
    content[place : place + 32] = content[start : start + 32]


def _insert(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    content[place:place] = words[value % len(words)]


def _renumber(content: bytearray, place: int, value: int, words: Sequence[bytes]) -> None:
    number = re.search(rb"-?\d+(\.\d+)?", content[place:])
    if number:
        content[place + number.start() : place + number.end()] = NUMBERS[value % len(NUMBERS)]


_CHANGES = (_flip, _set, _fill, _cut, _drop, _repeat, _move, _insert, _renumber)


def damaged(content: bytes, random: np.random.Generator, words: Sequence[bytes] = ()) -> bytes:
    """A copy with one to four changes of its bytes; `words` are inserted too."""
    copy = bytearray(content)
    for _ in range(random.integers(1, 5)):
        change, place, value = random.integers(2**32, size=3).tolist()
        if copy:
            _CHANGES[change % len(_CHANGES)](copy, place % len(copy), value, (*WORDS, *words))
    return bytes(copy)


def with_checksums(content: bytes) -> bytes:
    """A damaged PNG with the checksums of its parts made anew, so that more than these are put to the test."""
    copy, start = bytearray(content), 8
    while start + 12 <= len(copy):
        end = start + 8 + int.from_bytes(copy[start : start + 4])
        copy[end : end + 4] = zlib.crc32(copy[start + 4 : end]).to_bytes(4)
        start = end + 4
    return bytes(copy)


def distorted(content: bytes, random: np.random.Generator, form: str) -> bytes:
    """A copy of JSON (lines of it too) or YAML in which values of the tree are left out or replaced by others."""
    lines = content.splitlines() if form == "JSON lines" else [content]
    tree = [yaml.safe_load(line) if form == "YAML" else json.loads(line) for line in lines]
    for _ in range(random.integers(1, 4)):
        node, value = random.integers(2**32, size=2).tolist()
        nodes = _nodes(tree)
        parent, key = nodes[node % len(nodes)]
        if value % 7 == 0 and parent is not tree:
            del parent[key]
        else:
            parent[key] = deepcopy(ODD[value % len(ODD)])
    dump = yaml.safe_dump if form == "YAML" else json.dumps
    return "\n".join(map(dump, tree)).encode()


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every value within a tree, as what holds it and where."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [(tree, key) for key in keys] + [node for key in keys for node in _nodes(tree[key])]
