"""A mining rule, and a method that uses it: OICR trained on the hull of the proposals around the best one.

    python mining_rule.py train tags.csv --out runs/hull --method hull

OICR's pseudo label is the highest-scored proposal of a class, which is often a part of the object. If the well-scored
proposals around it reach as far as the object does, the smallest box that contains all of them is a better one.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from boxless.methods import PRESETS
from boxless.methods.matching import PseudoLabels
from boxless.methods.mining import MINING

OICR = PRESETS["oicr"]
HEAD = OICR["head"] | {"refinement": {"mining": "hull"}}
PRESETS["hull"] = OICR | {"head": HEAD}


@MINING.register("hull")
def mine_hull(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class present the hull of its best proposal and that proposal's neighbours.

    Neighbours have IoU 0.5 or more with it and at least half of its score.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        image_labels: (classes,), 1 where the class is present.
    """
    labels = torch.nonzero(image_labels == 1).flatten()
    own = scores.detach()[:, labels]
    best, rows = own.max(dim=0)
    near = (box_iou(boxes, boxes[rows]) >= 0.5) & (own >= best / 2)
    low = torch.where(near[:, :, None], boxes[:, None, :2], torch.inf).amin(dim=0)
    high = torch.where(near[:, :, None], boxes[:, None, 2:], -torch.inf).amax(dim=0)
    return PseudoLabels(torch.cat([low, high], dim=1), labels, best)


if __name__ == "__main__":
    from boxless.cli import main

    main()
