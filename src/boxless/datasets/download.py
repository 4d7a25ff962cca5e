"""Downloads PASCAL VOC from its makers: resumed, verified, and in place only when whole.

Source: http://host.robots.ox.ac.uk/pascal/VOC, which by now forwards to thor.robots.ox.ac.uk; checksums as torchvision
has them.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from boxless.cache import unwritable
from boxless.datasets._shared import read_lines
from boxless.errors import BoxlessError
from boxless.progress import console

_TIMEOUT = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""


@dataclass(frozen=True)
class Archive:
    """One archive of a VOC year.

    Args:
        name: its file name.
        url: where it is.
        md5: its checksum, hexadecimal.
        splits: how many images each split has that it brings.
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
    """Download a VOC year, or find it there.

    What an interrupted run has downloaded stays in a hidden folder of `root`, and the next run goes on from there. The
    archives are deleted in the end. About twice the size of the archives is needed meanwhile (2007: 2 GB, 2012: 4 GB).

    Args:
        year: which challenge; 2007 is trainval and test, 2012 is trainval (the boxes of its test were never published).
        root: the folder that takes VOCdevkit/VOC<year>; it is made if needed.
        archives: None for the official ones.

    Returns:
        The year's folder, as `load_dataset` takes it.

    Raises:
        BoxlessError: no network, a wrong checksum, a full or read-only disk, or the folder is there but not whole.
    """
    archives = ARCHIVES[year] if archives is None else archives
    root = root.expanduser()
    target = root / "VOCdevkit" / f"VOC{year}"
    if target.exists():
        _require_whole(target, archives)
        return target
    beside = root / f".VOC{year}.download"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        files = [_fetch(archive, beside) for archive in archives]
        extracted = beside / "extracted"
        shutil.rmtree(extracted, ignore_errors=True)
        for file in files:
            _extract(file, extracted)
        found = extracted / "VOCdevkit" / target.name
        _require_whole(found, archives)
        target.parent.mkdir(exist_ok=True)
        found.rename(target)
        shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise unwritable(root, error) from error
    return target


def _require_whole(year: Path, archives: Sequence[Archive]) -> None:
    lists = {file.stem: read_lines(file) for file in (year / "ImageSets" / "Main").glob("*.txt")}
    complaints = [
        f"split {split} has {len(lists.get(split, []))} of {count} images"
        for archive in archives
        for split, count in archive.splits.items()
        if len(lists.get(split, [])) != count
    ]
    ids = {line.split()[0] for lines in lists.values() for line in lines}
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        lost = ids - {file.stem for file in (year / folder).glob(f"*{suffix}")}
        if lost:
            complaints.append(f"{len(lost)} files are missing in {folder}, {min(lost)}{suffix} for one")
    if complaints:
        raise BoxlessError(f"{year} is not whole: {'; '.join(complaints)}. Move it away and run the same command again")


def _fetch(archive: Archive, folder: Path) -> Path:
    file = folder / archive.name
    if not file.exists():
        part = folder / f"{archive.name}.part"
        _download(archive, part)
        part.rename(file)
    if not _has_md5(file, archive.md5):
        file.unlink()
        raise BoxlessError(
            f"{archive.url}: what arrived has a wrong checksum (MD5) and was deleted; run the same command again"
        )
    return file


def _has_md5(file: Path, md5: str) -> bool:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _download(archive: Archive, part: Path) -> None:
    """Append to `part` what it lacks; where the server cannot go on from there, from the start."""
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
            f"{archive.url}: the download broke ({error}); check the network and run the same command again, it goes "
            f"on from here. Or put {archive.name} from elsewhere into {part.parent}"
        ) from error
    # The server has nothing behind what is there: it is complete, or it is not of this file.
    if not _has_md5(part, archive.md5):
        part.unlink()
        _download(archive, part)


def _save(response: requests.Response, part: Path, start: int) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with part.open("ab" if start else "wb") as file, Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(part.stem, total=total, completed=start)
        for chunk in response.iter_content(1 << 16):
            file.write(chunk)
            bar.advance(task, len(chunk))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError(f"{part.stat().st_size:,} of {total:,} bytes came")


def _extract(file: Path, folder: Path) -> None:
    console.print(f"extracting {file.name}", highlight=False)
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        file.unlink()
        raise BoxlessError(
            f"{file}: cannot be extracted ({error}) and was deleted; run the same command again"
        ) from error
