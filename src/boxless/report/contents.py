"""What a report tells of a run, gathered once: numbers, curves, images, the data's health, and what made it."""

import json
import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from boxless.cache import write_text
from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.doctor import examine
from boxless.doctor.finding import name_files
from boxless.errors import BoxlessError
from boxless.evaluation import DatasetPredictions, matched, predict_dataset
from boxless.images import below
from boxless.metrics import precision_recall, ranking
from boxless.progress import announce, console
from boxless.report.gallery import Maps, gallery, small_maps
from boxless.report.page import render_page
from boxless.run_folder import LOCALIZER, read_history, read_manifest
from boxless.visualize.boxes import class_colour
from boxless.visualize.colours import Colour, ink_on
from boxless.visualize.diagnosis import KINDS, LEGEND, headline

POINTS = 200
"""Most points of a precision-recall curve."""
COLORMAP = "inferno"
"""Of heatmaps: even in brightness, so that those who see no colours read it too."""


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Write a report of a run: one HTML file that holds all it shows and opens offline.

    Args:
        run: the run folder.
        out: the file.
        data: a path that `load_dataset` takes, to evaluate the run on and to show images of. With None the report
            has what lies in the run folder: history, manifest, and what `evaluate` and `diagnose` left there.
        split: of the data.

    Returns:
        What the page shows, as in the JSON within it.

    Raises:
        BoxlessError: the run or the data cannot be read, no image is readable, or `out` cannot be written.
    """
    if data is None and split is not None:
        raise BoxlessError(f"split={split} names a part of the data, and none is given: name the data too")
    folder = Path(run)
    manifest = read_manifest(folder)
    contents = {
        "title": f"{folder.resolve().name}: {manifest['method']} on {manifest['data']['name']}",
        "classes": [{"name": name, **_colours(class_colour(i))} for i, name in enumerate(manifest["classes"])],
        "legend": {outcome: {"text": text, **_colours(colour)} for outcome, (colour, text) in LEGEND.items()},
        "kinds": KINDS,
        "colormap": (matplotlib.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(int).tolist(),
        "manifest": manifest,
        "history": {
            name: rows for name, part in (("", folder), (LOCALIZER, folder / LOCALIZER)) if (rows := read_history(part))
        },
        **(_left_behind(folder) if data is None else _looked_at(folder, Path(data), split)),
    }
    contents["verdict"] = verdict(contents)
    write_text(Path(out), render_page(contents["title"], contents))
    return contents


def verdict(contents: dict[str, Any]) -> list[str]:
    """What matters most, a sentence each."""
    said = []
    if contents["manifest"]["supervision"] != "tags":
        said.append("Trained with true boxes: a ceiling, not a result from tags.")
    for scores in contents["evaluations"]:
        if scores["CorLoc"] is not None:
            share = f"{100 * scores['CorLoc']:.0f} %"
            said.append(f"{scores['data']}: in {share} of the images of a class, its best box lies on an object.")
        else:
            said.append(f"{scores['data']} has tags only, so whether boxes are right was not measured.")
    said += [f"{headline(diagnosis)}." for diagnosis in contents["diagnoses"]]
    for scores in contents["evaluations"]:
        aps = {name: row["mAP_area"] for name, row in scores["classes"].items() if row["mAP_area"] is not None}
        if len(aps) > 1:
            best, least = max(aps, key=lambda name: aps[name]), min(aps, key=lambda name: aps[name])
            said.append(f"Boxes are best for {best} (AP {aps[best]:.2f}), weakest for {least} (AP {aps[least]:.2f}).")
        if scores["classification_mAP"] is not None:
            share = f"{scores['classification_mAP']:.2f}"
            said.append(f"Which classes an image shows it tells with a mAP of {share}; 1 is perfect.")
    if contents["doctor"]:
        verdicts = [row["verdict"] for row in contents["doctor"]["classes"].values()]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("fine", "weak", "hopeless") if v in verdicts)
        said.append(f"The tags themselves, by class: {counts}.")
    if not contents["evaluations"]:
        said.append("It was not evaluated yet: give the report data, and it shows scores and images.")
    return said


def curve(hits: list[bool], positives: int) -> list[list[float]]:
    """A precision-recall curve as the points (recall, precision) where a hit raises the recall, and its end."""
    recall, precision = precision_recall(np.array(hits, np.bool_), positives)
    rows = np.unique([*np.flatnonzero(hits), len(hits) - 1]) if len(hits) else np.zeros(0, int)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, POINTS).round().astype(int))] if len(rows) else rows
    return np.stack([recall[rows], precision[rows]], axis=1).round(4).tolist()  # type: ignore[no-any-return]


def _left_behind(run: Path) -> dict[str, Any]:
    return {
        "evaluations": [_read(file) for file in sorted(run.glob("metrics-*.json"))],
        "diagnoses": [_read(file) for file in sorted(run.glob("diagnosis-*.json"))],
        "curves": None,
        "doctor": None,
        "gallery": None,
        "skipped": [],
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BoxlessError(f"{file}: damaged ({error}); evaluate again, or delete it") from None


def _looked_at(run: Path, data: Path, split: str | None) -> dict[str, Any]:
    detector = Detector.load(run)
    dataset = announce(load_dataset(data, split))
    maps: list[Maps] = []
    decisions = predict_dataset(
        detector,
        matched(detector, dataset, None),
        "Evaluate",
        lambda *seen: maps.append(small_maps(*seen)),
    )
    return {
        "evaluations": [decisions.scores()],
        "diagnoses": [decisions.diagnosis()] if decisions.dataset.has_boxes else [],
        "curves": _curves(decisions) if decisions.dataset.has_boxes else None,
        "doctor": _examined(data, [name for name in detector.classes if name in dataset.classes]),
        "gallery": gallery(decisions, maps, data),
        "skipped": [_reason(data, path, reason) for path, reason in decisions.skipped.items()],
    }


def _curves(decisions: DatasetPredictions) -> list[list[list[float]] | None]:
    rows = zip(decisions.detections, decisions.dataset.samples, strict=True)
    known = [(found, sample.annotations) for found, sample in rows if sample.annotations is not None]
    found, ground_truth = [row[0] for row in known], [row[1] for row in known]
    rankings = [ranking(found, ground_truth, label)[1:] for label in range(len(decisions.dataset.classes))]
    return [curve(hits.tolist(), positives) if positives else None for hits, positives in rankings]


def _examined(data: Path, classes: list[str]) -> dict[str, Any] | None:
    try:
        report = examine(data, classes=classes)
    except BoxlessError as error:
        # What training would take may not be there any more; what was asked about is, and was looked at.
        console.print(f"The doctor is left out of the report: {error}", style="yellow", markup=False, highlight=False)
        return None
    findings = [finding | {"images": name_files(finding["images"], data)} for finding in report["findings"]]
    return report | {"findings": findings}


def _reason(data: Path, path: Path, reason: str) -> str:
    return f"{below(data, path)}: {reason.removeprefix(f'{path}: ')}"


def _colours(colour: Colour) -> dict[str, str]:
    return {"colour": "#{:02x}{:02x}{:02x}".format(*colour), "ink": ink_on(colour)}
