"""A metric: MABO, the mean of the best overlap of every object.

Source: Uijlings, van de Sande, Gevers, Smeulders, "Selective Search for Object Recognition", IJCV 2013, section 5.

Run the command line with it:

    python metric.py evaluate runs/first data.yaml --split val
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boxless import Detections, Sample
from boxless.metrics import iou, metric, with_boxes


@metric(
    "MABO",
    "Uijlings et al. 2013: mean, over the objects of a class that are not difficult, of the highest IoU with any "
    "detection of the class, whatever its score; mean over the classes that have objects.",
)
def mean_best_overlap(
    detections: Sequence[Detections],
    points: NDArray[np.float32] | None,
    samples: Sequence[Sample],
    classes: Sequence[str],
) -> NDArray[np.float64]:
    """How well the best box of each object covers it: the localisation that perfect scores could reach.

    Args:
        detections: one per sample, in the same order.
        points: (samples, classes, 2), the peaks of the heatmaps; not used.
        samples: the images with their tags and, where they are known, their boxes.
        classes: class names, as labels index them.

    Returns:
        (classes,) float64 in [0, 1]; NaN where a class has no object.
    """
    best: list[list[float]] = [[] for _ in classes]
    for found, annotations in zip(*with_boxes(detections, samples), strict=True):
        for label in range(len(classes)):
            objects = annotations.boxes[(annotations.labels == label) & ~annotations.ignore]
            best[label] += iou(objects, found.boxes[found.labels == label]).max(axis=1, initial=0).tolist()
    return np.array([np.mean(overlaps) if overlaps else np.nan for overlaps in best])


if __name__ == "__main__":
    from boxless.cli import main

    main()
