"""Cached arrays on disk, in folders named by the settings that made them; each ends with a checksum."""

import hashlib
import json
import logging
import math
import os
import zlib
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.files import expand_user, write_text, write_whole
from boxless.parallel import map_threads

logger = logging.getLogger(__name__)

MAX_HEADER = 2**16
"""No `.npy` of version 1.0 has a longer header, in bytes."""


def cache_root() -> Path:
    """`$BOXLESS_CACHE`, else the user's cache folder."""
    return expand_user(os.environ.get("BOXLESS_CACHE") or platformdirs.user_cache_dir("boxless"))


def digest(settings: Mapping[str, Any]) -> str:
    """A short name for settings: 64 bits of BLAKE2b over their JSON, as 16 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def open_store(kind: str, settings: Mapping[str, Any]) -> Path:
    """The cache folder of arrays made with `settings`, which are recorded in its `settings.json`.

    Raises:
        BoxlessError: the folder cannot be made or written.
    """
    folder = cache_root() / kind / digest(settings)
    description = folder / "settings.json"
    if not description.exists():
        write_text(description, json.dumps(dict(settings), indent=1, sort_keys=True))
    return folder


def entry(store: Path, key: str) -> Path:
    """The path of the array with a content key, in one of 256 subfolders, as large folders are slow to list."""
    return store / key[:2] / f"{key}.npy"


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array atomically, as `.npy` with the CRC-32 of all that precedes behind it, in 4 bytes.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    content = BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    with write_whole(path) as file:
        file.write(content.getbuffer())
        file.write(checksum(content.getbuffer()))


def find_arrays(paths: Collection[Path]) -> set[Path]:
    """Those of some arrays that are cached; a damaged one is reported, and is to be computed anew."""

    def is_whole(path: Path) -> bool:
        if not path.exists():
            return False
        try:
            _read(path, checked=True)
        except Exception as error:  # Damaged bytes can raise any error in numpy's parser, such as TokenError.
            logger.warning("%s: damaged cache entry (%s); it is computed anew", path, error)
            return False
        return True

    wholes = map_threads(is_whole, paths, "Check the cache", None)
    return {path for path, whole in zip(paths, wholes, strict=True) if whole}


def load_array(path: Path) -> NDArray[Any]:
    """Read an array that `find_arrays` has found or `save_array` saved; its checksum is not compared again.

    Raises:
        BoxlessError: the file is missing or cut off.
    """
    try:
        return _read(path, checked=False)
    except Exception as error:  # As above.
        raise BoxlessError(
            f"{path}: lost or damaged cache entry ({error}); run the same command again to compute it anew"
        ) from None


def _read(path: Path, checked: bool) -> NDArray[Any]:
    # Not memory-mapped: a disk that fails would end the process where the pages are read.
    content = bytearray(path.stat().st_size)
    with path.open("rb") as file:
        size = file.readinto(content)
    header = BytesIO(content[:MAX_HEADER])
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    array = np.frombuffer(content, dtype, math.prod(shape), header.tell()).reshape(shape)
    end = header.tell() + array.nbytes
    if size != len(content):
        raise ValueError("cut off")
    # Entries written before there were checksums have none.
    if checked and content[end:] not in (b"", checksum(memoryview(content)[:end])):
        raise ValueError("wrong checksum")
    return array


def checksum(content: memoryview) -> bytes:
    """The CRC-32 of some bytes, as 4 bytes, the lowest first."""
    return zlib.crc32(content).to_bytes(4, "little")
