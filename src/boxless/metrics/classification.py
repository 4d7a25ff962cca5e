"""Image classification: which classes an image shows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.metrics.voc import ranked_ap


def classification_ap(
    scores: NDArray[np.floating[Any]], image_labels: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Image classification AP of every class, as in VOC's classification task from 2010 on (VOCevalcls.m).

    Images are ranked by the class's score, equal scores in the order given; AP is VOC's area convention, that is the
    area under the enveloped curve, which is never below scikit-learn's `average_precision_score`.

    Args:
        scores: (N, classes), higher where the class is more likely in the image.
        image_labels: (N, classes), 1 present, 0 absent, NaN left out (VOC: only difficult objects of the class).

    Returns:
        (classes,) float64 in [0, 1]; NaN where no image shows the class.
    """
    known = ~np.isnan(image_labels)
    aps = []
    for label, rows in enumerate(known.T):
        present = image_labels[rows, label] == 1
        aps.append(ranked_ap(scores[rows, label], present, int(present.sum()))["area"])
    return np.array(aps)
