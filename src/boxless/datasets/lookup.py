"""Finding the file that an annotation names, also where another program spells its name differently."""

import filecmp
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePath
from posixpath import normpath
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from boxless.datasets.common import as_text, first_path
from boxless.datasets.problems import Problems
from boxless.image_files import is_hidden, normal, parent, suffixes

RESPELLED = "names spelled differently from their files (case, accents, %20, suffix, folder), matched"


_LEVELS = 4
"""Folders above that are searched."""
_MACHINE = re.compile(
    r"[a-z][a-z0-9+.-]+:/+[^/]+|([a-z]:)?/(home|users|mnt|media|volumes)/[^/]+|[a-z]:"
    r"|/(content|data|kaggle|opt|root|srv|tmp|var|workspace)(?=/)",
    re.IGNORECASE,
)
"""How paths of different machines and users begin differently: hosts, drives, and usual folders of Unix."""


class _Listing(NamedTuple):
    """The entries of a folder by `name_key`, of their names and of the names of images without suffix."""

    names: dict[str, list[Path]]
    stems: dict[str, list[Path]]


class Finder(Protocol):
    """Finds the file of an image by the name that an annotation gives it."""

    def find(self, name: str, problems: Problems) -> Path | None:
        """The file, or None; `problems` receives a name that is spelled differently."""


