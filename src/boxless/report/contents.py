"""The contents of a report: scores, curves, images, problems of the data, and the run's manifest."""

import logging
import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from boxless.calibration import best_scores, expected_calibration_error, reliability
from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.doctor import examine
from boxless.doctor.finding import name_files
from boxless.errors import BoxlessError
from boxless.evaluation import DatasetPredictions, in_classes, predict_dataset
from boxless.files import check_writable, expand_user, write_text
from boxless.image_files import below
from boxless.logs import log_warnings
from boxless.metrics import precision_recall, ranking, with_boxes
from boxless.report.gallery import Maps, gallery, small_maps
from boxless.report.page import render_page
from boxless.run_folder import CAM_RUN, read_history, read_manifest, read_results
from boxless.trust import trust_warning, untrusted_classes
from boxless.visualize.boxes import class_colour
from boxless.visualize.colours import page_colours
from boxless.visualize.diagnosis import KINDS, LEGEND, headline
from boxless.wording import training_images_note

logger = logging.getLogger(__name__)

POINTS = 200
"""The maximum number of points of a precision-recall curve."""
COLORMAP = "inferno"
"""Colormap of the heatmaps: its lightness rises evenly, so it is readable without colour vision."""


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Write a report of a run: one self-contained HTML file that opens offline.

    Args:
        run: the run folder.
        out: the file.
        data: a path that `load_dataset` takes, to evaluate the run on and to show images of. With None the report
            shows what the run folder holds: history, manifest, and results of `boxless evaluate` and `diagnose`.
        split: of the data.

    Returns:
        The contents of the page, the same as the JSON within it.

    Raises:
        BoxlessError: the run or the data cannot be read, no image is readable, or `out` cannot be written.
    """
    if data is None and split is not None:
        raise BoxlessError(f"split={split} is given without data: give the dataset too")
    folder, out = expand_user(run), expand_user(out)
    manifest = read_manifest(folder)
    check_writable(out)
    contents = {
        "title": f"{folder.resolve().name}: {manifest['method']} on {manifest['data']['name']}",
        "classes": [{"name": name, **page_colours(class_colour(i))} for i, name in enumerate(manifest["classes"])],
        "legend": {outcome: {"text": text, **page_colours(colour)} for outcome, (colour, text) in LEGEND.items()},
        "kinds": KINDS,
        "colormap": (matplotlib.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(int).tolist(),
        "manifest": manifest,
        "history": {
            name: rows for name, part in (("", folder), (CAM_RUN, folder / CAM_RUN)) if (rows := read_history(part))
        },
        **(_saved(folder) if data is None else _evaluated(folder, expand_user(data), split)),
    }
    contents["summary"] = summary(contents)
    write_text(out, render_page(contents["title"], contents))
    return contents


def summary(contents: dict[str, Any]) -> list[str]:
    """The most important results, a sentence each."""
    lines = []
    if (supervision := contents["manifest"]["supervision"]) == "boxes":
        lines.append("Trained with ground-truth boxes: a fully supervised upper bound, not a result from tags.")
    elif supervision != "tags":
        lines.append(f"Trained on {supervision}.")
    if untrusted := untrusted_classes(contents["manifest"]):
        lines.append(f"{trust_warning(untrusted)}.")
    for scores in contents["evaluations"]:
        if scores.get("training_images"):
            lines.append(f"{training_images_note(scores)}.")
        if scores["CorLoc"] is not None:
            share = f"{100 * scores['CorLoc']:.0f} %"
            lines.append(f"{scores['data']}: in {share} of the images of a class, its best box lies on an object.")
        else:
            lines.append(f"{scores['data']} has tags only, so boxes were not evaluated.")
    lines += [f"{headline(diagnosis)}." for diagnosis in contents["diagnoses"]]
    for scores in contents["evaluations"]:
        aps = {name: row["mAP_area"] for name, row in scores["classes"].items() if row["mAP_area"] is not None}
        if len(aps) > 1:
            best, worst = max(aps, key=lambda name: aps[name]), min(aps, key=lambda name: aps[name])
            lines.append(f"Boxes are best for {best} (AP {aps[best]:.2f}) and worst for {worst} (AP {aps[worst]:.2f}).")
        if scores["classification_mAP"] is not None:
            lines.append(f"Image classification has a mAP of {scores['classification_mAP']:.2f}.")
    if contents["doctor"]:
        verdicts = [row["verdict"] for row in contents["doctor"]["classes"].values()]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("fine", "weak", "hopeless") if v in verdicts)
        lines.append(f"Tags of the classes, as boxless doctor rates them: {counts}.")
    if not contents["evaluations"]:
        lines.append("Not evaluated yet: give boxless report a dataset to see scores and images.")
    return lines


def curve(hits: list[bool], positives: int) -> list[list[float]]:
    """A precision-recall curve as the points (recall, precision) where a hit raises the recall, and its end."""
    recall, precision = precision_recall(np.array(hits, np.bool_), positives)
    rows = np.unique([*np.flatnonzero(hits), len(hits) - 1]) if len(hits) else np.zeros(0, int)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, POINTS).round().astype(int))] if len(rows) else rows
    return np.stack([recall[rows], precision[rows]], axis=1).round(4).tolist()  # type: ignore[no-any-return]


def _saved(run: Path) -> dict[str, Any]:
    return {
        "evaluations": read_results(run, "metrics", "CorLoc"),
        "diagnoses": read_results(run, "diagnosis", "outcomes"),
        "curves": None,
        "reliability": None,
        "doctor": None,
        "gallery": None,
        "skipped": [],
    }


def _evaluated(run: Path, data: Path, split: str | None) -> dict[str, Any]:
    detector = Detector.load(run)
    dataset = log_warnings(load_dataset(data, split))
    maps: list[Maps] = []
    predictions = predict_dataset(
        detector,
        in_classes(detector.classes, dataset),
        "Evaluate",
        lambda *image: maps.append(small_maps(*image)),
    )
    return {
        "evaluations": [predictions.scores()],
        "diagnoses": [predictions.diagnosis()] if predictions.dataset.has_boxes else [],
        "curves": _curves(predictions) if predictions.dataset.has_boxes else None,
        "reliability": _reliability(predictions),
        "doctor": _examined(data, [name for name in detector.classes if name in dataset.classes]),
        "gallery": gallery(predictions, maps, data),
        "skipped": [_reason(data, path, reason) for path, reason in predictions.skipped.items()],
    }


def _curves(predictions: DatasetPredictions) -> list[list[list[float]] | None]:
    known = with_boxes(predictions.detections, predictions.dataset.samples)
    rankings = [ranking(*known, label)[1:] for label in range(len(predictions.dataset.classes))]
    return [curve(hits.tolist(), positives) if positives else None for hits, positives in rankings]


def _reliability(predictions: DatasetPredictions) -> dict[str, Any]:
    """How often the class of a best box is in the image, by its score.

    Returns:
        `calibrated`: whether scores are; `rows`: diagrams (`calibration.reliability`) of all classes and of each;
        `error`: the expected calibration error of each diagram; `raw_error`: of all classes before calibration.
    """
    image_labels, detections = predictions.dataset.image_labels(), predictions.detections
    scores = best_scores(detections)
    rows = [reliability(scores, image_labels)]
    rows += [reliability(*pair) for pair in zip(scores.T, image_labels.T, strict=True)]
    raw = reliability(best_scores(detections, raw=True), image_labels)
    return {
        "calibrated": detections[0].raw_scores is not None,
        "rows": [[[round(score, 4), round(share, 4), number] for score, share, number in row] for row in rows],
        "error": [expected_calibration_error(row) for row in rows],
        "raw_error": expected_calibration_error(raw),
    }


def _examined(data: Path, classes: list[str]) -> dict[str, Any] | None:
    try:
        report = examine(data, classes=classes)
    except BoxlessError as error:
        # The doctor also reads the training split, which may be missing; the report does not depend on it.
        logger.warning("The report has no section on the data: %s", error)
        return None
    findings = [finding | {"images": name_files(finding["images"], data)} for finding in report["findings"]]
    return report | {"findings": findings}


def _reason(data: Path, path: Path, reason: str) -> str:
    return f"{below(data, path)}: {reason.removeprefix(f'{path}: ')}"
