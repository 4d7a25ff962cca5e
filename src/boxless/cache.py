"""Cached arrays on disk, in folders named by the settings that made them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.files import expand_user, write_text, write_whole


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
    """Write an array atomically.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    with write_whole(path) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an array.

    Raises:
        BoxlessError: the file is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise BoxlessError(f"{path}: damaged cache entry ({error}); delete it and run again") from None
