"""What the formats share: numbers short enough to read, and file names that stay unique."""

from collections.abc import Iterator
from pathlib import Path

from boxless.structures import Detections


def rows(found: Detections) -> Iterator[tuple[int, float, tuple[float, float, float, float]]]:
    """Label, score and xyxy box of every detection; scores to 6 digits, boxes to a hundredth of a pixel."""
    for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True):
        x1, y1, x2, y2 = (round(side, 2) for side in box)
        yield label, float(f"{score:.6g}"), (x1, y1, x2, y2)


class Names:
    """Names for the images' files: the stem, else with the folder before it, else with a number behind it."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, image: Path) -> str:
        """A name that no image before had, also where upper and lower case are the same."""
        name, number = image.stem, 1
        if name.casefold() in self._taken and image.parent.name:
            name = f"{image.parent.name}-{image.stem}"
        base = name
        while name.casefold() in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._taken.add(name.casefold())
        return name
