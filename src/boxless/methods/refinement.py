"""Refinement heads: each is trained on pseudo labels mined from the one before it (OICR; Tang et al., CVPR 2017)."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from boxless.config import Section
from boxless.methods.box_ops import decode, encode
from boxless.methods.layers import linear
from boxless.methods.losses import box_loss, cluster_loss, refinement_loss, with_unknown
from boxless.methods.matching import match_proposals
from boxless.methods.mining import MINING

STAGES = 3
"""Refinement heads, as in OICR, PCL and MIST; the detector is their mean."""


class RefinementConfig(Section):
    """Refinement heads.

    Args:
        mining: a name in `methods.mining.MINING`: pseudo labels are the `top` proposal of a class (OICR), the centres
            of `clusters` of proposals (PCL; Tang et al., PAMI 2018), or proposals `spread` over the image (MIST; Ren et
            al., CVPR 2020).
        ignore: proposals whose IoU with every pseudo label is below have no part in the loss.
        box_regression: whether every head also regresses boxes onto the pseudo labels, class-agnostic (Fast R-CNN;
            Girshick, ICCV 2015, section 2.3).
    """

    mining: str = "top"
    ignore: float = Field(0.1, ge=0, lt=0.5)
    box_regression: bool = False


class Refinement(nn.Module):
    """Classifiers of proposals with a background class, and box regression.

    Args:
        inputs: width of the region features.
        classes: number of classes.
        config: settings.
        deviation: standard deviation of the classifiers' first weights.
    """

    def __init__(self, inputs: int, classes: int, config: RefinementConfig, deviation: float = 0.01) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.stages = nn.ModuleList(linear(inputs, classes + 1, deviation) for _ in range(STAGES))
        regressions = STAGES if config.box_regression else 0
        self.regressions = nn.ModuleList(linear(inputs, 4, 0.001) for _ in range(regressions))

    def forward(self, features: Tensor, boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores and regressed boxes of one view's proposals, each the mean over the heads.

        Args:
            features: (N, D).
            boxes: (N, 4), xyxy pixels of the view.
            size: (2,), height and width of the view in pixels.

        Returns:
            (N, classes) in [0, 1], and (N, 4), xyxy pixels, or None without regression.
        """
        scores = torch.stack([stage(features).float().softmax(dim=1) for stage in self.stages]).mean(dim=0)
        moved = [decode(boxes, regression(features).float(), size) for regression in self.regressions]
        return scores[:, : self.classes], torch.stack(moved).mean(dim=0) if moved else None

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], image_labels: Tensor, first: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses over a batch, averaged over its images.

        Args:
            features: for each image (N, D).
            proposals: for each (N, 4), xyxy pixels of the view.
            image_labels: (B, classes).
            first: for each the scores (N, classes) that the first head's pseudo labels are mined from.
        """
        sums: dict[str, list[Tensor]] = {}
        for row, scores in enumerate(first):
            for name, loss in self._image_losses(features[row], proposals[row], image_labels[row], scores).items():
                sums.setdefault(name, []).append(loss)
        return {name: torch.stack(values).mean() for name, values in sums.items()}

    def _image_losses(self, features: Tensor, boxes: Tensor, image_labels: Tensor, scores: Tensor) -> dict[str, Tensor]:
        mine = MINING.find(self.config.mining)
        losses, regression_losses = {}, []
        for number, stage in enumerate(self.stages):
            pseudo = mine(boxes, scores, image_labels)
            labels, weights, nearest = match_proposals(boxes, pseudo, self.classes, self.config.ignore)
            if not len(pseudo.boxes):
                # Weights are scores of pseudo labels, near 0.001 at first: a background of weight 1 would outweigh all
                # images with tags. OICR's code cannot train on an image without a tag; MIST's gives it no weight.
                weights = torch.zeros_like(weights)
            logits = stage(features).float()
            known = with_unknown(logits, labels, image_labels.isnan().expand(len(logits), -1))
            if pseudo.bags:
                losses[f"refine {number + 1}"] = cluster_loss(known, labels, weights, nearest)
            else:
                losses[f"refine {number + 1}"] = refinement_loss(known, labels, weights)
            if self.config.box_regression:
                positive = labels < self.classes
                deltas = encode(boxes[positive], pseudo.boxes[nearest[positive]])
                predicted = self.regressions[number](features[positive]).float()
                regression_losses.append(box_loss(predicted, deltas, weights[positive], len(boxes)))
            scores = logits.softmax(dim=1)
        if regression_losses:
            losses["boxes"] = torch.stack(regression_losses).sum()
        return losses
