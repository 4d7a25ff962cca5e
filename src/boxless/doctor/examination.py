"""Whether a detector can be learned from a set of tags at all, and what to mend before training."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxless.datasets import load_dataset, split_names
from boxless.doctor.files import check_copies, check_files
from boxless.doctor.finding import Finding
from boxless.doctor.images import images_of, look_at
from boxless.doctor.names import check_names
from boxless.doctor.tags import Table, check_company, check_counts, check_objects, check_tagging, class_row
from boxless.errors import BoxlessError
from boxless.progress import announce
from boxless.structures import Dataset

_USUAL = ("trainval", "train")
"""What training takes where no split is named, as `load_dataset` does."""


def examine(
    data: Dataset | str | os.PathLike[str], split: str | None = None, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Say of each class whether it can be learned from these tags, and what is wrong with tags and images.

    Judged are the images that training would take: those of `trainval`, else of `train`, else all. Where no split is
    named, the others are looked at too: for images that lie in two splits, for broken and tiny ones, copies, and
    class names. A split that is others put together, as VOC's trainval is, is not held against them.

    A fine class is one that nothing in the data stands in the way of; how good its boxes get depends on more than
    that. Tags are enough. Boxes, where there are any, serve to count objects and nothing else: whether an image shows
    one dog or three, tags cannot tell. Copies of a file are judged once.

    Args:
        data: a dataset, or a path that `load_dataset` takes.
        split: look at this one only.
        classes: judge these only; other tags still count as company, for the network sees what they stand for.

    Returns:
        JSON-able: `data` (its name); `judged` (splits); `images` (how many were judged); `warnings` of the loader;
        `classes`, for each its `verdict` (fine, weak, hopeless) and `reasons` (names of faults), `images` that show
        it, `negatives` that do not, `unsure` ones, `company` (the class most often beside it and its `share` of the
        images; None where it is always alone) and `single_object` (share of its images with exactly one of it;
        None without boxes); `findings`, the gravest first, each as `Finding` describes it.

    Raises:
        BoxlessError: the data cannot be loaded, no image can be read, or a class does not exist.
    """
    splits, unusable = _load(data, split)
    parts = _without_unions(splits)
    names = tuple(dict.fromkeys(name for dataset in splits.values() for name in dataset.classes))
    wanted = names if classes is None else tuple(dict.fromkeys(classes))
    if unknown := [name for name in wanted if name not in names]:
        raise BoxlessError(f"there is no class {', '.join(map(repr, unknown))}; there are: {', '.join(names)}")
    warnings = [f"{name}: {line}" for name in parts for line in announce(splits[name]).warnings]
    looks, broken = look_at(dict.fromkeys(sample.path for dataset in splits.values() for sample in dataset.samples))
    images = images_of(parts, looks)
    judged = next(([usual] for usual in _USUAL if usual in splits), list(parts))
    once = list({p.look.key: p for p in images_of({name: splits[name] for name in judged}, looks)}.values())
    if not once:
        raise BoxlessError(f"no image can be read; the first: {next(iter(broken.values()), 'none there')}")
    table = Table.of(once, names)
    misnamed = check_names(images, names, wanted)
    findings = [
        *unusable,
        *check_counts(table, wanted, misnamed),
        *check_company(table, wanted),
        *misnamed,
        *check_files(images, broken),
        *check_copies(images),
        *check_tagging(once),
        *check_objects(once, wanted),
    ]
    findings.sort(key=lambda finding: ("hopeless", "weak", "note").index(finding.level))
    return {
        "data": data.name if isinstance(data, Dataset) else Path(data).expanduser().resolve().name,
        "judged": judged,
        "images": len(once),
        "warnings": warnings,
        "classes": {name: class_row(name, table, once, findings) for name in wanted},
        "findings": [asdict(finding) for finding in findings],
    }


def _load(data: Dataset | str | os.PathLike[str], split: str | None) -> tuple[dict[str, Dataset], list[Finding]]:
    """The splits by name; one that training does not need may be unusable."""
    if isinstance(data, Dataset):
        if split is not None:
            raise BoxlessError(f"split={split} names a part of a path; here a dataset was given, which is one already")
        return {data.name: data}, []
    names = split_names(data)
    if split is not None or not names:
        dataset = load_dataset(data, split)
        return {split or dataset.name: dataset}, []
    splits, findings = {}, []
    needed = next((usual for usual in _USUAL if usual in names), None)
    for name in names:
        try:
            splits[name] = load_dataset(data, name)
        except BoxlessError as error:
            if name == needed or (not splits and name == names[-1]):
                raise
            what = f"the split {name} cannot be used: {str(error).splitlines()[0]}"
            findings.append(Finding("unusable split", "note", what, "mend it, or leave it out of the data"))
    return splits, findings


def _without_unions(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    files = {name: {sample.path for sample in dataset.samples} for name, dataset in splits.items()}

    def is_union(name: str) -> bool:
        return set().union(*(other for other in files.values() if other < files[name])) == files[name]

    return {name: dataset for name, dataset in splits.items() if not is_union(name)}
