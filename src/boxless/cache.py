"""Cached arrays on disk, compressed without loss, with a checksum, in folders named by the settings that made them."""

import hashlib
import json
import logging
import os
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import zstandard
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.files import expand_user, write_text, write_whole
from boxless.parallel import map_threads

logger = logging.getLogger(__name__)

SUFFIX = ".npy.zst"
LEVEL = 1
"""Compression level of Zstandard. Feature maps are mostly zeros: a fifth is left of them. Higher levels leave
little less and are slower to write (`benchmarks/cache.py`)."""


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
    return store / key[:2] / f"{key}{SUFFIX}"


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array atomically, as `.npy` in a frame of Zstandard that has a checksum.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    content = BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    frame = zstandard.ZstdCompressor(LEVEL, write_checksum=True).compress(content.getbuffer())
    with write_whole(path) as file:
        file.write(frame)


def find_arrays(paths: Collection[Path]) -> set[Path]:
    """Those of some arrays that are cached; a damaged one is reported, and is to be computed anew."""

    def is_whole(path: Path) -> bool:
        if not path.exists():
            return False
        try:
            _read(path)
        except Exception as error:  # Of the disk, of Zstandard, or for an array of objects.
            logger.warning("%s: damaged cache entry (%s); it is computed anew", path, error)
            return False
        return True

    wholes = map_threads(is_whole, paths, "Check the cache", None)
    return {path for path, whole in zip(paths, wholes, strict=True) if whole}


def load_array(path: Path) -> NDArray[Any]:
    """Read an array that `find_arrays` has found or `save_array` saved.

    Raises:
        BoxlessError: the file is missing or damaged.
    """
    try:
        return _read(path)
    except Exception as error:  # As above.
        raise BoxlessError(
            f"{path}: lost or damaged cache entry ({error}); run the same command again to compute it anew"
        ) from None


def _read(path: Path) -> NDArray[Any]:
    content = zstandard.ZstdDecompressor().decompress(path.read_bytes(), allow_extra_data=False)
    array: NDArray[Any] = np.lib.format.read_array(BytesIO(content), allow_pickle=False)
    return array
