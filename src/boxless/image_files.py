"""Finding image files: which formats are read, which files lie in a folder, and what they are called.

What Boxless itself wrote into a folder (`written_here`) is not found.
"""

import os
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from boxless.files import readable_bytes
from boxless.result_record import written_here

READ = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}) | {
    *(".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".apng", ".dib")
}
"""Suffixes of image files that are read with Pillow alone."""
HEIF, AVIF = frozenset({".heic", ".heif", ".hif"}), frozenset({".avif"})
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Suffixes of files that are taken for videos, see `boxless.video`."""
_RAW = "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
_OTHER = (
    "avifs btf dcm dds emf eps exr fits hdr heics ico j2c j2k jp2 jpf jpx jxl jxr nii pbm pcx pgm pnm ppm psd qoi sgi "
    "svg tga wmf xcf"
)
_UNREAD = {f".{suffix}": "a raw file of a camera" for suffix in _RAW.split()} | {
    f".{suffix}": f"the format {suffix.upper()}" for suffix in _OTHER.split()
}

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"RIFF")
"""How files of images begin (JPEG, PNG, GIF, TIFF, WebP)."""
_UNNAMED = "files without a suffix; name them as what they are, such as .jpg"
_SYSTEM = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "@tmp", "$recycle.bin", "system volume information", "__macosx"}
)
"""Folders in which network disks, Windows and macOS keep small copies, deleted files and the like, in lower case."""


class Found(NamedTuple):
    """The image files at or below a path.

    Args:
        images: files in formats that are read, sorted.
        unread: image files that cannot be read by their format, links to nothing and folders that cannot be opened ->
            reason, and fix.
        videos: sorted; none where `path` is a file.
    """

    images: list[Path]
    unread: dict[Path, str]
    videos: tuple[Path, ...] = ()


def find_images(path: Path) -> list[Path]:
    """The image files at or below `path`, sorted; other suffixes, hidden files and folders, and results of Boxless are
    ignored."""
    return scan_images(path).images


def scan_images(path: Path) -> Found:
    """What `find_images` gives, and the image files that it leaves out.

    Links to folders are followed; a link to a folder that it lies in is not. `path` itself may be a file of any suffix.
    """
    if path.is_file():
        return Found([path], {})
    images: list[Path] = []
    videos: list[Path] = []
    unread: dict[Path, str] = {}
    for file, error in _walk(path, suffixes() | unread_formats().keys() | VIDEOS | {""}, frozenset()):
        if error is None and file.suffix.lower() in VIDEOS:
            videos += [file] if file.is_file() else []
            continue
        if error is None and not file.suffix:
            if _is_image(file):
                unread[file] = _UNNAMED
            continue
        reason = error or _why_unread(file)
        if reason:
            unread[file] = reason
        elif file.suffix.lower() in suffixes():
            images.append(file)
    return Found(sorted(images), dict(sorted(unread.items())), tuple(sorted(videos)))


def walk_files(folder: Path, wanted: Collection[str]) -> Iterator[Path]:
    """The files below `folder` with one of the suffixes `wanted` (in lower case), found as `scan_images` does."""
    return (file for file, error in _walk(folder, wanted, frozenset()) if error is None and file.is_file())


def _walk(
    folder: Path, wanted: Collection[str], above: frozenset[tuple[int, int]]
) -> Iterator[tuple[Path, str | None]]:
    """The entries below a folder with these suffixes, and why a folder cannot be opened."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, f"a folder that cannot be opened ({error.strerror})"
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    results = written_here(folder)
    for entry in entries:
        if is_hidden(entry.name) or entry.name in results:
            continue
        path = folder / entry.name
        if _is_folder(entry):
            yield from _walk(path, wanted, above | {here})
        elif path.suffix.lower() in wanted:
            yield path, None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's by its name."""
    # macOS writes `._a.jpg` beside `a.jpg`, Jupyter copies files to `.ipynb_checkpoints`, Synology has `@eaDir`.
    return name.startswith(".") or name.lower() in _SYSTEM


def _is_image(file: Path) -> bool:
    """Whether a file without a suffix begins as an image does."""
    start = readable_bytes(file, 12)
    return start.startswith(_STARTS) and (start[:4] != b"RIFF" or start[8:] == b"WEBP")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _why_unread(file: Path) -> str | None:
    if not file.is_file():
        return "a link to nothing" if file.is_symlink() else "not a regular file"
    return unread_formats().get(file.suffix.lower())


@cache
def suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the image files that are read here, which depends on what is installed."""
    return READ | (AVIF if can_read_avif() else frozenset()) | (HEIF if find_heif() else frozenset())


@cache
def unread_formats() -> dict[str, str]:
    """Suffix, in lower case -> reason and fix, of the image files that are not read here."""
    reasons = {suffix: f"{what}, which is not read; convert it to JPEG or PNG" for suffix, what in _UNREAD.items()}
    if not find_heif():
        reasons |= dict.fromkeys(HEIF, "the format HEIC; pip install pillow-heif, or convert it to JPEG")
    if not can_read_avif():
        reasons |= dict.fromkeys(AVIF, "the format AVIF; pip install -U pillow, or convert it to JPEG")
    return reasons


@cache
def can_read_avif() -> bool:
    """Whether the installed Pillow reads AVIF, as most from 11.3 on do."""
    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return False
    return bool(AvifImagePlugin.SUPPORTED)


@cache
def find_heif() -> ModuleType | None:
    """The optional package pillow-heif, or None."""
    try:
        return import_module("pillow_heif")
    except ImportError:
        return None


def data_folder(data: Path) -> Path:
    """The folder of the data: itself, or that of a file."""
    return data if data.is_dir() else data.parent


def below(data: Path, file: str | Path) -> str:
    """A file's path relative to the data (a folder, or a file in it); unchanged if it is elsewhere."""
    folder = data_folder(data)
    return str(Path(file).relative_to(folder) if Path(file).is_relative_to(folder) else file)


def normal(path: Path) -> Path:
    """An absolute path without `..`; links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def parent(folder: Path) -> Path:
    """The folder above, also of `.` and of paths that end in `..`."""
    return folder / ".." if folder.name in ("", "..") else folder.parent
