"""What a method says of one view of an image, before views are merged and boxes are chosen."""

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class ViewOutput:
    """A method's output in evaluation mode.

    Args:
        image_scores: (classes,) in [0, 1], how sure the method is that each class is in the image.
        proposal_scores: (N, classes), one row a proposal in the order given, or a cell of the map row by row; None for
            methods whose evidence is in heatmaps alone.
        maps: (classes, h, w) class heatmaps of the view; None for methods whose evidence is in boxes alone.
        objectness: (h, w), log odds that a place of the view is on an object of any class; None where nothing says so.
        boxes: (N, 4), xyxy pixels of the view, where the proposals are moved to, or the box of each cell; None leaves
            proposals where they are.
    """

    image_scores: Tensor
    proposal_scores: Tensor | None = None
    maps: Tensor | None = None
    objectness: Tensor | None = None
    boxes: Tensor | None = None

    def cpu(self) -> "ViewOutput":
        """The same in single precision on the CPU."""

        def moved(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.float().cpu()

        image_scores = self.image_scores.float().cpu()
        others = map(moved, (self.proposal_scores, self.maps, self.objectness, self.boxes))
        return ViewOutput(image_scores, *others)

    def mean_with(self, other: "ViewOutput") -> "ViewOutput":
        """The mean of two looks at the same proposals or cells; heatmaps are this one's."""
        assert self.proposal_scores is not None and other.proposal_scores is not None
        moved = None if self.boxes is None or other.boxes is None else (self.boxes + other.boxes) / 2
        return replace(
            self,
            image_scores=(self.image_scores + other.image_scores) / 2,
            proposal_scores=(self.proposal_scores + other.proposal_scores) / 2,
            boxes=moved,
        )
