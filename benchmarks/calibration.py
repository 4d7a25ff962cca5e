"""How far scores are from what they say: the calibration error of a run before and after calibration, from tags.

    python benchmarks/calibration.py RUN VOCdevkit/VOC2012 [--split val]

RUN is the folder of a training of `seeded`. The split is not the one it was trained on. A pair is an image and a class
of which it has a box; the score is that of the best one, and right is that the image has the class. The error is the
mean difference of score and share over ten equal intervals of the score (Naeini et al., AAAI 2015). Calibration keeps
the order of the boxes of a class, so area mAP may differ through ties alone, where the data has boxes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from _shared import machine

from boxless.calibration import best_scores, expected_calibration_error, reliability
from boxless.detector import Detector
from boxless.evaluation import matched, predict_dataset
from boxless.metrics import evaluate_detections


def main(run: Path, data: Path, split: str = "val") -> None:
    """Measure; print the tables."""
    detector = Detector.load(run)
    if detector.calibration is None:
        raise typer.BadParameter(f"{run}: its scores are not calibrated; train seeded with this version")
    predictions = predict_dataset(detector, matched(detector, data, split), "Evaluate")
    found, dataset = predictions.detections, predictions.dataset
    raw = [replace(one, scores=one.raw_scores) if one.raw_scores is not None else one for one in found]
    image_labels = dataset.image_labels()
    print(f"{machine()}, {dataset.name}, {len(dataset)} images, method {detector.method}\n")
    print("| scores | calibration error | mean of the classes | Brier score | mAP, area |\n|---|---|---|---|---|")
    for name, detections in (("before", raw), ("after", found)):
        scores = best_scores(detections)
        classes = zip(scores.T, image_labels.T, strict=True)
        errors = [expected_calibration_error(reliability(*one)) for one in classes]
        error = expected_calibration_error(reliability(scores, image_labels))
        brier = float(np.nanmean(np.where(scores > 0, (scores - image_labels) ** 2, np.nan)))
        points = predictions.points if dataset.has_boxes else None
        area = evaluate_detections(detections, points, dataset.samples, dataset.classes)["mAP_area"]
        mean = float(np.mean([one for one in errors if one is not None]))
        print(f"| {name} | {error:.3f} | {mean:.3f} | {brier:.3f} | {'' if area is None else f'{area:.4f}'} |")
    print("\n| mean score | images with the class | pairs |\n|---|---|---|")
    for score, share, number in reliability(best_scores(found), image_labels):
        print(f"| {score:.2f} | {share:.2f} | {number} |")


if __name__ == "__main__":
    typer.run(main)
