"""The page on which a person corrects proposed boxes, on the server that `boxless serve` runs.

Requests name images by their place in the queue: no path in a request is followed; the name that comes with labels is
only compared. Only images of the queue are read, and only the file of labels is written.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI, HTTPException, Request
from starlette.types import ASGIApp

from boxless.datasets import load_dataset
from boxless.datasets.label_lines import ImageLabels, Labels, append_labels, end_last_line, read_labels
from boxless.datasets.lookup import ImageIndex
from boxless.datasets.problems import Problems
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.files import check_writable, expand_user
from boxless.image_files import data_folder
from boxless.images import image_size, read_image
from boxless.logs import log_warnings
from boxless.review.queue import QueuedBox, QueuedImage, choose, queued, read_queue
from boxless.review.summary import is_accepted, summarise
from boxless.run_folder import read_manifest
from boxless.server.app import add_errors, add_page, listen, run_until_interrupted
from boxless.server.guard import Guard, Limits
from boxless.server.service import IMAGE, data_uri
from boxless.server.uploads import kind
from boxless.structures import Dataset, Sample
from boxless.visualize.boxes import class_colour
from boxless.visualize.colours import page_colours
from boxless.wording import counted

logger = logging.getLogger(__name__)

ANSWER_BYTES = 2**20
"""Largest body of a request: labels of one image, thousands of boxes."""
TOLERANCE = 0.5
"""Pixels by which a box may leave its image."""


class Item(NamedTuple):
    """An image of the queue: its line there, and what the data has of it."""

    queued: QueuedImage
    sample: Sample


@dataclass
class Review:
    """A review that is under way.

    Args:
        run: name of the run whose boxes are reviewed.
        classes: class names.
        items: images in the order of the queue.
        out: the file of labels.
        reviewer: written into every line; None writes nothing.
        labels: name of an image -> its last line in `out`.
    """

    run: str
    classes: tuple[str, ...]
    items: list[Item]
    out: Path
    reviewer: str | None
    labels: dict[str, ImageLabels]

    def summary(self) -> list[str]:
        """The numbers of the images of this queue, in words."""
        said = (self.labels.get(item.queued.image) for item in self.items)
        numbers = summarise(own for own in said if own is not None)
        return numbers.lines(at_random=all(item.queued.score is None for item in self.items))

    def save(self, item: Item, labels: Labels) -> None:
        """Append the labels of an image.

        Raises:
            BoxlessError: they name a class that is not known, have a box outside the image, or cannot be written.
        """
        if unknown := labels.classes() - set(self.classes):
            raise BoxlessError(f"'{min(unknown)}' is no class of {self.run}; it has: {', '.join(self.classes)}")
        width, height = image_size(item.sample.path)
        if any(box.xyxy[2] > width + TOLERANCE or box.xyxy[3] > height + TOLERANCE for box in labels.boxes):
            raise BoxlessError(f"a box leaves its image, which has {width}x{height} pixels")
        name = item.queued.image
        # Points come from elsewhere: the page shows none, and keeps them.
        points = {"points": self.labels[name].points} if name in self.labels else {}
        said = {**labels.model_dump(), **points, "image": name, "reviewer": self.reviewer}
        own = ImageLabels.model_validate(said)
        append_labels(self.out, own)
        self.labels[name] = own


def review(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    queue: str | os.PathLike[str] | None = None,
    split: str | None = None,
    reviewer: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
) -> list[str]:
    """Serve the page until it is interrupted.

    Args:
        run: the run folder.
        data: a path that `load_dataset` takes; boxes, where it has them, are not used.
        out: the JSON Lines that take the labels; an earlier review in it is continued.
        queue: what `ask` wrote, or lines of it; None asks about all images.
        split: of the data.
        reviewer: who looks at the images.
        host: address or name to listen on.
        port: to listen on; 0 takes a free one.
        name: a further host name by which others reach the page.

    Returns:
        The summary, in lines.

    Raises:
        BoxlessError: the run, the data, the queue or an earlier review cannot be read, `out` cannot be written, or the
            address is not available.
    """
    listener = listen(host, port)
    with listener:
        own = open_review(run, data, out, queue=queue, split=split, reviewer=reviewer)
        names = {host} if name is None else {host, name}
        run_until_interrupted(create_review_app(own, names), listener, host)
    return own.summary()


def open_review(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    queue: str | os.PathLike[str] | None = None,
    split: str | None = None,
    reviewer: str | None = None,
) -> Review:
    """Begin or continue a review; arguments and errors are those of `review`."""
    folder, root, out = expand_user(run), expand_user(data), expand_user(out)
    if out.suffix.lower() != ".jsonl":
        raise BoxlessError(f"{out}: give --out a name that ends in .jsonl, by which the labels are recognised later")
    check_writable(out)
    logger.info("Opening %s", root)
    out.parent.mkdir(parents=True, exist_ok=True)
    end_last_line(out)
    labels = read_labels(out) if out.exists() else {}
    classes = tuple(read_manifest(folder)["classes"])
    dataset = log_warnings(load_dataset(root, split)).with_classes(classes, strict=False)
    if queue is None:
        images, where = queued(choose(Detector.load(folder), dataset), root), "the data"
    else:
        images, where = read_queue(expand_user(queue)), str(queue)
    items = _items(images, dataset, root, where)
    said = (labels[item.queued.image] for item in items if item.queued.image in labels)
    if unknown := set().union(*(own.classes() for own in said)) - set(classes):
        raise BoxlessError(
            f"{out}: '{min(unknown)}' is no class of {folder.name}; continue with the run that was reviewed, or give "
            "another --out"
        )
    done = sum(own.done for own in labels.values())
    if done:
        logger.info("%s: continues a review with %s done", out, counted(done, "image"))
    return Review(folder.resolve().name, classes, items, out, reviewer, labels)


def _items(images: Sequence[QueuedImage], dataset: Dataset, root: Path, where: str) -> list[Item]:
    index = ImageIndex((sample.path for sample in dataset.samples), data_folder(root))
    by_path = {sample.path: sample for sample in dataset.samples}
    paths = {image.image: index.find(image.image, Problems()) for image in images}
    samples = {name: by_path[path] for name, path in paths.items() if path is not None}
    if absent := [image.image for image in images if image.image not in samples]:
        if 2 * len(absent) > len(images):
            raise BoxlessError(
                f"{where}: {counted(len(absent), 'image')} of {len(images)} are not in {dataset.name}, such as "
                f"{absent[0]}; give the data and --split of the queue"
            )
        logger.warning(
            "%s: left out %s, which the data no longer has: %s", where, counted(len(absent), "image"), absent[0]
        )
    images = [image for image in images if image.image in samples]
    for image in images:
        if unknown := {box.name for box in image.boxes} - set(dataset.classes):
            raise BoxlessError(f"{where}: '{min(unknown)}' is no class of this run; give the run of the queue")
    return [Item(image, samples[image.image]) for image in images]


def create_review_app(review: Review, names: Collection[str] = ()) -> ASGIApp:
    """The ASGI application of a review.

    Args:
        review: the review.
        names: host names that requests may use, beside `localhost` and any IP address.
    """
    app = FastAPI(title="Boxless review", docs_url=None, redoc_url=None, openapi_url=None)
    add_page(app, "review.html", "review.js", "review_stage.js", "style.css", "review.css")
    _add_routes(app, review)
    add_errors(app)
    return Guard(app, Limits(size=ANSWER_BYTES), names)


def _add_routes(app: FastAPI, review: Review) -> None:
    # One image is decoded at a time, as many may be large.
    turn = asyncio.Lock()

    def item(number: int) -> Item:
        if not 0 <= number < len(review.items):
            raise HTTPException(404, f"there is no image {number}; the queue has {len(review.items)}")
        return review.items[number]

    @app.get("/queue")
    async def queue() -> dict[str, Any]:
        return {
            "run": review.run,
            "out": review.out.name,
            "reviewer": review.reviewer,
            "classes": [{"name": name, **page_colours(class_colour(i))} for i, name in enumerate(review.classes)],
            "images": [
                {"name": own.queued.image, "verdict": _verdict(review.labels.get(own.queued.image))}
                for own in review.items
            ],
            "summary": review.summary(),
        }

    @app.get("/images/{number}")
    async def image(number: int) -> dict[str, Any]:
        own = item(number)
        async with turn:
            return await asyncio.to_thread(_shown, own, review)

    @app.post("/images/{number}")
    async def save(number: int, request: Request, revision: str | None = None) -> dict[str, Any]:
        own = item(number)
        if kind(request) != "application/json":
            raise HTTPException(415, "send the labels as application/json")
        labels = ImageLabels.model_validate_json(await request.body())
        # A page that an earlier server sent counts places in the queue of that one.
        if labels.image != own.queued.image:
            raise HTTPException(409, "the server has another queue; reload the page")
        saved = review.labels.get(own.queued.image)
        # An answer that got lost is asked for again, with the same labels.
        if revision not in (None, _revision(saved)) and not (saved and _shown_labels(saved) == _shown_labels(labels)):
            raise HTTPException(409, "another page has saved labels of this image since; reload this page")
        # Not in a thread, so that steps are written in the order in which they arrive.
        review.save(own, labels)
        saved = review.labels[own.queued.image]
        return {"verdict": _verdict(saved), "summary": review.summary(), "revision": _revision(saved)}


def _verdict(labels: ImageLabels | None) -> str | None:
    """What became of an image: `accepted` or `corrected`; None if it is not done."""
    if labels is None or not labels.done:
        return None
    return "accepted" if is_accepted(labels) else "corrected"


def _revision(labels: ImageLabels | None) -> str:
    """A name for what is saved of an image, the same after a restart; empty if nothing is."""
    return "" if labels is None else hashlib.blake2b(labels.model_dump_json().encode(), digest_size=8).hexdigest()


def _shown_labels(labels: ImageLabels) -> dict[str, Any]:
    """Those of a line that the page shows and sends."""
    return labels.model_dump(by_alias=True, exclude={"image", "reviewer", "points"})


def _shown(item: Item, review: Review) -> dict[str, Any]:
    """All that the page shows of an image."""
    pixels = read_image(item.sample.path)
    labels = review.labels.get(item.queued.image)
    tags = {
        name: True if label in item.sample.tags else None if label in item.sample.unsure else False
        for label, name in enumerate(review.classes)
    }
    return {
        "image": data_uri(pixels, IMAGE),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "reasons": item.queued.reasons,
        "tags": tags,
        "boxes": _clipped(item.queued.boxes, pixels.shape[1], pixels.shape[0]),
        "labels": None if labels is None else _shown_labels(labels),
        "revision": _revision(labels),
    }


def _clipped(boxes: Sequence[QueuedBox], width: int, height: int) -> list[dict[str, Any]]:
    """Boxes within an image; `ask` writes none that leaves it, but other programs may."""
    shown = []
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy
        if x1 < width and y1 < height:
            shown.append({**box.model_dump(by_alias=True), "xyxy": (x1, y1, min(x2, width), min(y2, height))})
    return shown
