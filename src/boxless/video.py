"""Detection in videos: frames are decoded one after the other, and only a few are held in memory."""

import csv
import io
import json
import logging
import os
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.export.coco import coco_annotation
from boxless.export.common import rows
from boxless.files import expand_user, unwritable, write_whole
from boxless.predictor import Predictor
from boxless.progress import track
from boxless.result_record import check_results, record_results
from boxless.results import VIDEO
from boxless.structures import Detections
from boxless.visualize import draw_boxes

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Frames that are decoded before they are processed in parallel."""
MIN_RATE, MAX_RATE = 0.01, 1000.0
"""Frames a second that are taken for true; some files state 0 or millions."""
MAX_MISSING = 0.05
"""Share of a video, and a second at least, that may be missing at its end: some files state its length roughly."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Args:
        number: counted from 0.
        seconds: since the beginning, as the file says.
        pixels: (h, w, 3) uint8, RGB, turned as the file says.
    """

    number: int
    seconds: float
    pixels: NDArray[np.uint8]


Found = Iterable[tuple[Frame, Detections]]


def read_frames(video: str | os.PathLike[str]) -> Iterator[Frame]:
    """The frames of a video file, in order.

    >>> for frame in read_frames("street.mp4"):  # doctest: +SKIP
    ...     found = detector.predict(frame.pixels)

    Raises:
        BoxlessError: it cannot be read, has no frame, or frames of several sizes.
    """
    path = expand_user(video)
    with _opened(path) as capture:
        number, shape = 0, None
        while True:
            read, pixels = capture.read()
            if not read:
                break
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise BoxlessError(
                    f"{path}: frame {number} has another size; convert it (ffmpeg -i {path.name} new.mp4)"
                )
            seconds = round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6)
            yield Frame(number, seconds, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            number += 1
    if not number:
        raise BoxlessError(f"{path}: has no frame that can be read; convert it (ffmpeg -i {path.name} new.mp4)")


def predict_video(
    detector: Predictor,
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str = "coco",
    threshold: float | None = None,
) -> int:
    """Detect objects in every frame of a video; write the boxes, and the video with the boxes drawn.

    Args:
        detector: the detector.
        video: the file.
        out: the folder; takes `predictions.json` or `predictions.csv`, and `overlay.mp4`.
        format: `coco`, whose images are the frames, with `frame` (from 0) and `time` in seconds beside `file_name`; or
            `csv`, which has these two as columns.
        threshold: least score of a box; None writes the confident ones, see `Detections.confident`.

    Returns:
        Number of frames.

    Raises:
        BoxlessError: see `read_frames`; the format is another, or `out` cannot be written.
    """
    write = writer(format)
    path, folder = expand_user(video), expand_user(out)
    if path.resolve() == (folder / VIDEO).resolve():
        raise BoxlessError(f"{path}: would be overwritten; choose another --out")
    written = (VIDEO, *FORMATS[format].files)
    check_results(folder, written)
    with _opened(path) as capture:
        frames, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
    count, last = 0, 0.0

    def found() -> Iterator[tuple[Frame, Detections]]:
        nonlocal count, last
        # Some files do not say how many frames they have; a bar needs some number.
        for frame, detections in track(_detected(detector, path, threshold), "Predict", max(frames, 1)):
            overlay(draw_boxes(frame.pixels, detections))
            count, last = count + 1, frame.seconds
            yield frame, detections
        # Both files appear after this.
        record_results(folder, written)

    # MPEG-4 counts time in at most 65,535 parts of a second.
    known = round(rate, 3 if rate <= 65 else 1) if MIN_RATE <= rate <= MAX_RATE else 25.0
    with _written(folder / VIDEO, known) as overlay:
        write(folder, path, found(), detector.classes, detector.name)
    # The last frame begins one frame before the end.
    length, end = (frames / rate, last + 1 / rate) if rate > 0 else (0.0, 0.0)
    if length - end > max(1.0, MAX_MISSING * length):
        logger.warning(
            "%s: ends after %.1f of %.1f seconds, cut off or damaged; what follows has no boxes", path, end, length
        )
    return count


def writer(format: str) -> Callable[[Path, Path, Found, Sequence[str], str], None]:
    """What writes the boxes of a video in a format.

    Raises:
        BoxlessError: there is none of this name.
    """
    writers = {"coco": _write_coco, "csv": _write_csv}
    if format not in writers:
        raise BoxlessError(f"--format {format}: of a video boxes are written as {' or '.join(writers)}")
    return writers[format]


def _detected(detector: Predictor, path: Path, threshold: float | None) -> Found:
    frames = read_frames(path)
    while some := list(islice(frames, AT_ONCE)):
        yield from zip(some, detector.predict([one.pixels for one in some], threshold, progress=False), strict=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise BoxlessError(f"{path}: {'is no file' if path.exists() else 'does not exist'}")
    if not path.stat().st_size:
        raise BoxlessError(f"{path}: the file is empty")
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        if not capture.isOpened():
            raise BoxlessError(f"{path}: cannot be read as a video; convert it (ffmpeg -i {path.name} new.mp4)")
        yield capture
    finally:
        capture.release()


@contextmanager
def _written(path: Path, rate: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """What adds a frame (h, w, 3) uint8, RGB, to a video; it appears at `path` if the block ends without an error."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    writers: list[Any] = []
    count = 0

    def add(pixels: NDArray[np.uint8]) -> None:
        nonlocal count
        count += 1
        if not writers:
            size = pixels.shape[1], pixels.shape[0]
            writers.append(cv2.VideoWriter(str(temporary.absolute()), cv2.VideoWriter.fourcc(*"mp4v"), rate, size))
            if not writers[0].isOpened():
                raise BoxlessError(f"{path}: cannot be written; choose another folder")
        writers[0].write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield add
        for one in writers:
            one.release()
        # OpenCV says nothing of a write that failed.
        written = cv2.VideoCapture(str(temporary.absolute()))
        if int(written.get(cv2.CAP_PROP_FRAME_COUNT)) != count:
            raise BoxlessError(f"{path}: cannot be written whole; the disk may be full")
        written.release()
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for one in writers:
            one.release()
        with suppress(OSError):
            temporary.unlink()


def _write_csv(out: Path, video: Path, found: Found, classes: Sequence[str], model: str) -> None:
    with write_whole(out / "predictions.csv") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("video", "frame", "time", "class", "score", "xmin", "ymin", "xmax", "ymax"))
        for frame, detections in found:
            for label, score, box in rows(detections):
                table.writerow((video.as_posix(), frame.number, frame.seconds, classes[label], score, *box))
        text.detach()


def _write_coco(out: Path, video: Path, found: Found, classes: Sequence[str], model: str) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    times, size, count = array("d"), (0, 0), 0
    with write_whole(out / "predictions.json") as file:
        file.write(b'{"info": ' + json.dumps({"description": model}).encode() + b",\n")
        file.write(b'"categories": ' + json.dumps(categories).encode() + b',\n"annotations": [')
        for frame, detections in found:
            times.append(frame.seconds)
            size = detections.size
            for label, score, box in rows(detections):
                count += 1
                annotation = coco_annotation(count, len(times), label, score, box)
                file.write((b",\n" if count > 1 else b"\n") + json.dumps(annotation).encode())
        file.write(b'],\n"images": [')
        for number, seconds in enumerate(times):
            image = {"id": number + 1, "file_name": video.as_posix(), "width": size[0], "height": size[1]}
            image |= {"frame": number, "time": seconds}
            file.write((b",\n" if number else b"\n") + json.dumps(image).encode())
        file.write(b"]}\n")
