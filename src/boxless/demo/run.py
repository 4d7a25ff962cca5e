"""The whole way on drawn images: data, training from tags, scores, images of the results, and a report."""

from pathlib import Path
from typing import Any

from boxless.datasets import load_dataset
from boxless.demo.data import make_demo
from boxless.detector import confident
from boxless.images import read_image, write_image
from boxless.report import write_report
from boxless.run_folder import write_json
from boxless.training.train import train
from boxless.visualize import contact_sheet, draw_boxes, heatmap_panel

SHORT = ("training.steps=150",)
"""Fewer steps than by default: it is to be seen in minutes."""
IMAGES = 8
"""How many results are shown."""


def run_demo(out: Path, seed: int) -> tuple[dict[str, Any], Path]:
    """Draw a data set, train on its tags, evaluate with its boxes, show and report the results.

    Args:
        out: takes `VOC-demo/` (the data), `run/`, `metrics.json`, `boxes.jpg`, `heatmaps.jpg` and `report.html`.
        seed: of the data and the training.

    Returns:
        The scores as `evaluate` gives them, and the report.

    Raises:
        BoxlessError: `out` cannot be written, or holds a run of other settings.
    """
    data = make_demo(out, seed=seed)
    detector = train(data, out / "run", split="train", options=SHORT, seed=seed)
    scores = write_report(out / "run", out / "report.html", data, "val")["evaluations"][0]
    write_json(out / "metrics.json", scores)
    boxes, heat = [], []
    for sample in load_dataset(data, "val").samples[:IMAGES]:
        image = read_image(sample.path)
        detections, maps = detector.look(image)
        boxes.append(draw_boxes(image, confident(detections), sample.annotations))
        heat.append(heatmap_panel(image, maps, detections.image_scores, most=2))
    write_image(out / "boxes.jpg", contact_sheet(boxes))
    write_image(out / "heatmaps.jpg", contact_sheet(heat, columns=2))
    return scores, out / "report.html"
