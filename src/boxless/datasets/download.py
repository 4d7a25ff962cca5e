"""Download of PASCAL VOC from its publishers: resumable, verified, and moved into place when complete.

Source: http://host.robots.ox.ac.uk/pascal/VOC, which redirects to thor.robots.ox.ac.uk; checksums are those of
torchvision.
"""

import hashlib
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import requests

from boxless.datasets.common import read_lines
from boxless.errors import BoxlessError, in_one_line
from boxless.files import expand_user, unwritable
from boxless.progress import download_bar
from boxless.wording import counted

logger = logging.getLogger(__name__)

_TIMEOUT = (10, 60)
"""Timeouts in seconds: for the connection, and for the next bytes."""


@dataclass(frozen=True)
class Archive:
    """One archive of a VOC year.

    Args:
        name: file name.
        url: address.
        md5: checksum, hexadecimal.
        splits: name -> number of images of the splits in it.
    """

    name: str
    url: str
    md5: str
    splits: Mapping[str, int]


_SOURCE = "https://thor.robots.ox.ac.uk/pascal/VOC"

ARCHIVES = {
    "2007": (
        Archive(
            "VOCtrainval_06-Nov-2007.tar",
            f"{_SOURCE}/voc2007/VOCtrainval_06-Nov-2007.tar",
            "c52e279531787c972589f7e41ab4ae64",
            {"trainval": 5011},
        ),
        Archive(
            "VOCtest_06-Nov-2007.tar",
            f"{_SOURCE}/voc2007/VOCtest_06-Nov-2007.tar",
            "b6e924de25625d8de591ea690078ad9f",
            {"test": 4952},
        ),
    ),
    "2012": (
        Archive(
            "VOCtrainval_11-May-2012.tar",
            f"{_SOURCE}/voc2012/VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            {"trainval": 11540},
        ),
    ),
}


def download_voc(year: Literal["2007", "2012"], root: Path, archives: Sequence[Archive] | None = None) -> Path:
    """Download a VOC year; one that is already there is only checked.

    An interrupted download stays in a hidden folder of `root`, and the next call resumes it. The archives are deleted
    at the end. Until then twice their size is needed (2007: 2 GB, 2012: 4 GB).

    Args:
        year: which challenge; 2007 is trainval and test, 2012 is trainval (the boxes of its test were never published).
        root: the folder that contains VOCdevkit/VOC<year>; created if needed.
        archives: None for the official ones.

    Returns:
        The year's folder, as `load_dataset` takes it.

    Raises:
        BoxlessError: no network, a wrong checksum, a full or read-only disk, or the folder exists but is incomplete.
    """
    archives = ARCHIVES[year] if archives is None else archives
    root = expand_user(root)
    target = root / "VOCdevkit" / f"VOC{year}"
    temporary = root / f".VOC{year}.download"
    if target.exists():
        _check_complete(target, archives)
        shutil.rmtree(temporary, ignore_errors=True)
        return target
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        files = [_fetch(archive, temporary) for archive in archives]
        for unfinished in temporary.glob("extracted*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        # Of this process alone: another that runs the same command would write into what is moved into place.
        extracted = Path(tempfile.mkdtemp(prefix="extracted", dir=temporary))
        for file in files:
            _extract(file, extracted)
        found = extracted / "VOCdevkit" / target.name
        _check_complete(found, archives)
        target.parent.mkdir(exist_ok=True)
        found.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise unwritable(root, error) from error
    return target


def _check_complete(year: Path, archives: Sequence[Archive]) -> None:
    lists = {file.stem: read_lines(file) for file in (year / "ImageSets" / "Main").glob("*.txt")}
    problems = [
        f"split {split} has {len(lists.get(split, []))} of {counted(count, 'image')}"
        for archive in archives
        for split, count in archive.splits.items()
        if len(lists.get(split, [])) != count
    ]
    ids = {line.split()[0] for lines in lists.values() for line in lines}
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        missing = ids - {file.stem for file in (year / folder).glob(f"*{suffix}")}
        if missing:
            problems.append(
                f"{counted(len(missing), 'file is', 'files are')} missing in {folder}, such as {min(missing)}{suffix}"
            )
    if problems:
        raise BoxlessError(
            f"{year} is incomplete: {'; '.join(problems)}. Move it elsewhere and run the same command again"
        )


def _fetch(archive: Archive, folder: Path) -> Path:
    file = folder / archive.name
    if not file.exists():
        part = folder / f"{archive.name}.part"
        _download(archive, part)
        part.rename(file)
    if not _has_md5(file, archive.md5):
        file.unlink()
        raise BoxlessError(
            f"{archive.url}: the download had a wrong checksum (MD5) and was deleted; run the same command again"
        )
    return file


def _has_md5(file: Path, md5: str) -> bool:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _download(archive: Archive, part: Path) -> None:
    """Append the missing bytes to `part`; if the server cannot resume, download everything."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(archive.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if start == 0 or response.status_code != requests.codes.requested_range_not_satisfiable:
                response.raise_for_status()
                _save(response, part, start if response.status_code == requests.codes.partial_content else 0)
                return
    except requests.RequestException as error:
        raise BoxlessError(
            f"{archive.url}: the download failed ({error}); check the network and run the same command again to "
            f"resume, or put a copy of {archive.name} into {part.parent}"
        ) from error
    # The server has no further bytes: the file is complete, or it is another one.
    if not _has_md5(part, archive.md5):
        part.unlink()
        _download(archive, part)


def _save(response: requests.Response, part: Path, start: int) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    logger.info("Downloading %s", part.stem)
    with part.open("ab" if start else "wb") as file, download_bar(part.stem, total, start) as advance:
        for chunk in response.iter_content(1 << 16):
            file.write(chunk)
            advance(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError(f"{part.stat().st_size:,} of {total:,} bytes received")


def _extract(file: Path, folder: Path) -> None:
    logger.info("Extracting %s", file.name)
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        file.unlink()
        raise BoxlessError(
            f"{file}: cannot be extracted ({in_one_line(error)}) and was deleted; run the same command again"
        ) from error
