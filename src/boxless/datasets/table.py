"""Tables: a .csv or .tsv file with a row per image, tag or box."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePath

from boxless.datasets.common import Object, choose_split, dataset_name, loaded, refuse_split, to_size
from boxless.datasets.folders import find_in_folders
from boxless.datasets.layouts import Source
from boxless.datasets.lookup import FileFinder, Finder, names_of_own_images, unnamed_images
from boxless.datasets.problems import Problems
from boxless.datasets.sizes import AnnotatedImage, boxed_samples
from boxless.datasets.table_files import DELIMITERS, Table, read_table
from boxless.datasets.table_objects import read_objects
from boxless.errors import BoxlessError
from boxless.image_files import suffixes
from boxless.result_record import written_here
from boxless.structures import Dataset

_MISSING = "rows whose image is missing, left out"


def table(path: Path) -> Source | None:
    """A .csv or .tsv file, or a folder with one: a column `image`, and one of `tags`, or of 0 and 1 for each class."""
    file = path if path.is_file() else _in_folder(path)
    if file is None or file.suffix.lower() not in DELIMITERS:
        return None
    return Source(partial(table_splits, file), partial(load_table, file))


def _in_folder(folder: Path) -> Path | None:
    """The table of a folder, which names images that there are, and classes where the folders in it may be classes.

    Raises:
        BoxlessError: there are several.
    """
    tables = (_naming_images(file) for file in sorted(folder.glob("*")) if file.suffix.lower() in DELIMITERS)
    found = [one for one in tables if one is not None]
    # The others have sizes or captions, for example, or are results of Boxless.
    results = written_here(folder)
    own = [one for one in found if one.file.name not in results and read_objects(one, Problems())[1]]
    if found and not own and len({image.parent for image in find_in_folders(folder).images}) > 1:
        return None
    files = [one.file for one in own or found]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise BoxlessError(f"{folder}: several tables name images, give the path of one of {names}")
    return files[0] if files else None


def _naming_images(file: Path) -> Table | None:
    """The table of a file, if it is one whose first rows name images that there are."""
    try:
        found = read_table(file, Problems())
    except BoxlessError:
        return None
    finder, column = FileFinder(_folders(found)), found.image
    names_any = any(row[column] and finder.find(row[column], Problems()) for row in islice(found.rows, 20))
    return found if names_any else None


def table_splits(file: Path) -> set[str]:
    """The values of a table's column `split`; none if it has no such column.

    Raises:
        BoxlessError: the file is not a table.
    """
    found = read_table(file, Problems())
    return set() if found.split is None else _values(found, found.split)


def _values(found: Table, column: str) -> set[str]:
    return {row[column] for row in found.rows} - {""}


def load_table(file: Path, split: str | None) -> Dataset:
    """Read a table, or the rows of one split.

    A column called image, file, filename, path or the like, else the first one, has the image's path relative to
    the table's folder; a column of names of image files precedes one of mere numbers. A column tags, labels, class
    or the like has tags, see `table_cells.parse_tags`, and with columns xmin, ymin, xmax, ymax or the like the
    class of a box; classes are sorted. Without such a column, each other column whose cells are mostly 0 and 1 is a
    class, in the order of the columns: 1 is present, 0 or empty is absent, -1 is unknown. Rows of the same image
    are merged: a tag present in one of them is present. Rows whose column confidence or score is 0 say that their
    tags are absent. A column called label or the like is a class if its cells are 0 and 1 and those of two other
    classes are, too.
    Boxes are in pixels, or all in fractions of the image; right and bottom are exclusive.

    Args:
        file: .csv (commas or semicolons) or .tsv (tabs), UTF-8, quoted as Python's `csv` module does it.
        split: a value of the column `split`, or of one called `set` or the like that names splits only; None for
            trainval, else train, else the only one.

    Raises:
        BoxlessError: the file is not such a table, there is no such split, or most images are missing.
    """
    problems = Problems()
    whole = read_table(file, problems)
    found, split = _of_split(whole, split, problems)
    found, classes, objects = read_objects(found, problems)
    if not classes:
        raise BoxlessError(
            f"{file} names no class: add a column `tags`, or a column of 0 and 1 for each class; its columns are "
            f"{', '.join(map(repr, found.header))}"
        )
    images = _merge(found, objects, FileFinder(_folders(found)), problems, _MISSING)
    column = found.image
    fix = "give their paths relative to the table's folder"
    if all(re.fullmatch(r"\d+(\.0)?", row[column]) for row in found.rows):
        fix += "; where these were numbers, zeros in front may be lost, as of 0001, or .0 added: write them as text"
    problems.refuse_most(_MISSING, len(found.rows), file, fix)
    for path in unnamed_images((image.path for image in images), lambda: [row[column] for row in whole.rows]):
        problems.add_unmatched("image files that no row names, not used", path.name)
    layout = "table of boxes" if found.boxes else "table"
    samples = boxed_samples(images, classes, problems)
    return loaded(layout, dataset_name(file.with_suffix(""), split), classes, samples, problems)


def _of_split(found: Table, split: str | None, problems: Problems) -> tuple[Table, str | None]:
    column = found.split
    if column is None:
        refuse_split(split, found.file)
        return found, None
    split = choose_split(split, _values(found, column), found.file)
    for row in found.rows:
        if not row[column]:
            problems.add("rows without a split, left out", row[found.image])
    return found._replace(rows=[row for row in found.rows if row[column] == split]), split


def _folders(found: Table) -> list[Path]:
    """Where images may be: beside the table, or in the only folder beside it that holds images."""
    top = found.file.parent
    folders = [folder for folder in sorted(top.glob("*")) if folder.is_dir() and not folder.name.startswith(".")]
    holding = [folder for folder in folders if _holds_images(folder)]
    return [top, *holding] if len(holding) == 1 else [top]


def _holds_images(folder: Path) -> bool:
    results = written_here(folder)
    return any(file.suffix.lower() in suffixes() and file.name not in results for file in folder.glob("*"))


def read_table_images(file: Path, finder: Finder, problems: Problems, missing: str) -> tuple[list[AnnotatedImage], int]:
    """The images of a table, whatever their split, that a finder finds, and the number of its rows.

    Raises:
        BoxlessError: the file is not a table.
    """
    found, _, objects = read_objects(read_table(file, problems), problems)
    return _merge(found, objects, finder, problems, missing), len(found.rows)


def _merge(
    found: Table, objects: Sequence[Sequence[Object]], finder: Finder, problems: Problems, missing: str
) -> list[AnnotatedImage]:
    """The images of all rows, each with the objects of its rows."""
    column, boxes = found.image, found.boxes
    merged: dict[Path, AnnotatedImage] = {}
    paths = _paths([row[column] for row in found.rows], finder, problems)
    for row, items, path in zip(found.rows, objects, paths, strict=True):
        name = row[column]
        if not name:
            problems.add(
                "rows that name no image, left out", ";".join(sorted(item.name for item in items)) or "no tags"
            )
            continue
        size = _frame(row) if boxes is None or boxes.size is None else to_size(row[side] for side in boxes.size)
        if path is None:
            problems.add_unmatched(missing, PurePath(name).as_posix())
        elif path in merged:
            if boxes is None:
                problems.add("images in more than one row, their tags merged", merged[path].id)
            known = merged[path]
            merged[path] = known._replace(objects=[*known.objects, *items], size=known.size or size)
        else:
            id_ = path.relative_to(found.file.parent) if path.is_relative_to(found.file.parent) else path
            merged[path] = AnnotatedImage(id_.as_posix(), path, items, size)
    return list(merged.values())


def _frame(row: Mapping[str, str]) -> tuple[int, int] | None:
    """The size that the regions of Label Studio in a row refer to."""
    text = " ".join(row.values())
    found = (re.search(rf'"original_{side}"\s*:\s*([0-9.]+)', text) for side in ("width", "height"))
    return to_size(one and one[1] for one in found)


def _paths(names: Sequence[str], finder: Finder, problems: Problems) -> list[Path | None]:
    """The image of each name; None if it is missing, or if its name is that of an image in another folder."""
    paths = [finder.find(name, problems) if name else None for name in names]
    own = names_of_own_images({name: path for name, path in zip(names, paths, strict=True) if path is not None})
    return [path if name in own else None for name, path in zip(names, paths, strict=True)]
