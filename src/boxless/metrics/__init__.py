"""How good a detector is: pure functions over arrays, each naming its source."""

from boxless.metrics.boxes import areas, coverage, iou
from boxless.metrics.classification import classification_ap
from boxless.metrics.corloc import corloc
from boxless.metrics.errors import diagnose_detections, judge
from boxless.metrics.pointing import pointing_ap
from boxless.metrics.summary import evaluate_detections
from boxless.metrics.voc import average_precision, precision_recall, ranked_ap, ranking, voc_ap

__all__ = [
    "areas",
    "average_precision",
    "classification_ap",
    "corloc",
    "coverage",
    "diagnose_detections",
    "evaluate_detections",
    "iou",
    "judge",
    "pointing_ap",
    "precision_recall",
    "ranked_ap",
    "ranking",
    "voc_ap",
]
