"""What a review says of the detector: how many images were right at once, and the precision of the proposed boxes."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from boxless.datasets.label_lines import LabeledBox, Labels, ProposedBox
from boxless.np_box_ops import iou
from boxless.wording import counted

HIT_IOU = 0.5
"""A proposed box that was moved is a hit if it has this IoU with what became of it."""
Z = 1.959964
"""Normal quantile of an interval of 95 %."""


class Summary(NamedTuple):
    """Numbers of a review.

    Args:
        images: that are done.
        accepted: of these, whose proposals were all accepted as they were, and nothing was added.
        seconds: spent on images, done or not.
        boxes: proposed boxes that were judged.
        hits: of these, those that are right at an IoU of 0.5.
    """

    images: int
    accepted: int
    seconds: float
    boxes: int
    hits: int

    @property
    def corrected(self) -> int:
        """Images that are done and were not accepted as they were."""
        return self.images - self.accepted

    def lines(self, at_random: bool) -> list[str]:
        """The numbers in words.

        Args:
            at_random: whether the images are a random sample of the data.
        """
        minutes = max(1, round(self.seconds / 60))
        said = f"Looked at {counted(self.images, 'image')} in {counted(minutes, 'minute')}, "
        said += f"{self.accepted} accepted, {self.corrected} corrected"
        if not self.boxes:
            return [said]
        low, high = wilson_interval(self.hits, self.boxes)
        whose = (
            "of the images that this random sample was drawn from"
            if at_random
            else "on these images, the least certain"
        )
        return [
            said,
            f"Precision of the {counted(self.boxes, 'proposed box')} at IoU {HIT_IOU}: {self.hits / self.boxes:.2f} "
            f"({low:.2f} to {high:.2f} with 95% confidence), {whose}",
        ]


def summarise(labels: Iterable[Labels]) -> Summary:
    """The numbers of a review, from the last line of each image."""
    every = list(labels)
    done = [own for own in every if own.done]
    judged = [box for own in every for box in own.boxes if box.proposed is not None]
    return Summary(
        images=len(done),
        accepted=sum(map(is_accepted, done)),
        seconds=sum(own.seconds for own in every),
        boxes=len(judged),
        hits=sum(map(is_hit, judged)),
    )


def is_accepted(labels: Labels) -> bool:
    """Whether all of an image was right as it was proposed: its boxes, and its tags.

    A box that is accepted makes its class present; such a tag is no correction.
    """
    boxed = {box.name for box in labels.boxes}
    corrected = any(answer is not True or name not in boxed for name, answer in labels.tags.items())
    return not corrected and all(_is_unchanged(box) for box in labels.boxes)


def _is_unchanged(box: LabeledBox) -> bool:
    return box.state == "right" and box.proposed == ProposedBox(name=box.name, xyxy=box.xyxy)


def is_hit(box: LabeledBox) -> bool:
    """Whether the proposal in the place of this box was right: accepted, or moved by little."""
    assert box.proposed is not None
    if box.state == "wrong" or box.proposed.name != box.name:
        return False
    return bool(iou(np.array([box.xyxy]), np.array([box.proposed.xyxy]))[0, 0] >= HIT_IOU)


def wilson_interval(hits: int, number: int) -> tuple[float, float]:
    """The interval of 95 % of a share (Wilson, JASA 1927): its lower and upper limit, in [0, 1].

    Args:
        hits: successes.
        number: trials, at least one.
    """
    share, square = hits / number, Z**2 / number
    centre = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / number + square / (4 * number))
    return max(0.0, centre - half), min(1.0, centre + half)
