"""Annotations as they come back from a review in another tool, for images that are known.

In COCO, Label Studio, YOLO, PASCAL VOC or a table. The images are those of a dataset; nothing but annotations need lie
at the path.
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from boxless.datasets.coco import read_coco
from boxless.datasets.coco_files import coco_unread, find_coco, is_coco
from boxless.datasets.common import read_lines
from boxless.datasets.label_studio import holds_tasks, read_label_studio, read_tasks
from boxless.datasets.lookup import Finder, names_of_own_images
from boxless.datasets.problems import Problems
from boxless.datasets.sizes import AnnotatedImage
from boxless.datasets.table import read_table_images
from boxless.datasets.table_files import DELIMITERS
from boxless.datasets.voc_xml import Annotation, annotated_images, annotation_files, is_annotation, read_annotation
from boxless.datasets.yolo import read_label_file
from boxless.datasets.yolo_files import YoloData, find_yolo, is_label_file, read_yolo
from boxless.errors import BoxlessError
from boxless.image_files import walk_files

Reviewed = tuple[list[AnnotatedImage], int]
"""The images that are found, each once, and the number of all that are annotated."""

_TWICE = "annotations of an image that has others, left out"


def read_reviewed(path: Path, finder: Finder, problems: Problems, missing: str) -> Reviewed:
    """Read annotations, whatever their format.

    Args:
        path: a COCO `.json` or a folder with such; Label Studio's `.json`; the description of a YOLO set, or the folder
            that holds it and the label files; a folder with PASCAL VOC's `.xml` files; or a table.
        finder: finds the images.
        problems: receives what is wrong.
        missing: the kind of problem of an image that is not found.

    Raises:
        BoxlessError: there is nothing at the path, or it is none of these.
    """
    if not path.exists():
        raise BoxlessError(f"{path}: there is no such file or folder")
    for read in (_label_studio, _coco, _table, _yolo, _voc):
        if found := read(path, finder, problems, missing):
            return found
    raise BoxlessError(
        f"{path}: no labels: give the .jsonl of boxless review, COCO, Label Studio's .json, YOLO's data.yaml, a folder "
        "of VOC's .xml files, or a table"
    )


def _label_studio(path: Path, finder: Finder, problems: Problems, missing: str) -> Reviewed | None:
    if not path.is_file() or path.suffix.lower() != ".json" or is_coco(path) or not holds_tasks(path):
        return None
    tasks = read_tasks(path)
    return read_label_studio(tasks, path, finder, problems, missing, predictions=False), len(tasks)


def _coco(path: Path, finder: Finder, problems: Problems, missing: str) -> Reviewed | None:
    files = [file for file in find_coco(path).values() if path.is_dir() or is_coco(file)]
    if not files:
        return None
    if others := coco_unread(files, path):
        names = ", ".join(file.relative_to(path).as_posix() for file in sorted([*files, *others]))
        raise BoxlessError(f"{path}: several COCO files, which are not read together: {names}; give one of them")
    parts = [read_coco(file, finder, problems, missing) for file in files]
    return _once([image for images, _, _ in parts for image in images], problems), sum(part[2] for part in parts)


def _table(path: Path, finder: Finder, problems: Problems, missing: str) -> Reviewed | None:
    if not path.is_file() or path.suffix.lower() not in DELIMITERS:
        return None
    return read_table_images(path, finder, problems, missing)


def _yolo(path: Path, finder: Finder, problems: Problems, missing: str) -> Reviewed | None:
    description = find_yolo(path)
    if description is None:
        return None
    data, root = read_yolo(description), description.parent
    # A file with a damaged line is one of labels if it has the name of an image.
    files = [one for one in sorted(walk_files(root, {".txt"})) if is_label_file(one) or _image(one, root, finder)]
    listed = _listed(data)

    def read(file: Path, name: str, image: Path) -> AnnotatedImage:
        return AnnotatedImage(name, image, read_label_file(file, image, data, name, problems), None)

    def find(file: Path) -> Path | None:
        return finder.find(listed[file], Problems()) if file in listed else _image(file, root, finder)

    return _matched(files, root, read, find, problems, missing)


def _listed(data: YoloData) -> dict[Path, str]:
    """The image of each label file that `boxless predict` wrote: of images with one name those of the files differ."""
    if data.labels is None:
        return {}
    root = data.file.parent
    images = [line for entries in data.splits.values() for entry in entries for line in read_lines(root / entry)]
    return dict(zip((root / line for line in read_lines(data.labels)), images, strict=False))


def _voc(path: Path, finder: Finder, problems: Problems, missing: str) -> Reviewed | None:
    files = [file for file in annotation_files(path) if is_annotation(file)] if path.is_dir() else []
    if not files:
        return None
    read = {file: annotation for file in files if (annotation := read_annotation(file, problems)) is not None}

    def named(file: Path, name: str, image: Path) -> AnnotatedImage:
        return AnnotatedImage(file.as_posix(), image, read[file].objects, read[file].size)

    def find(file: Path) -> Path | None:
        # The file has the name of its image, but where two have the same.
        known = next((name for name in read[file].names if PurePath(name).is_absolute() and Path(name).is_file()), None)
        return _image(file, path, finder) if known is None else finder.find(known, Problems())

    images, number = _matched(list(read), path, named, find, problems, missing)
    found: dict[str, Annotation] = {image.id: read[Path(image.id)] for image in images}
    paths = {image.id: image.path for image in images}
    return annotated_images(paths, found, problems), number


def _matched(
    files: Sequence[Path],
    root: Path,
    read: Callable[[Path, str, Path], AnnotatedImage],
    find: Callable[[Path], Path | None],
    problems: Problems,
    missing: str,
) -> Reviewed:
    """The images of annotation files that have their names, but for the suffix and folders above."""
    names = {file: file.relative_to(root).with_suffix("").as_posix() for file in files}
    images = {file: find(file) for file in files}
    own = names_of_own_images({names[file]: image for file, image in images.items() if image is not None})
    found = []
    for file, image in images.items():
        if image is None or names[file] not in own:
            problems.add_unmatched(missing, names[file])
        else:
            found.append(read(file, names[file], image))
    return _once(found, problems), len(files)


def _image(file: Path, root: Path, finder: Finder) -> Path | None:
    # As a path of another machine: any end of it may be the name. Annotations have no suffix of images to compare.
    return finder.find(f"/{file.relative_to(root).with_suffix('').as_posix()}", Problems())


def _once(images: Sequence[AnnotatedImage], problems: Problems) -> list[AnnotatedImage]:
    """Each image once, with the annotations that come first."""
    kept: dict[Path, AnnotatedImage] = {}
    for image in images:
        if kept.setdefault(image.path, image) is not image:
            problems.add(_TWICE, image.id)
    return list(kept.values())
