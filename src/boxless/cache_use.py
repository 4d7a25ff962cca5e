"""What the cache holds, of which images, used when and by whom; and removing what was not used for longest.

`used/` in the cache has a record of each set of images: a JSON file with their keys and folders of arrays, whose time
is that of the last use. A process that uses them locks a byte of `used/locks`, at an offset that the record's name
gives; the system releases it when the process ends, however it does. Windows has no such locks: there what a running
process uses is not known.
"""

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from boxless.cache import SUFFIX, cache_root, digest, entry
from boxless.errors import BoxlessError
from boxless.files import unwritable, write_json

try:
    import fcntl
except ImportError:  # On Windows.
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

KINDS = ("proposals", "features")
"""Folders of the cache that hold arrays."""
_CHANGING = 2**62
"""Offset of the byte that is locked while a record is added or arrays are removed."""

# Never closed: a process loses its locks on a file when it closes any of its descriptors of it.
_descriptors: dict[Path, int] = {}
_used: set[Path] = set()


def record_use(folders: Iterable[Path], images: Mapping[str, Path]) -> None:
    """Record that this process uses arrays, which are not removed while it lives; call it before looking for them.

    A cache that can only be read stays as it is.

    Args:
        folders: of the arrays, as `cache.open_store` gives them.
        images: content key -> file.
    """
    if not images:
        return
    root = cache_root()
    try:
        own = {"folders": sorted(folder.relative_to(root).as_posix() for folder in folders), "keys": sorted(images)}
        record = root / "used" / f"{digest(own)}.json"
        with _changing(root) as locks:
            if record.exists():
                os.utime(record)
            else:
                # Two parts of the path tell data sets apart.
                common = Path(os.path.commonpath([path.absolute().parent for path in images.values()]))
                write_json(record, {"images": "/".join(common.parts[-2:]), **own})
            if fcntl is not None:
                fcntl.lockf(locks, fcntl.LOCK_SH, 1, _offset(record))
            _used.add(record)
    # ValueError: on Windows files may have no folder in common, or $BOXLESS_CACHE has changed meanwhile.
    except (OSError, ValueError, BoxlessError) as error:
        logger.debug("The use of the cache is not recorded: %s", error)


@contextmanager
def _changing(root: Path) -> Iterator[int]:
    """The descriptor of the file of locks; no other process is in such a block."""
    if root not in _descriptors:
        path = root / "used" / "locks"
        path.parent.mkdir(parents=True, exist_ok=True)
        _descriptors[root] = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    locks = _descriptors[root]
    if fcntl is None:
        yield locks
        return
    fcntl.lockf(locks, fcntl.LOCK_EX, 1, _CHANGING)
    try:
        yield locks
    finally:
        fcntl.lockf(locks, fcntl.LOCK_UN, 1, _CHANGING)


def _offset(record: Path) -> int:
    return int(record.stem, 16) % _CHANGING


@dataclass
class _Record:
    """A set of images whose arrays were used."""

    file: Path
    images: str
    keys: frozenset[str]
    folders: frozenset[str]
    time: float
    in_use: bool


class _Array(NamedTuple):
    """An array in the cache; `time` is that of its last use."""

    time: float
    file: Path
    size: int
    folder: str
    images: str
    in_use: bool


@dataclass
class Content:
    """Arrays of one kind, made with the same settings, of the same images.

    Args:
        kind: proposals or features.
        made_with: the settings that differ most often, such as the name of the backbone and the scale.
        images: the last two parts of the path of their folder; empty if it is not known.
        arrays, size: their number, and their size in bytes.
        time: of the last use, in seconds since 1970.
        in_use: whether a running process uses some of them.
    """

    kind: str
    made_with: str
    images: str
    arrays: int = 0
    size: int = 0
    time: float = 0.0
    in_use: bool = False


def cache_contents() -> list[Content]:
    """What is in the cache, sorted by the time of the last use.

    Raises:
        BoxlessError: the cache cannot be read.
    """
    root = cache_root()
    contents: dict[tuple[str, str], Content] = {}
    for array in _listed(root) if root.exists() else ():
        key = array.folder, array.images
        if key not in contents:
            contents[key] = Content(array.folder.partition("/")[0], _made_with(root / array.folder), array.images)
        content = contents[key]
        content.arrays, content.size = content.arrays + 1, content.size + array.size
        content.time, content.in_use = max(content.time, array.time), content.in_use or array.in_use
    return sorted(contents.values(), key=lambda content: content.time)


