"""Metrics of detectors: pure functions over arrays, each with its source, and the registry of those that are scores."""

from boxless.metrics.classification import classification_ap
from boxless.metrics.coco import coco_ap
from boxless.metrics.corloc import corloc
from boxless.metrics.errors import detection_outcomes, diagnose_detections
from boxless.metrics.pointing import pointing_ap
from boxless.metrics.summary import METRICS, evaluate_detections, metric, with_boxes
from boxless.metrics.voc import average_precision, precision_recall, ranked_ap, ranking, voc_ap
from boxless.np_box_ops import areas, coverage, iou

__all__ = [
    "METRICS",
    "areas",
    "average_precision",
    "classification_ap",
    "coco_ap",
    "corloc",
    "coverage",
    "detection_outcomes",
    "diagnose_detections",
    "evaluate_detections",
    "iou",
    "metric",
    "pointing_ap",
    "precision_recall",
    "ranked_ap",
    "ranking",
    "voc_ap",
    "with_boxes",
]
