"""Reviewed labels of images: one JSON line for every step, appended, so that a kill loses nothing.

A later line for an image replaces the earlier one. Files of several people are therefore merged by
`cat a.jsonl b.jsonl`.
"""

import codecs
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from boxless.datasets.problems import printable
from boxless.errors import BoxlessError, first_problem
from boxless.files import readable_bytes, unwritable
from boxless.image_files import data_folder, normal
from boxless.wording import counted

logger = logging.getLogger(__name__)

_START = b'{"image": '
"""First bytes of every line."""

Coordinate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _spelled_as_known(cls, data: Any, info: ValidationInfo) -> Any:
        known = cls.known_keys()
        unknown = [key for key in data if key not in known] if isinstance(data, dict) else []
        for key in unknown:
            if (name := str(key).strip().casefold()) in known:
                raise ValueError(f"'{key}' is not read, write '{name}'")
        if isinstance(info.context, Counter) and issubclass(cls, ImageLabels):
            info.context.update(unknown)
        return data

    @classmethod
    def known_keys(cls) -> set[str]:
        """The keys that are read."""
        return {key for name, field in cls.model_fields.items() for key in (name, field.alias) if key}


class ProposedBox(_Line):
    """A box as the detector proposed it: its class, and x1, y1, x2, y2 in pixels, right and bottom exclusive."""

    name: str = Field(alias="class")
    xyxy: tuple[Coordinate, Coordinate, Coordinate, Coordinate]

    @model_validator(mode="after")
    def _has_area(self) -> Self:
        x1, y1, x2, y2 = self.xyxy
        if x1 >= x2 or y1 >= y2:
            raise ValueError("a box needs x1 < x2 and y1 < y2")
        return self


class LabeledBox(ProposedBox):
    """A box that a person accepted, moved or drew (`right`), or rejected (`wrong`).

    Args:
        proposed: what the detector had proposed in its place; None for a box that was drawn.
    """

    state: Literal["right", "wrong"]
    proposed: ProposedBox | None = None


class LabeledPoint(_Line):
    """A point on an object: its class, and x and y in pixels."""

    name: str = Field(alias="class")
    xy: tuple[Coordinate, Coordinate]


class Labels(_Line):
    """Reviewed labels of one image, apart from its name.

    Args:
        tags: class -> True present, False absent, None unknown; classes that are not named are as in the data.
        counts: class -> number of objects, or `2+` for at least 2; it is there, unless the number is 0.
        points: on different objects.
        boxes: the boxes that the person judged.
        complete: classes of which every object has a `right` box.
        seconds: time spent on the image.
        done: whether the person was finished with the image; in training what is there counts either way.
    """

    tags: dict[str, bool | None] = {}
    counts: dict[str, Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^[0-9]{1,6}\+$")]] = {}
    points: list[LabeledPoint] = []
    boxes: list[LabeledBox] = []
    complete: list[str] = []
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    done: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        right = {box.name for box in self.boxes if box.state == "right"}
        if absent := [name for name in right if self.tags.get(name, True) is False]:
            raise ValueError(f"'{absent[0]}' is absent, yet has a box")
        if bare := [name for name in self.complete if self.tags.get(name) and name not in right]:
            raise ValueError(f"'{bare[0]}' is present and complete, yet has no box")
        for name, number in self.counts.items():
            if number != "0+" and self.tags.get(name) is (number == 0):
                raise ValueError(f"'{name}' is {'present' if number == 0 else 'absent'}, yet its count is {number}")
        return self

    def classes(self) -> set[str]:
        """All classes that are named."""
        names = [box.name for box in self.boxes] + [point.name for point in self.points]
        return {*self.tags, *self.counts, *names, *self.complete}


class ImageLabels(Labels):
    """One line of the file: labels, the image's name in its data set, and who gave them."""

    image: str
    reviewer: str | None = None


def image_name(data: Path, file: Path) -> str:
    """What an image is called in these files: its path relative to the data's folder, with slashes.

    The name does not depend on the current folder. Bytes that are not UTF-8 (surrogate escapes) are written as
    `\\udcXX`.
    """
    try:
        name = os.path.relpath(file, data_folder(data))
    except ValueError:  # On another drive of Windows.
        name = str(normal(file))
    return Path(name).as_posix().encode("utf-8", "backslashreplace").decode()


def read_labels(path: Path) -> dict[str, ImageLabels]:
    """The last line of every image, in the order of these lines.

    Half a line at the end, which a kill leaves, is left out with a warning; so are keys that are not known.

    Raises:
        BoxlessError: the file cannot be read, or a line is not what reviews write.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BoxlessError(f"{path}: cannot be read ({error.strerror}); boxless review writes such a file") from None
    # `cat` leaves the byte-order mark of a second file within the first.
    lines = [line.removeprefix(codecs.BOM_UTF8) for line in content.split(b"\n")]
    labels: dict[str, ImageLabels] = {}
    unknown: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        try:
            own = ImageLabels.model_validate_json(line, context=unknown) if line.strip() else None
        except ValidationError as error:
            if number == len(lines) and _may_continue(line):
                logger.warning("%s: half a line at the end is left out", path)
                break
            raise BoxlessError(
                f"{path}, line {number}: {first_problem(error.errors())}; fix or delete the line"
            ) from None
        if own is not None:
            labels.pop(own.image, None)
            labels[own.image] = own
    for key, times in unknown.items():
        logger.warning("%s: the key '%s' is not read: it is in %s", path, printable(key), counted(times, "line"))
    return labels


def is_label_lines(file: Path) -> bool:
    """Whether a file begins as one of labels."""
    return readable_bytes(file, len(_START)) == _START


def _may_continue(line: bytes) -> bool:
    """Whether a line that is none is the beginning of one, rather than of a file that is something else."""
    return line.startswith(_START) or _START.startswith(line)


def end_last_line(path: Path) -> None:
    """Remove half a line at the end of a file, so that lines can be appended; a file that is not there stays so.

    Raises:
        BoxlessError: the file cannot be written, or `read_labels` cannot read it.
    """
    if not path.exists():
        return
    read_labels(path)
    try:
        with path.open("r+b") as file:
            start, newline, rest = file.read().rpartition(b"\n")
            if _is_line(rest):
                file.write(b"\n")
            # Another review may have appended a line since it was read.
            elif rest:
                file.truncate(len(start) + len(newline))
    except OSError as error:
        raise unwritable(path, error) from None


def _is_line(text: bytes) -> bool:
    try:
        ImageLabels.model_validate_json(text)
    except ValidationError:
        return False
    return True


def append_labels(path: Path, labels: ImageLabels) -> None:
    """Append one line, which is on the disk when this returns; half of one is never left by a disk that is full.

    Raises:
        BoxlessError: the file cannot be written.
    """
    line = labels.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    required = {"image": labels.image, "tags": {}, "boxes": [], "complete": []}
    content = json.dumps(required | line).encode() + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(content) != len(content):
                file.truncate(start)
                raise BoxlessError(f"{path}: the disk is full; free some space and repeat the last step")
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from None