def shrink_cache(limit: int) -> tuple[int, int]:
    """Remove arrays, those first that were not used for longest, until the others take no more than `limit` bytes.

    Those that a running process uses stay. A training that begins meanwhile waits, and computes anew what is gone.

    Returns:
        How many bytes were removed, and how many are left.

    Raises:
        BoxlessError: the cache cannot be read, written or locked.
    """
    root = cache_root()
    if not root.exists():
        return 0, 0
    try:
        with _changing(root):
            arrays = sorted(_arrays(root))
            left = before = sum(array.size for array in arrays)
            for array in arrays:
                if left > limit and not array.in_use:
                    array.file.unlink(missing_ok=True)
                    left -= array.size
            _remove_empty(root)
    except OSError as error:
        raise unwritable(root, error) from error
    return before - left, left


def _listed(root: Path) -> list[_Array]:
    try:
        # The lock keeps `shrink_cache` from removing arrays meanwhile.
        with _changing(root):
            return _arrays(root)
    except OSError:  # In a cache that can only be read nobody has locks.
        return _arrays(root)


def _arrays(root: Path) -> list[_Array]:
    records = _records(root)
    if any(record.in_use and not record.keys for record in records):
        raise BoxlessError(f"{root / 'used'}: a record that a running process uses is damaged; wait for it to end")
    of_folder: dict[str, list[_Record]] = defaultdict(list)
    for record in records:
        for name in record.folders:
            of_folder[name].append(record)
    arrays = []
    for path in (path for kind in KINDS for path in root.glob(f"{kind}/*/??/*{SUFFIX}")):
        folder = path.parents[1].relative_to(root).as_posix()
        status = path.stat()
        using = [record for record in of_folder[folder] if path.name.removesuffix(SUFFIX) in record.keys]
        last = max(using, key=lambda record: record.time, default=None)
        when = status.st_mtime if last is None else max(status.st_mtime, last.time)
        used = any(record.in_use for record in using)
        arrays.append(_Array(when, path, status.st_size, folder, "" if last is None else last.images, used))
    return arrays


def _records(root: Path) -> list[_Record]:
    records = []
    for file in sorted((root / "used").glob("*.json")):
        if not re.fullmatch("[0-9a-f]{16}", file.stem):
            continue
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            keys, folders = frozenset(map(str, content["keys"])), frozenset(map(str, content["folders"]))
            images = str(content["images"])
        except (ValueError, KeyError, TypeError, RecursionError):
            keys, folders, images = frozenset(), frozenset(), ""
        in_use = file in _used or _is_locked(root, file)
        records.append(_Record(file, images, keys, folders, file.stat().st_mtime, in_use))
    return records


def _is_locked(root: Path, record: Path) -> bool:
    """Whether another process uses what a record lists."""
    if fcntl is None:
        return False
    if root not in _descriptors:
        try:
            with _changing(root):
                pass
        except OSError:  # In a cache that can only be read nobody has locks.
            return False
    try:
        fcntl.lockf(_descriptors[root], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(record))
    except (BlockingIOError, PermissionError):
        return True
    fcntl.lockf(_descriptors[root], fcntl.LOCK_UN, 1, _offset(record))
    return False


def _remove_empty(root: Path) -> None:
    """Remove folders without arrays, and records of none that is there."""
    for store in (store for kind in KINDS for store in root.glob(f"{kind}/*")):
        for folder in store.glob("??"):
            with suppress(OSError):
                folder.rmdir()
        if [file.name for file in store.iterdir()] == ["settings.json"]:
            (store / "settings.json").unlink()
            store.rmdir()
    for record in _records(root):
        files = (entry(root / folder, key) for folder in record.folders for key in record.keys)
        if not record.in_use and not any(file.exists() for file in files):
            record.file.unlink()


def _made_with(folder: Path) -> str:
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        if "generator" in settings:
            return f"{settings['generator']}, {settings['size']} px"
        mirrored = ", mirrored" if settings["flipped"] else ""
        return f"{settings['backbone']['name']}, {settings['scale']} px{mirrored}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return folder.name
