"""Refinement heads: each learns from the boxes that the one before it is surest of (OICR; Tang et al., CVPR 2017)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from boxless.config import RefinementConfig
from boxless.errors import BoxlessError
from boxless.methods.heads import decode, encode, linear
from boxless.methods.losses import box_loss, cluster_loss, refinement_loss
from boxless.methods.mining import PseudoLabels, assign, mine_clusters, mine_spread, mine_top

Mining = Callable[[Tensor, Tensor, Tensor], PseudoLabels]

MINING: dict[str, Mining] = {"top": mine_top, "clusters": mine_clusters, "spread": mine_spread}
"""From one image's boxes (N, 4), scores (N, at least classes) and image_labels (classes,) to pseudo boxes, by name."""


def mining(name: str) -> Mining:
    """The rule of this name.

    Raises:
        BoxlessError: there is none.
    """
    if name not in MINING:
        raise BoxlessError(f"head.refinement.mining={name} is unknown; there are {', '.join(MINING)}")
    return MINING[name]


class Refinement(nn.Module):
    """Classifiers of proposals, with a class for the background, and box regression for the last or all of them.

    Args:
        inputs: width of the region features.
        classes: number of classes.
        config: how many, and how pseudo boxes are mined.
    """

    def __init__(self, inputs: int, classes: int, config: RefinementConfig) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.stages = nn.ModuleList(linear(inputs, classes + 1, 0.01) for _ in range(config.stages))
        regressions = {None: 0, "last": 1, "all": config.stages}[config.regress]
        self.regressions = nn.ModuleList(linear(inputs, 4, 0.001) for _ in range(regressions))

    def forward(self, features: Tensor, boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores of one view's proposals and where they are moved to, each the mean over the heads.

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
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        image_labels: Tensor,
        first: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Losses over a batch, the mean over its images.

        Args:
            features: for each image (N, D).
            proposals: for each (N, 4), xyxy pixels of the view.
            image_labels: (B, classes).
            first: for each the scores (N, classes) that the first head's pseudo boxes are mined from.
        """
        sums: dict[str, list[Tensor]] = {}
        for row, scores in enumerate(first):
            for name, loss in self._image(features[row], proposals[row], image_labels[row], scores).items():
                sums.setdefault(name, []).append(loss)
        return {name: torch.stack(values).mean() for name, values in sums.items()}

    def _image(self, features: Tensor, boxes: Tensor, image_labels: Tensor, scores: Tensor) -> dict[str, Tensor]:
        mine = mining(self.config.mining)
        losses = {}
        moves = []
        for number, stage in enumerate(self.stages):
            pseudo = mine(boxes, scores, image_labels)
            labels, weights, nearest = assign(boxes, pseudo, self.classes, self.config.ignore)
            logits = stage(features).float()
            if self.config.bags:
                losses[f"refine {number + 1}"] = cluster_loss(logits, labels, weights, nearest)
            else:
                losses[f"refine {number + 1}"] = refinement_loss(logits, labels, weights)
            # Where only the last heads move boxes, these are the last heads.
            row = number - len(self.stages) + len(self.regressions)
            if row >= 0:
                held = labels < self.classes
                goals = encode(boxes[held], pseudo.boxes[nearest[held]])
                predicted = self.regressions[row](features[held]).float()
                moves.append(box_loss(predicted, goals, weights[held], len(boxes)))
            scores = logits.softmax(dim=1)
        if moves:
            losses["boxes"] = torch.stack(moves).sum()
        return losses
