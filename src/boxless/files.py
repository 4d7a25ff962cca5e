"""Atomic writes: a file at its final path is always complete."""

import errno
import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from boxless.errors import BoxlessError

DISK_ERRORS = frozenset({errno.EIO, errno.ENODEV, errno.ENOSPC, errno.EROFS, errno.ESTALE})
"""Numbers of errors of a disk that fails, is full or is gone, wherever they occur."""
STDOUT = frozenset({"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
"""Names of standard output."""


def expand_user(path: str | os.PathLike[str]) -> Path:
    """A path in which `~` is the user's home; unchanged if there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises RuntimeError)


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`, which becomes `path` when the block ends without an error.

    `~` is the user's home. A link stays, and the file it leads to is written so. What is no regular file, such as a
    named pipe or a device, is written to directly; `-` is standard output.

    Raises:
        BoxlessError: the disk is full or not writable; a file that was at `path` before is unchanged.
    """
    path = expand_user(path)
    if _is_stream(path):
        with _write_through(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Random, so that no other process or machine writes to it, and short enough for every file system.
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            unnamed, is_named = _open_unnamed(path.parent), False
            with unnamed or temporary.open("wb") as file:
                yield file
                if unnamed:
                    file.flush()
                    is_named = _link_new(file, path)
                    if not is_named:
                        _link(file, temporary)
            if not is_named:
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def _open_unnamed(folder: Path) -> IO[bytes] | None:
    """Open a new file without a name, which vanishes with a process that is killed; None where there are none such.

    Linux has them on most file systems (`O_TMPFILE` in open(2)).
    """
    try:
        file = os.fdopen(os.open(folder, os.O_WRONLY | getattr(os, "O_TMPFILE", 0), 0o666), "wb")
    except OSError:
        return None
    if os.path.lexists(_link_to(file)):
        return file
    file.close()
    return None


def _link_new(file: IO[bytes], path: Path) -> bool:
    """Name an unnamed file at once; False if there is one of this name, which a link does not replace."""
    try:
        _link(file, path)
    except FileExistsError:
        return False
    return True


def _link(file: IO[bytes], path: Path) -> None:
    # Without a folder's descriptor Python links the link itself.
    os.link(_link_to(file), path, src_dir_fd=file.fileno())


def _link_to(file: IO[bytes]) -> str:
    """The link through which an open file gets a name."""
    return f"/proc/self/fd/{file.fileno()}"


def _is_stream(path: Path) -> bool:
    """Whether what is written to a path goes to standard output, a pipe or a device."""
    if str(path) in STDOUT:
        return True
    # Unlike `Path.exists` and its like, these do not raise where the folder may not be entered.
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113


@contextmanager
def _write_through(path: Path) -> Iterator[IO[bytes]]:
    try:
        if str(path) in STDOUT:
            # Not opened anew: that would truncate a file that it is redirected to.
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with path.open("wb") as file:
                yield file
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8; surrogate escapes of file names that are not UTF-8 become their bytes again.

    A text with other surrogates, which JSON may hold, has `\\udXXX` for all of them.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        content = text.encode("utf-8", "backslashreplace")
    with write_whole(path) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, in UTF-8; surrogate escapes of file names that are not UTF-8 become `\\udcXX`.

    Raises:
        BoxlessError: the disk is full or not writable.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with write_whole(path) as file:
        # In JSON that is the character itself.
        file.write(text.encode("utf-8", "backslashreplace"))


def readable_bytes(path: Path, most: int = -1) -> bytes:
    """The content of a file, or its first `most` bytes; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""


def read_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, which has no NaN and no infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    return json.loads(text, parse_constant=refuse)


def check_writable(path: Path) -> None:
    """Fail before the work whose result would be written to `path`; nothing is written.

    Raises:
        BoxlessError: `path` is a folder, or its own folder cannot be made or written.
    """
    path = expand_user(path)
    if _is_stream(path):
        return
    target = Path(os.path.realpath(path))
    folder = next(folder for folder in target.parents if os.path.exists(folder))  # noqa: PTH110
    number = 0
    if os.path.isdir(target):  # noqa: PTH112
        number = errno.EISDIR
    elif not os.path.isdir(folder):  # noqa: PTH112
        number = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise unwritable(path, OSError(number, os.strerror(number)))


def unwritable(path: Path, error: OSError) -> BoxlessError:
    """The error to raise if `path` cannot be written, with the fix."""
    if error.errno == errno.ENOSPC:
        return BoxlessError(f"{path}: the disk is full; free some space and run the same command again to resume")
    return BoxlessError(
        f"{path}: cannot be written ({error.strerror or error}); choose another folder (BOXLESS_CACHE for the caches)"
    )
