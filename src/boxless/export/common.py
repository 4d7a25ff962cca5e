"""Shared by the writers: rounded numbers and unique file names."""

from collections.abc import Iterator
from pathlib import Path

from boxless.structures import Detections


def rows(detections: Detections) -> Iterator[tuple[int, float, tuple[float, float, float, float]]]:
    """Label, score and xyxy box in pixels of every detection; scores to 6 significant digits, boxes to 0.01 pixels."""
    for label, score, box in zip(
        detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
    ):
        x1, y1, x2, y2 = (round(side, 2) for side in box)
        yield label, float(f"{score:.6g}"), (x1, y1, x2, y2)


class Names:
    """File names for the results of images, each returned once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, image: Path) -> str:
        """The stem of `image`; if taken, `<folder>-<stem>`; if taken, numbered.

        Names differ by more than case, since some file systems ignore it.
        """
        name, number = image.stem, 1
        if name.casefold() in self._taken and image.parent.name:
            name = f"{image.parent.name}-{image.stem}"
        base = name
        while name.casefold() in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._taken.add(name.casefold())
        return name
