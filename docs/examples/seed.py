"""A seed: boxes around the CAM at Otsu's threshold.

    python seed.py train tags.csv --out runs/otsu 'pseudo_labels.seeds=[otsu]'

The seed `cam` has one threshold for all images. Otsu's method chooses one for every heatmap: the threshold with the
largest variance between the values above and below it (Otsu, IEEE Transactions on Systems, Man, and Cybernetics, 1979).
Any other heatmap can take the place of the CAM in `heatmaps`.
"""

import cv2
import numpy as np

from boxless.cached_dataset import CachedDataset
from boxless.detector import Detector
from boxless.heatmap_boxes import largest_component_box
from boxless.pseudo_labels import SEEDS
from boxless.structures import Annotations, FloatArray


@SEEDS.register("otsu")
def otsu_seed(data: CachedDataset, cam: Detector) -> list[Annotations]:
    """One box for every tag of each image, in the order of the class indices.

    Args:
        data: the training images with their tags; `data.dataset.samples[row].path` is the file of an image.
        cam: the CAM trained on them.
    """
    return [_boxes(data, cam, row) for row in range(len(data))]


def _boxes(data: CachedDataset, cam: Detector, row: int) -> Annotations:
    labels, maps = data.tags_of(row), heatmaps(data, cam, row)
    boxes = [largest_component_box(maps[label], data.sizes[row], otsu_threshold(maps[label])) for label in labels]
    return Annotations.of(np.array(boxes, np.float32).reshape(-1, 4), labels)


def heatmaps(data: CachedDataset, cam: Detector, row: int) -> FloatArray:
    """Class heatmaps of an image: (classes, h, w), which span the image; higher is likelier."""
    ((_, found),) = cam.postprocess_with_heatmaps([cam.read(data, row)])
    return found.maps


def otsu_threshold(heatmap: FloatArray) -> float:
    """Otsu's threshold of the positive part of a map (h, w), as a fraction of its maximum."""
    levels = np.rint(255 * np.maximum(heatmap, 0) / max(float(heatmap.max()), 1e-12)).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    # Otsu's object is above the level, the component's at it and above.
    return (threshold + 0.5) / 255


if __name__ == "__main__":
    from boxless.cli import main

    main()
