"""Arrays on disk that name what made them; a half-written one never looks whole."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from boxless.errors import BoxlessError


def cache_root() -> Path:
    """`$BOXLESS_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("BOXLESS_CACHE") or platformdirs.user_cache_dir("boxless"))


def digest(settings: Mapping[str, Any]) -> str:
    """A short name for settings: 64 bits of BLAKE2b over their JSON."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def open_store(kind: str, settings: Mapping[str, Any]) -> Path:
    """The cache folder for artefacts made with `settings`, with `settings.json` beside them.

    Raises:
        BoxlessError: the folder cannot be made or written.
    """
    folder = cache_root() / kind / digest(settings)
    description = folder / "settings.json"
    if not description.exists():
        write_text(description, json.dumps(dict(settings), indent=1, sort_keys=True))
    return folder


def entry(store: Path, key: str) -> Path:
    """Where the array of a content key lies; two characters fan out, as huge folders are slow to list."""
    return store / key[:2] / f"{key}.npy"


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array whole or not at all.

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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    with write_whole(path) as file:
        file.write(text.encode())


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` for writing and rename it into place when the block ends well.

    Raises:
        BoxlessError: the disk is full or not writable; what stood at `path` before still stands.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever writes here, on this machine or another, has a file of its own, whose name is never too long.
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                yield file
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> BoxlessError:
    """What to tell a user whose disk does not take `path`."""
    if error.errno == errno.ENOSPC:
        return BoxlessError(
            f"{path}: the disk is full; free some room and run the same command again, it goes on from here"
        )
    return BoxlessError(
        f"{path}: cannot be written ({error.strerror}); choose another folder (BOXLESS_CACHE for the caches)"
    )
