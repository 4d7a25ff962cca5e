"""Whether a detector can be trained on a dataset, and what to fix first."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxless.datasets import load_dataset, open_dataset, split_names
from boxless.datasets.common import as_text, choose_split
from boxless.datasets.labels import with_labels
from boxless.doctor.files import check_duplicates, check_files
from boxless.doctor.finding import Finding
from boxless.doctor.images import TaggedImage, read_files, tagged_images
from boxless.doctor.names import check_names
from boxless.doctor.tags import Table, check_co_occurrence, check_counts, check_objects, check_tagging, class_row
from boxless.errors import BoxlessError
from boxless.files import expand_user
from boxless.logs import log_warnings
from boxless.structures import Dataset


def examine(
    data: Dataset | str | os.PathLike[str],
    split: str | None = None,
    classes: Sequence[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    missing_tags: bool = False,
) -> dict[str, Any]:
    """Check for each class whether a detector can be trained on these tags, and report problems of tags and images.

    Class verdicts are based on the images that training would use: those of `trainval`, else of `train`, else all. If
    no split is named, images of all splits are checked for duplicates, unreadable and tiny files, and class names. A
    split that is the union of others, as VOC's trainval, is not compared with them. Boxes are only used to count
    objects. Identical files count once.

    Args:
        data: a dataset, or a path that `load_dataset` takes.
        split: check only this one.
        classes: report only these; co-occurrence with other classes is still counted.
        labels: reviewed labels of the images to train on, see `boxless.train`.
        missing_tags: whether to name images whose tags likely lack a class, by feature maps, which training reuses.

    Returns:
        JSON-serialisable: `summary`, what was understood of each split, see `Dataset.summary`; `data` (its name);
        `splits` that the verdicts are based on, and the number of their `images`; `warnings` of the loader; `classes`,
        for each its `verdict` (fine, weak, hopeless) and `reasons` (names of faults), the numbers of `images` with it,
        of `negatives` without it, of `unsure` ones, where it is unknown, of those with `given` boxes of it, and of
        those where its objects are `counted` or pointed at,
        `co_occurrence` (the `class` that most often occurs with it, and its `share` of the images; None if no other
        does) and `single_object` (share of its images with exactly one object of it; None without boxes); `findings`,
        the most severe first, with the fields of `Finding`.

    Raises:
        BoxlessError: the data cannot be loaded, no image can be read, or a class does not exist or none is chosen.
    """
    splits, unusable = _load(data, split)
    if labels is not None:
        splits |= _labelled(splits, labels, None if isinstance(data, Dataset) else expand_user(data))
    report = _examine(splits, unusable, classes, missing_tags)
    return {
        "summary": [f"{name}: {dataset.summary}" for name, dataset in splits.items() if dataset.summary],
        "data": data.name if isinstance(data, Dataset) else as_text(expand_user(data).resolve().name),
        **report,
    }


def _examine(
    splits: Mapping[str, Dataset], unusable: Sequence[Finding], classes: Sequence[str] | None, missing_tags: bool
) -> dict[str, Any]:
    """What `examine` reports of splits that are loaded, beside what is understood of them; `unusable` are those not."""
    parts = _without_unions(splits)
    names = tuple(dict.fromkeys(name for dataset in splits.values() for name in dataset.classes))
    wanted = names if classes is None else _chosen(classes, names)
    warnings = [f"{name}: {line}" for name in parts for line in log_warnings(splits[name]).warnings]
    files, broken = read_files(dict.fromkeys(sample.path for dataset in splits.values() for sample in dataset.samples))
    images = tagged_images(parts, files)
    used = _used(splits)
    all_used = tagged_images({name: splits[name] for name in used}, files)
    distinct = list({image.file.key: image for image in all_used}.values())
    if not distinct:
        raise BoxlessError(f"no image can be read; the first: {next(iter(broken.values()), 'none there')}")
    table = Table.of(distinct, names)
    missing = _missing(distinct, names, wanted) if missing_tags else []
    findings = sorted(
        [*unusable, *_findings(images, distinct, broken, table, wanted), *missing],
        key=lambda finding: ("hopeless", "weak", "note").index(finding.level),
    )
    return {
        "splits": used,
        "images": len(distinct),
        "warnings": warnings,
        "classes": {name: class_row(name, table, distinct, findings) for name in wanted},
        "findings": [asdict(finding) for finding in findings],
    }


def _chosen(classes: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(classes))
    if unknown := [name for name in chosen if name not in names]:
        raise BoxlessError(f"there is no class {', '.join(map(repr, unknown))}; there are: {', '.join(names)}")
    if not chosen:
        raise BoxlessError(f"no class is chosen; there are: {', '.join(names)}")
    return chosen


def _findings(
    images: Sequence[TaggedImage],
    distinct: Sequence[TaggedImage],
    broken: Mapping[Path, str],
    table: Table,
    wanted: Sequence[str],
) -> list[Finding]:
    misnamed = check_names(images, table.names, wanted)
    return [
        *check_counts(table, wanted, misnamed),
        *check_co_occurrence(table, wanted),
        *misnamed,
        *check_files(images, broken),
        *check_duplicates(images),
        *check_tagging(distinct),
        *check_objects(distinct, wanted),
    ]


def _missing(images: Sequence[TaggedImage], names: Sequence[str], wanted: Sequence[str]) -> list[Finding]:
    # Importing torch takes seconds, and nothing else here needs it.
    from boxless.doctor.missing import check_missing

    return check_missing(images, names, wanted)


def _load(data: Dataset | str | os.PathLike[str], split: str | None) -> tuple[dict[str, Dataset], list[Finding]]:
    """The splits by name; a split that training does not need may fail to load."""
    if isinstance(data, Dataset):
        return {data.name: open_dataset(data, split)}, []
    names = split_names(data)
    if split is not None or not names:
        dataset = load_dataset(data, split)
        return {split or dataset.name: dataset}, []
    splits, findings = {}, []
    needed = _default(names)
    for name in names:
        try:
            splits[name] = load_dataset(data, name)
        except BoxlessError as error:
            if name == needed or (not splits and name == names[-1]):
                raise
            what = f"the split {name} cannot be used: {str(error).splitlines()[0]}"
            findings.append(Finding("unusable split", "note", what, "fix it, or remove it from the data"))
    return splits, findings


def _used(splits: Mapping[str, Dataset]) -> list[str]:
    """The splits that verdicts are based on."""
    default = _default(splits)
    return list(_without_unions(splits)) if default is None else [default]


def _default(names: Collection[str]) -> str | None:
    """The split that `load_dataset` takes if none is named, also if it is spelled differently; None if none is."""
    try:
        return choose_split(None, names, Path()) if len(names) > 1 else None
    except BoxlessError:
        return None


def _labelled(splits: Mapping[str, Dataset], labels: str | os.PathLike[str], data: Path | None) -> dict[str, Dataset]:
    """The split that is trained on, with labels laid over it."""
    used = _used(splits)
    if len(used) > 1:
        raise BoxlessError(f"labels are of the images to train on: choose a split, of {', '.join(used)}")
    return {name: with_labels(splits[name], labels, data) for name in used}


def _without_unions(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    files = {name: {sample.path for sample in dataset.samples} for name, dataset in splits.items()}

    def is_union(name: str) -> bool:
        return set().union(*(other for other in files.values() if other < files[name])) == files[name]

    return {name: dataset for name, dataset in splits.items() if not is_union(name)}
