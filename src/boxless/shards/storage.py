"""Files by path or URI, through fsspec: images are read, and what is written appears whole or not at all."""

import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from boxless.errors import BoxlessError, ImageError, in_one_line
from boxless.files import check_writable, expand_user, write_whole

try:
    import fsspec
    from fsspec.implementations.local import LocalFileSystem
except ImportError:
    raise BoxlessError("fsspec is not installed: in the checkout pip install -e '.[shards]'") from None

T = TypeVar("T")

ATTEMPTS, PAUSE = 4, 1.0
"""How often storage is asked, and seconds before the second time; each further pause is twice as long."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Protocols whose objects appear whole, as they are put by one request, or by several and one that ends them."""

_FAULTS = frozenset({errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR})
"""`errno` of faults of one local file; others are of the disk or the process."""
_DENIED = frozenset({401, 403, 407})
"""HTTP statuses of a server that does not let this process read."""
_OF_THE_SERVER = _DENIED | {408, 425, 429}
"""HTTP statuses below 500 that say nothing of the file."""


class MissingImageError(ImageError):
    """An image that is not there, or that this process may not read."""


class StorageError(BoxlessError):
    """Storage that fails; it says nothing of the images in it."""


def locate(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URI, and the path within it.

    Raises:
        BoxlessError: no file system has this protocol, or its package is not installed.
    """
    if "://" not in uri:
        return LocalFileSystem(), str(expand_user(uri).absolute())
    try:
        # Listings are not kept: they would take memory, and go out of date.
        files, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise BoxlessError(f"{uri}: cannot be opened ({in_one_line(error)})") from None
    return files, str(path)


def local_path(uri: str) -> Path | None:
    """The path of a local file or folder; None for what lies elsewhere."""
    files, path = locate(uri)
    return Path(path) if isinstance(files, LocalFileSystem) else None


def state(uri: str) -> tuple[str, ...]:
    """What changes if a file is replaced, on all machines that share it: its size, and when or as what it was written.

    Raises:
        StorageError: the storage does not answer.
    """
    files, path = locate(uri)
    info = attempt(lambda: files.info(path), uri, "read")
    return tuple(str(info.get(key)) for key in ("size", "mtime", "LastModified", "updated", "last_modified", "ETag"))


def join(folder: str, name: str) -> str:
    """The path or URI of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def fetch(uri: str) -> bytes:
    """The bytes of an image file.

    Raises:
        MissingImageError: there is no such file, or it is a local one that this process may not read.
        ImageError: it cannot be read, and no other attempt will change that.
        StorageError: the storage does not answer, or does not let this process read.
    """
    files, path = locate(uri)

    def read() -> bytes:
        try:
            return bytes(files.cat_file(path))
        except Exception as error:  # Each storage raises errors of its own.
            if isinstance(error, FileNotFoundError):
                raise MissingImageError(f"{uri}: there is no such file") from None
            local = isinstance(files, LocalFileSystem)
            if local and isinstance(error, PermissionError):
                raise MissingImageError(f"{uri}: cannot be read ({error.strerror})") from None
            if local and isinstance(error, OSError) and error.errno in _FAULTS:
                raise ImageError(f"{uri}: cannot be read ({error.strerror})") from None
            status = getattr(error, "status", None)
            if isinstance(status, int) and 400 <= status < 500 and status not in _OF_THE_SERVER:
                raise ImageError(f"{uri}: the server answers with status {status}") from None
            raise

    return attempt(read, uri, "read")


def attempt(work: Callable[[], T], uri: str, what: str) -> T:
    """The result of `work`, which is called up to `ATTEMPTS` times while storage fails.

    Args:
        work: reads or writes.
        uri: for the message.
        what: the participle for the message.

    Raises:
        StorageError: it failed each time, or access is denied.
        BoxlessError: that `work` raised.
    """
    for number in range(ATTEMPTS):
        try:
            return work()
        except BoxlessError:
            raise
        except Exception as error:  # As above.
            last = error
        if isinstance(last, PermissionError | FileNotFoundError) or getattr(last, "status", None) in _DENIED:
            break
        if number < ATTEMPTS - 1:
            time.sleep(PAUSE * 2**number)
    reason = in_one_line(last) or type(last).__name__
    raise StorageError(f"{uri}: cannot be {what} ({reason}); run the same command again once it can") from last


def read_bytes(uri: str) -> bytes:
    """The bytes of a file.

    Raises:
        BoxlessError: it cannot be read.
    """
    files, path = locate(uri)
    return attempt(lambda: bytes(files.cat_file(path)), uri, "read")


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """A file open for reading at any place.

    Raises:
        BoxlessError: it cannot be opened.
    """
    files, path = locate(uri)
    with attempt(lambda: files.open(path, "rb"), uri, "read") as file:
        yield file


@contextmanager
def writing(uri: str) -> Iterator[IO[bytes]]:
    """A file open for writing, which is at `uri` when the block ends without an error, and not before.

    Raises:
        BoxlessError: it cannot be written.
    """
    path = local_path(uri)
    if path is not None:
        with write_whole(path) as file:
            yield file
        return
    files, there = locate(uri)
    with tempfile.NamedTemporaryFile() as copy:
        yield copy
        copy.flush()
        attempt(lambda: files.put_file(copy.name, there), uri, "written")


def exists(uri: str) -> bool:
    """Whether there is a file.

    Raises:
        BoxlessError: the storage does not answer.
    """
    files, path = locate(uri)
    return attempt(lambda: bool(files.exists(path)), uri, "read")


def names(folder: str) -> set[str]:
    """The names of the files in a folder; none where there is no such folder.

    Raises:
        BoxlessError: it cannot be listed.
    """
    files, path = locate(folder)

    def listed() -> set[str]:
        try:
            if isinstance(files, LocalFileSystem):
                # fsspec asks for the size of each, which fails for a file that was renamed meanwhile.
                return set(os.listdir(path))  # noqa: PTH208 (names, not paths)
            return {str(file).rstrip("/").rpartition("/")[2] for file in files.ls(path, detail=False)}
        except FileNotFoundError:
            return set()

    return attempt(listed, folder, "listed")


def check_folder(uri: str) -> None:
    """Fail before the work whose results would be written to files in a folder; nothing is written.

    Raises:
        BoxlessError: it cannot be made or written, or files would not appear whole in it.
    """
    path = local_path(uri)
    if path is not None:
        check_writable(path / "part")
    elif (protocol := uri.partition("://")[0]) not in OBJECT_STORES:
        stores = ", ".join(sorted(OBJECT_STORES))
        raise BoxlessError(f"{uri}: results go to a folder or an object store ({stores}), not to {protocol}")
