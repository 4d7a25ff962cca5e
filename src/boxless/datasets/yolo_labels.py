"""The label file of each image of a YOLO set, and the label files that belong to no image."""

from collections.abc import Mapping
from pathlib import Path

from boxless.datasets.common import first_path
from boxless.datasets.lookup import RESPELLED, Folders, name_key
from boxless.datasets.problems import Problems
from boxless.datasets.yolo_files import is_label_file
from boxless.image_files import suffixes

_UNUSED = "label files without an image"
_NO_LABELS = "images without a label file, kept as negatives"


class LabelFinder:
    """Finds label files, also where they or their folder are spelled differently, see `lookup.FileFinder`.

    Args:
        root: the folder of the set, for names in problems.
        problems: receives files that are spelled differently, or have no counterpart.
    """

    def __init__(self, root: Path, problems: Problems) -> None:
        self._root = root
        self._problems = problems
        self._entries = Folders()
        self._folders: dict[Path, list[Path]] = {}

    def find(self, image: Path) -> Path | None:
        """The label file of an image: at its path with the last folder `images` replaced by `labels`, or beside it."""
        folders = self._label_folders(image.parent)
        name = image.with_suffix(".txt").name
        if exact := first_path(folder / name for folder in folders):
            return exact
        respelled = (self._entries.match(folder, [one]) for folder in folders for one in (name, f"{image.name}.txt"))
        found = next(filter(None, respelled), None)
        if found is not None:
            self._problems.add(RESPELLED, self._name(found))
        return found

    def _label_folders(self, folder: Path) -> list[Path]:
        """Where the labels of the images of a folder may be; only folders that exist."""
        if folder not in self._folders:
            # From within the folder `images` paths do not name it.
            given = next((one for one in (folder, folder.absolute()) if "images" in map(str.lower, one.parts)), folder)
            parts = [part.lower() for part in given.parts]
            places = [folder]
            if "images" in parts:
                last = len(parts) - 1 - parts[::-1].index("images")
                top, rest = Path(*given.parts[:last]), ("labels", *given.parts[last + 1 :])
                labels = first_path([top.joinpath(*rest)], Path.is_dir) or self._entries.match(top, rest, Path.is_dir)
                places = [folder] if labels is None else [labels, folder]
            self._folders[folder] = places
        return self._folders[folder]

    def check(self, found: Mapping[Path, Path | None]) -> None:
        """Count images without a label file, and label files beside those found that have no image at all.

        Raises:
            BoxlessError: more than half of the label files have no image.
        """
        images: dict[Path, set[Path]] = {}
        for image, labels in found.items():
            if labels is None:
                self._problems.add_unmatched(_NO_LABELS, self._name(image))
            for folder in self._label_folders(image.parent) if labels is None else [labels.parent]:
                images.setdefault(folder, set()).add(image.parent)
        used = {labels for labels in found.values() if labels is not None}
        total = len(used)
        for folder, image_folders in images.items():
            # Images of other splits may lie in the same folder.
            beside = [image for one in image_folders for image in one.iterdir() if image.suffix.lower() in suffixes()]
            known = {name_key(name) for image in beside for name in (image.stem, image.name)}
            for file in sorted(folder.glob("*")):
                if file in used or not file.is_file() or file.suffix.lower() != ".txt" or name_key(file.stem) in known:
                    continue
                if is_label_file(file) or not file.stat().st_size:
                    self._problems.add_unmatched(_UNUSED, self._name(file))
                    total += 1
        self._problems.refuse_most(_UNUSED, total, self._root, "give labels and images the same names")

    def _name(self, file: Path) -> str:
        return (file.relative_to(self._root) if file.is_relative_to(self._root) else file).as_posix()
