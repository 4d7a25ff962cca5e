"""Detections, heatmaps and diagnoses as images: (height, width, 3) uint8, RGB."""

from boxless.visualize.boxes import draw_boxes
from boxless.visualize.diagnosis import plot_diagnosis
from boxless.visualize.heatmaps import draw_heatmap, heatmap_panel
from boxless.visualize.sheet import contact_sheet

__all__ = ["contact_sheet", "draw_boxes", "draw_heatmap", "heatmap_panel", "plot_diagnosis"]
