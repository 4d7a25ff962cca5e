"""Where COCO files lie: which JSON file describes which split, and where its images are."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from boxless.datasets.common import MOST_JSON
from boxless.datasets.unread import unread_json
from boxless.files import readable_bytes
from boxless.image_files import find_images, is_hidden, normal, parent
from boxless.result_record import written_here

ROBOFLOW = "_annotations.coco.json"
_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_WORDS = ("instances_", "annotations_", "labels_", "coco_", "_annotations", "_labels", "_coco", "_instances")


def find_coco(path: Path) -> dict[str, Path]:
    """The JSON file of each split: `path` itself, or those in a folder of COCO.

    Of a folder these are the first of: Roboflow's _annotations.coco.json; those in annotations, where
    instances_<split>.json precede <split>.json, since COCO itself puts captions and keypoints there too;
    <split>/_annotations.coco.json; the COCO files in the folder itself; one in each of its folders.
    """
    if path.suffix.lower() == ".json" and path.is_file():
        name = normal(path.parent).name if path.name == ROBOFLOW else path.stem
        return {name.removeprefix("instances_"): path}
    if (path / ROBOFLOW).is_file():
        return find_coco(path / ROBOFLOW)
    files = sorted((path / "annotations").glob("instances_*.json")) or _of_annotations(path / "annotations")
    files = files or sorted(path.glob(f"*/{ROBOFLOW}")) or coco_in(path) or _results_in(path)
    if files:
        return {split: file for one in files for split, file in find_coco(one).items()}
    found = {folder.name: coco_in(folder) for folder in sorted(path.glob("*")) if folder.is_dir()}
    return {name: files[0] for name, files in found.items() if len(files) == 1}


def _of_annotations(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.glob("*.json")) if not is_hidden(file.name)]
    if len(files) > MOST_JSON:
        return []
    # A damaged file is a split too: loading it says what is wrong. If none is recognised, loading all does; files of a
    # format that is not read are refused by its name.
    found = [file for file in files if is_coco(file) or _is_cut_off(file)]
    return found or ([] if any(map(unread_json, files)) else files)


def _results_in(folder: Path) -> list[Path]:
    """The predictions of Boxless in a folder that holds no images but its overlays."""
    files = [folder / name for name in sorted(written_here(folder)) if name.endswith(".json")]
    return [file for file in files if is_coco(file)] if files and not find_images(folder) else []


def coco_in(folder: Path, known: Sequence[Path] = ()) -> list[Path]:
    """The JSON files of a folder that have the keys of COCO, sorted, without predictions of Boxless and those known."""
    left_out = written_here(folder) | {file.name for file in known if file.parent == folder}
    files = [file for file in sorted(folder.glob("*.json")) if file.name not in left_out and not is_hidden(file.name)]
    return [file for file in files if is_coco(file)] if len(files) <= MOST_JSON else []


def coco_unread(files: Sequence[Path], path: Path) -> list[Path]:
    """The COCO files of a folder and of those in it that are none of `files`, which `find_coco` gives of it.

    Not the captions and keypoints that COCO itself puts beside `instances_<split>.json`.
    """
    if not path.is_dir():
        return []
    named = {file.parent for file in files if file.name.startswith("instances_")}
    folders = (folder for folder in sorted(path.glob("*")) if folder.is_dir() and not is_hidden(folder.name))
    return [file for folder in (path, *folders) if folder not in named for file in coco_in(folder, files)]


def is_coco(file: Path) -> bool:
    """Whether a file has the keys of COCO."""
    content = readable_bytes(file)
    return all(key in content for key in _KEYS)


def _is_cut_off(file: Path) -> bool:
    """Whether a JSON file ends before its outermost bracket does, as after an interrupted copy."""
    return readable_bytes(file).rstrip()[-1:] not in (b"}", b"]")


def image_folders(file: Path, split: str) -> tuple[Path, ...]:
    """Where images of a JSON file may be: beside it, in images/<split>, <split>, images, data, and above."""
    top = dataset_folder(file)
    short = split
    for word in _WORDS:
        short = short.removeprefix(word).removesuffix(word)
    inner = [top / "images" / name for name in (split, short)] + [top / name for name in (split, short)]
    return tuple(dict.fromkeys((file.parent, *inner, top / "images", top, top / "data")))


def dataset_folder(file: Path) -> Path:
    """The folder of a dataset, from that of its JSON file."""
    return parent(file.parent) if normal(file.parent).name == "annotations" else file.parent


def folders_without(files: Iterable[Path], root: Path) -> list[str]:
    """The folders of `root` that hold images, but none of the JSON files, if those lie in such folders."""
    own = {file.parent for file in files}
    if not root.is_dir() or not all(folder.parent == root for folder in own) or root / "annotations" in own:
        return []
    return [
        folder.name
        for folder in sorted(root.glob("*"))
        if folder.is_dir() and not folder.name.startswith(".") and folder not in own and find_images(folder)
    ]
