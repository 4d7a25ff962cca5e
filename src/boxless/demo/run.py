"""The whole pipeline on the demo dataset: training from tags, evaluation, images of the results, and a report."""

from pathlib import Path
from typing import Any

from boxless.datasets import load_dataset
from boxless.demo.data import make_demo
from boxless.files import expand_user, write_json
from boxless.images import read_image, write_image
from boxless.pipeline import train
from boxless.report import write_report
from boxless.visualize import contact_sheet, draw_boxes, heatmap_panel

SHORT = ("training.steps=150",)
"""Fewer steps than by default, so that the demo takes minutes."""
IMAGES = 8
"""Number of images in `boxes.jpg` and `heatmaps.jpg`."""


def run_demo(out: Path, seed: int) -> tuple[dict[str, Any], Path]:
    """Draw the demo dataset, train on its tags, evaluate on its boxes, and write images and a report.

    Args:
        out: the folder for `VOC-demo/` (the data), `run/`, `metrics.json`, `boxes.jpg`, `heatmaps.jpg` and
        `report.html`.
        seed: of the data and the training.

    Returns:
        The scores, as `evaluate` returns them, and the file of the report.

    Raises:
        BoxlessError: `out` cannot be written, or contains a run with other settings.
    """
    out = expand_user(out)
    data = make_demo(out, seed=seed)
    detector = train(data, out / "run", split="train", options=SHORT, seed=seed)
    scores = write_report(out / "run", out / "report.html", data, "val")["evaluations"][0]
    write_json(out / "metrics.json", scores)
    boxes, heat = [], []
    for sample in load_dataset(data, "val").samples[:IMAGES]:
        image = read_image(sample.path)
        detections, maps = detector.predict_with_heatmaps(image)
        boxes.append(draw_boxes(image, detections.confident(), sample.annotations))
        heat.append(heatmap_panel(image, maps, detections.image_scores, most=2))
    write_image(out / "boxes.jpg", contact_sheet(boxes))
    write_image(out / "heatmaps.jpg", contact_sheet(heat, columns=2))
    return scores, out / "report.html"
