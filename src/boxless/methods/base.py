"""What every model is and returns: torchvision's convention, losses in training and results in evaluation."""

from dataclasses import dataclass

from torch import Tensor, nn

from boxless.features import Batch
from boxless.postprocess import ViewArrays
from boxless.structures import FloatArray


class Model(nn.Module):
    """The trained part of a network: the backbone's last stages and a head.

    Called with a `Batch`, it returns a dict of losses in training mode and a list of `ViewOutput`, one a view, in
    evaluation mode.

    Args:
        tail: the backbone's trained stages; empty where all is frozen.
    """

    def __init__(self, tail: nn.Sequential) -> None:
        super().__init__()
        self.tail = tail
        self.progress = 0.0
        """Fraction of the training that is done; the training loop sets it."""

    @property
    def needs_averages_only(self) -> bool:
        """Whether the averaged feature map of an image gives the same losses as the map itself."""
        return False

    @property
    def fixed_part(self) -> nn.Module | None:
        """What reads the map of a view (C, h, w) first and is not trained, or None: its output is computed once for all
        steps, and takes the place of the map in batches to train on."""
        return None

    def forward(self, batch: Batch) -> "dict[str, Tensor] | list[ViewOutput]":
        """Losses in training mode, one `ViewOutput` a view in evaluation mode."""
        raise NotImplementedError


@dataclass(frozen=True)
class ViewOutput:
    """The output of a model for one view, before views are averaged and boxes are selected.

    Args:
        image_scores: (classes,) in [0, 1], image-level scores.
        proposal_scores: (N, classes), one row a proposal in the order given, or a cell of the map row by row; None for
            models that output heatmaps alone.
        maps: (classes, h, w) class heatmaps of the view; None for models that output boxes alone.
        objectness: (h, w), log odds that a location is on an object of any class; None for models without.
        boxes: (N, 4), xyxy pixels of the view, the regressed proposals or the box of each cell; None leaves proposals
            where they are.
    """

    image_scores: Tensor
    proposal_scores: Tensor | None = None
    maps: Tensor | None = None
    objectness: Tensor | None = None
    boxes: Tensor | None = None

    def numpy(self) -> ViewArrays:
        """The same as arrays, in single precision."""

        def moved(part: Tensor | None) -> FloatArray | None:
            return None if part is None else part.float().cpu().numpy()

        image_scores = self.image_scores.float().cpu().numpy()
        others = map(moved, (self.proposal_scores, self.maps, self.objectness, self.boxes))
        return ViewArrays(image_scores, *others)