class Folders:
    """The entries of folders, each listed once."""

    def __init__(self) -> None:
        self._listings: dict[Path, _Listing] = {}

    def match(self, folder: Path, parts: Sequence[str], fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
        """The file below a folder whose path has these parts, each possibly spelled differently.

        None if there is none, or several; `fits` says whether an entry is what is searched. Images are also found by
        their names without suffix, or with that of another format.
        """
        for part in parts[:-1]:
            entries = [parent(folder)] if part == ".." else self._list(folder).names.get(name_key(part), [])
            folders = [entry for entry in entries if entry.is_dir()]
            if len(folders) != 1:
                return None
            folder = folders[0]
        listing = self._list(folder)
        for found in (listing.names.get(name_key(parts[-1])), listing.stems.get(_stem_key(parts[-1]))):
            if files := [entry for entry in found or () if fits(entry)]:
                return files[0] if len(files) == 1 else None
        return None

    def _list(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            listing = _Listing(defaultdict(list), defaultdict(list))
            try:
                entries = sorted(folder.iterdir())
            except OSError:
                entries = []
            for entry in entries:
                listing.names[name_key(entry.name)].append(entry)
                if entry.suffix.lower() in suffixes():
                    listing.stems[_stem_key(entry.name)].append(entry)
            self._listings[folder] = listing
        return self._listings[folder]


class FileFinder:
    """Finds files by the names that annotations give them.

    A name that is no file below one of the folders may be spelled differently: in another case, with accents composed
    otherwise (NFC and NFD), with %20 for a space or \\ for /, without suffix or with that of another image format, as a
    path of another machine or an address. Such a name is matched if exactly one file fits, and counted. A path
    may also start in one of the folders above, such as that of a project.

    Args:
        folders: searched in this order; those above are those of the first.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._bases = [normal(folder) for folder in folders]
        self._above = folders[0].absolute().parents[:_LEVELS]
        self._entries = Folders()

    def find(self, name: str, problems: Problems, fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
        """The file of this name, or None; `problems` receives a name that is spelled differently."""
        if exact := first_path((folder / name for folder in self._folders), fits):
            return self._one_path(exact)
        respelled = (self._entries.match(folder, parts, fits) for parts in _spellings(name) for folder in self._folders)
        found = next(filter(None, respelled), None) or first_path(self._elsewhere(name), fits)
        if found is not None:
            problems.add(RESPELLED, name)
        return None if found is None else self._one_path(found)

    def _one_path(self, path: Path) -> Path:
        """The same path for all names of a file below one of the folders, which may be relative and absolute."""
        if path.is_absolute() == self._folders[0].is_absolute() and ".." not in path.parts:
            return path
        whole = normal(path)
        # `..` behind a link leads elsewhere.
        if not (whole.exists() and whole.samefile(path)):
            return path
        pairs = zip(self._folders, self._bases, strict=True)
        return next((folder / whole.relative_to(base) for folder, base in pairs if whole.is_relative_to(base)), path)

    def _elsewhere(self, name: str) -> Iterator[Path]:
        """Other places of a name: the root, for which Label Studio leaves the first / out, and the folders above."""
        path = name.replace("\\", "/")
        if "?d=" in path:
            path = unquote(path.partition("?d=")[2], errors="surrogateescape")
            yield Path("/", path)
        if not path.startswith("/"):
            # A name without a folder may be that of many files.
            yield from (folder / path for folder in (self._above if "/" in path else self._above[:1]))


class NameIndex:
    """Finds things by a name that may be spelled differently, as `FileFinder` does for files.

    Args:
        known: the things by their names; paths have no suffix.
    """

    def __init__(self, known: Mapping[str, Path]) -> None:
        self._known = known
        self._by_key: dict[str, set[Path]] = {}

    def find(self, name: str, problems: Problems) -> Path | None:
        """The thing of this name, or None; `problems` receives a name that is spelled differently."""
        if name in self._known:
            return self._known[name]
        if not self._by_key:
            self._by_key = defaultdict(set)
            for one, path in self._known.items():
                self._by_key[_stem_key(one)].add(path)
        for parts in _spellings(name):
            found = self._by_key.get(_stem_key("/".join(parts)), set())
            if len(found) == 1:
                problems.add(RESPELLED, name)
                return next(iter(found))
        return None


class ImageIndex:
    """Finds images that are known by the end of their paths, which may be spelled differently as for `FileFinder`.

    Args:
        paths: of the images.
        root: the folder that names are relative to; a name that fits no path from there on may be the end of one.
    """

    def __init__(self, paths: Iterable[Path], root: Path) -> None:
        self._root = root
        self._paths = {normal(path): path for path in paths}
        self._ends: dict[str, set[Path]] = defaultdict(set)
        for absolute, path in self._paths.items():
            parts = absolute.parts
            for start in range(len(parts)):
                end = "/".join(parts[start:])
                self._ends[end].add(path)
                self._ends[_stem_key(end)].add(path)

    def find(self, name: str, problems: Problems) -> Path | None:
        """The one image of this name, or None; `problems` receives a name that is spelled differently."""
        # `label_lines.image_name` writes bytes that are not UTF-8 so.
        bytes_ = re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), name)
        for exact in (name, bytes_):
            if path := self._paths.get(normal(self._root / exact)):
                return path
        for parts in _spellings(name):
            end = "/".join(parts)
            for key in (end, _stem_key(end)):
                found = self._ends.get(key, set())
                if len(found) == 1:
                    image = next(iter(found))
                    if not _may_be(self._root / name, image):
                        return None
                    if key != end:
                        problems.add(RESPELLED, name)
                    return image
        return None


def _may_be(named: Path, image: Path) -> bool:
    """Whether a name may mean an image elsewhere: not if it is the path of a file that is another image."""
    try:
        return not named.is_file() or filecmp.cmp(named, image, shallow=False)
    except (OSError, ValueError):
        return True


def unnamed_images(found: Iterable[Path], names: Callable[[], Iterable[str]]) -> list[Path]:
    """The image files in the folders of `found` that are not among them, and that no name fits, sorted.

    Args:
        found: images.
        names: gives the names of other images; called only if there are image files left.
    """
    paths = {Path(os.path.normpath(path)) for path in found}
    folders = {path.parent for path in paths}
    # Without `..`, a path through a link may lead nowhere.
    beside = {file for folder in folders if folder.is_dir() for file in folder.iterdir()}
    left = sorted(file for file in beside - paths if file.suffix.lower() in suffixes() and not is_hidden(file.name))
    keys = {_stem_key(PurePath(name.replace("\\", "/")).name) for name in names()} if left else set()
    return [file for file in left if _stem_key(file.name) not in keys]


def own_names(names: Mapping[Path, Mapping[str, str]], key: Callable[[str], str] = str) -> dict[Path, Collection[str]]:
    """For each file those of the names it is found by that can be its, by their ids.

    Names of which none is the end of another, such as `/a/train/0.jpg` and `/a/val/0.jpg`, are those of several images:
    the file is that of the name which has more of its path than the others, if one has. Exception: the same folder
    under another path on each machine. There all names are kept if their paths end in the file's folder, or if all of
    them name the same images.

    Args:
        names: file -> id -> name.
        key: what spellings of one name, or path, have in common.
    """
    keyed = {file: {id_: key(name) for id_, name in by_id.items()} for file, by_id in names.items()}
    held: dict[tuple[str, ...], set[Path]] = defaultdict(set)
    for file, by_id in keyed.items():
        for name in by_id.values():
            held[_last_parts(name)[1:]].add(file)
    return {file: _own_names(by_id, key(str(file.absolute())), held) for file, by_id in keyed.items()}


def names_of_own_images(found: Mapping[str, Path]) -> set[str]:
    """Those of the names that can be the names of the images that they were found as, see `own_names`.

    Args:
        found: name -> image; as of an image in a folder, a name may lack the suffix.
    """
    by_path: dict[Path, dict[str, str]] = defaultdict(dict)
    for name, path in found.items():
        by_path[path][name] = PurePath(name.replace("\\", "/")).with_name(path.name).as_posix()
    return {name for own in own_names(by_path, name_key).values() for name in own}


def _own_names(
    names: Mapping[str, str], file: str, held: Mapping[tuple[str, ...], Collection[Path]]
) -> Collection[str]:
    """Those of the names of a file that can be its; `held` are the files that are named in each folder."""
    parts = {id_: _last_parts(name) for id_, name in names.items()}
    if all(one == other for two in combinations(set(parts.values()), 2) for one, other in zip(*two, strict=False)):
        return names.keys()
    path = _last_parts(file)
    others = {id_: own for id_, own in parts.items() if own == path or own != path[: len(own)]}
    machines = {own[1:]: _machine(names[id_]) for id_, own in others.items()}
    if None not in machines.values() and len(set(machines.values())) == len(machines):
        named = {frozenset(held[own[1:]]) for own in parts.values()}
        if all(own[:2] == path[:2] for own in others.values()) or (len(named) == 1 and len(next(iter(named))) > 1):
            return names.keys()
    shared = {id_: sum(own[:end] == path[:end] for end in range(1, len(own) + 1)) for id_, own in parts.items()}
    ranks = {id_: (number, number == len(parts[id_])) for id_, number in shared.items()}
    best = [id_ for id_, rank in ranks.items() if rank == max(ranks.values())]
    return best if len({parts[id_] for id_ in best}) == 1 else []


def _machine(name: str) -> str | None:
    """What tells the machine or user whose path this is: a host, a drive or one of the first folders; None if none."""
    found = _MACHINE.match(name.replace("\\", "/"))
    return found[0].casefold() if found else None


def _last_parts(name: str) -> tuple[str, ...]:
    """The parts of a path from the last to the first, as all systems write them."""
    path = as_text(unquote(name, errors="surrogateescape")).replace("\\", "/")
    parts = normpath(unicodedata.normalize("NFC", path)).split("/")
    return tuple(part for part in reversed(parts) if part not in ("", "."))


def name_key(name: str) -> str:
    """What spellings of one name have in common."""
    text = unicodedata.normalize("NFC", as_text(unquote(name, errors="surrogateescape")))
    return unicodedata.normalize("NFC", text.casefold())


def possible_stems(name: str) -> Iterator[str]:
    """What spellings of the image that a name may mean have in common, whatever its folder."""
    yield from dict.fromkeys(_stem_key(parts[-1]) for parts in _spellings(name))


def _stem_key(name: str) -> str:
    path = PurePath(name)
    return name_key(name.removesuffix(path.suffix) if path.suffix.lower() in suffixes() else name)


def _spellings(name: str) -> Iterator[list[str]]:
    """The parts of the paths that a name may mean: one, or of a path of another machine all its ends, longest first."""
    path = name.replace("\\", "/")
    local, address = path.partition("?d=")[2], path.partition("://")[2].partition("?")[0]
    if local or address:  # The former in Label Studio.
        path = unquote(local or address, errors="surrogateescape")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    foreign = bool(local or address) or path.startswith(("/", "../")) or re.match("[A-Za-z]:/", path) is not None
    for start in range(len(parts) if foreign else min(len(parts), 1)):
        yield parts[start:]
    # Label Studio's uploads get a prefix.
    if foreign and parts and (unprefixed := re.sub("^[0-9a-f]{8}-", "", parts[-1])) not in ("", parts[-1]):
        yield [unprefixed]
