"""What a method says of one view of a picture, before views are merged and boxes are chosen."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """A method's output in evaluation mode.

    Args:
        image_scores: (classes,) in [0, 1], how sure the method is that each class is in the picture.
        proposal_scores: (N, classes), one row a proposal in the order given; None for methods without proposals.
        maps: (classes, h, w) class heatmaps of the view; None for methods whose evidence is in proposals.
    """

    image_scores: Tensor
    proposal_scores: Tensor | None = None
    maps: Tensor | None = None
