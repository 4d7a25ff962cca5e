"""Images -> Detections and Heatmaps."""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import batched_nms, box_iou

from boxless.config import Config, InferenceConfig
from boxless.devices import full_width, one_thread_a_image
from boxless.errors import ImageError
from boxless.features import Batch, FeatureStore, Item, View, collate, views_of
from boxless.images import read_image, to_array
from boxless.methods import BoxSupervisedDetector, FastRCNN, Localizer, ViewOutput
from boxless.methods.cam_threshold import DEFAULT_THRESHOLD
from boxless.methods.heads import paired_iou
from boxless.methods.mining import enlarge, largest_component_box, objectness_box, proposal_heatmap, vote
from boxless.metrics.boxes import coverage
from boxless.progress import track_threads
from boxless.proposals import propose
from boxless.run_folder import Network, load_network, read_config, read_manifest
from boxless.structures import Detections, FloatArray, Heatmaps

ImageInput = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image

CELLS = 128
"""Most cells a side of a heatmap of boxes; those of a large image are larger."""
RESCORING_FLOOR = 0.5
"""Share of its scores that a class keeps where head and heatmap have nothing in common."""
RESCORING_MIN_SCORE = 0.01
"""Classes that are less likely in the image keep `RESCORING_FLOOR` too: to find the boxes of their heatmaps is wasted time."""
CONTAINED_AREA, CONTAINED_FACTOR = 0.8, 0.7
"""A box that lies within a better one of its class with this share of its area keeps this share of its score
(docs/experiments.md)."""
MAX_PIXELS_PER_VIEW_PIXEL = 2
"""Boxes of heatmaps are exact to a pixel of the image, but not finer than so many pixels a pixel of the view."""
COARSE_STEP, NEAR = 4, 0.4
"""To find the box of a known class, one proposal of so many is looked at first, and then those of this IoU with the
likeliest."""


class Detector:
    """A trained detector.

    Args:
        network: its weights.
        config: of its run.
        classes: class names.
        device: where it runs.
        name: what to call it in exports; that of its run folder where it has one.
    """

    def __init__(
        self, network: Network, config: Config, classes: Sequence[str], device: torch.device, name: str = "boxless"
    ) -> None:
        self.name = name
        self.config = config
        self.classes = tuple(classes)
        self.views = views_of(config.test_views)
        self.device = device
        self.features = FeatureStore(network.backbone, network.frozen, config.backbone, device)
        self.model = network.model.to(device).eval()
        # None for methods that score map cells rather than proposals.
        self.proposals = config.proposals if config.reads_proposals else None

    @classmethod
    def load(cls, run: str | os.PathLike[str], device: str | torch.device | None = None) -> "Detector":
        """Load a run folder; nothing is downloaded.

        Args:
            run: the folder.
            device: where to run, such as `cuda:1`; by default what accelerate finds.

        Raises:
            BoxlessError: it is no run folder, an unfinished one, or of another version.
        """
        folder = Path(run)
        manifest, config = read_manifest(folder), read_config(folder)
        classes = manifest["classes"]
        network = load_network(folder, config, len(classes))
        return cls(network, config, classes, torch.device(device or PartialState().device), folder.resolve().name)

    def with_views(self, views: Sequence[View]) -> "Detector":
        """The same detector, looking at images in other views."""
        other = copy.copy(self)
        other.views = tuple(views)
        return other

    def predict(self, image: ImageInput) -> Detections:
        """Boxes in one image: a file, an RGB array (h, w, 3) uint8, or a Pillow image.

        Raises:
            ImageError: the image cannot be read.
        """
        return self.look(image)[0]

    def heatmap(self, image: ImageInput) -> Heatmaps:
        """Class heatmaps of one image: a file, an RGB array (h, w, 3) uint8, or a Pillow image.

        Raises:
            ImageError: the image cannot be read.
        """
        return self.look(image)[1]

    def look(self, image: ImageInput) -> tuple[Detections, Heatmaps]:
        """Both boxes and heatmaps, for the price of one.

        Torch shares the image among all its threads, so the last bits may depend on their number.
        """
        pixels = _pixels(image)
        boxes = propose(pixels, self.proposals) if self.proposals else None
        with full_width(self.device):
            maps = [self.features.extract(pixels, view) for view in self.views]
            return self.postprocess(maps, boxes, (pixels.shape[1], pixels.shape[0]))

    def look_all(
        self, images: Sequence[Path], skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, NDArray[np.uint8], Detections, Heatmaps]]:
        """Walk over image files in order behind a progress bar, a few at a time in memory.

        Several are looked at at once, each as `look` does with one thread: what comes out is the same whatever the
        number of images and of cores.

        Args:
            images: files.
            skipped: takes up the files that cannot be read -> reason.
        """

        def work(path: Path) -> tuple[NDArray[np.uint8], Detections, Heatmaps] | ImageError:
            try:
                pixels = read_image(path)
            except ImageError as error:
                return error
            return pixels, *self.look(pixels)

        with (
            one_thread_a_image(self.device) as threads,
            full_width(self.device),
            closing(track_threads(work, images, "Predict", threads)) as looks,
        ):
            for path, seen in zip(images, looks, strict=True):
                if isinstance(seen, ImageError):
                    skipped[path] = str(seen)
                else:
                    yield path, *seen

    def postprocess(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> tuple[Detections, Heatmaps]:
        """From the feature maps of every test view to boxes and heatmaps.

        Scores are means over the views (WSDDN sums them, which ranks the same). Those of a head that was taught by
        pseudo boxes count as far as its likeliest box of the class and the heatmap's are the same: as with these
        boxes themselves, two opinions that agree are most likely right.

        Args:
            maps: one a view, (C, h, w).
            boxes: proposals (N, 4), xyxy pixels of the image, for methods that use them.
            size: width and height of the image in pixels.
        """
        evidence = self._evidence(maps, boxes, size)
        image_scores = np.mean([view.image_scores.numpy() for view in evidence], axis=0)
        if evidence[0].proposal_scores is not None:
            final, scores = self._scored(evidence, boxes, size)
            if self.config.pseudo:
                scores = scores * self._rescoring(evidence, image_scores, final, scores, size)
            found = _suppress(final, scores, self.config.inference)
            heat = proposal_heatmap(final.numpy(), scores.numpy(), size, max(8, max(size) / CELLS))
        else:
            heat, objectness = self._merged(evidence)
            labels = np.argsort(-image_scores, kind="stable")
            limits = self.config.inference
            labels = labels[image_scores[labels] >= limits.min_score][: limits.max_boxes]
            cam_boxes = self._cam_boxes(heat, objectness, size, labels, self._threshold)
            found = cam_boxes, image_scores[labels].astype(np.float32), labels.astype(np.int64)
        return (
            Detections(*found, self.classes, size, image_scores.astype(np.float32)),
            Heatmaps(heat, self.classes, size),
        )

    def boxes_for_labels(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int], labels: Sequence[int]
    ) -> FloatArray:
        """The likeliest box of each class that is known to be in the image.

        Args:
            maps, boxes, size: as `postprocess` takes them.
            labels: the classes.

        Returns:
            (len(labels), 4) float32, xyxy pixels of the image.
        """
        wanted = np.array(labels, np.int64)
        if isinstance(self.model, FastRCNN) and boxes is not None and len(wanted):
            candidates = self._coarse_to_fine(self.model, maps, boxes, size, wanted)
        else:
            evidence = self._evidence(maps, boxes, size)
            if evidence[0].proposal_scores is None:
                return self._cam_boxes(*self._merged(evidence), size, wanted, self._threshold)
            candidates = self._scored(evidence, boxes, size)
        return vote(*candidates, torch.from_numpy(wanted)).numpy()

    def _coarse_to_fine(
        self,
        model: FastRCNN,
        maps: Sequence[torch.Tensor],
        boxes: FloatArray,
        size: tuple[int, int],
        labels: NDArray[np.int64],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_scored`, of the proposals among which the likeliest box of each class is to be found.

        A head that boxes taught scores all proposals around an object well, so a few tell where it is: a third of the
        work, and as good (docs/experiments.md).
        """
        with torch.inference_mode():
            views = [model.prepare_view(batch) for batch in self._batches(maps, None, size)]

        def scored(some: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
            rows = [torch.from_numpy(view.boxes(some, *size)).to(self.device) for view in self.views]
            with torch.inference_mode():
                looks = [look for own, row in zip(views, rows, strict=True) for look in model.judge(own, [row])]
            return self._scored([look.cpu() for look in looks], some, size)

        moved, scores = scored(boxes[::COARSE_STEP])
        best = scores[:, labels].argmax(dim=0)
        near = box_iou(torch.from_numpy(boxes), moved[best]) >= NEAR
        near[best * COARSE_STEP] = True
        return scored(boxes[near.any(dim=1).numpy()])

    def extents(
        self, maps: Sequence[torch.Tensor], size: tuple[int, int], labels: Sequence[int], thresholds: Sequence[float]
    ) -> list[FloatArray]:
        """What `boxes_for_labels` would give with each of these thresholds; for methods with heatmaps."""
        heat, objectness = self._merged(self._evidence(maps, None, size))
        wanted = np.array(labels, np.int64)
        return [self._cam_boxes(heat, objectness, size, wanted, threshold) for threshold in thresholds]

    def _rescoring(
        self,
        evidence: Sequence[ViewOutput],
        image_scores: FloatArray,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """How far head and heatmap agree on where each class is, from `RESCORING_FLOOR` to 1: (classes,)."""
        labels = np.flatnonzero(image_scores >= RESCORING_MIN_SCORE)
        # Pixels of a view are fine enough; an image may have many more.
        view = View(max(view.scale for view in self.views))
        cam_boxes = self._cam_boxes(*self._merged(evidence), view.size(*size), labels, self._threshold)
        rows = torch.from_numpy(labels)
        overlaps = torch.zeros(len(image_scores))
        overlaps[rows] = paired_iou(vote(boxes, scores, rows), torch.from_numpy(view.restore(cam_boxes, *size)))
        return RESCORING_FLOOR + (1 - RESCORING_FLOOR) * overlaps

    @property
    def _threshold(self) -> float:
        localizer = self.model.localizer if isinstance(self.model, BoxSupervisedDetector) else self.model
        assert isinstance(localizer, Localizer)
        return float(localizer.threshold.nan_to_num(DEFAULT_THRESHOLD))

    def _evidence(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> list[ViewOutput]:
        """What the model says of every test view."""
        with torch.inference_mode():
            looks: list[ViewOutput] = [look for batch in self._batches(maps, boxes, size) for look in self.model(batch)]
        return [look.cpu() for look in looks]

    def _batches(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> Iterator[Batch]:
        """Every test view, each a batch of its own."""
        for view, features in zip(self.views, maps, strict=True):
            width, height = view.size(*size)
            moved = None if boxes is None else torch.from_numpy(view.boxes(boxes, *size))
            yield collate([Item(features, (height, width), moved)]).to(self.device)

    def _scored(
        self, evidence: Sequence[ViewOutput], boxes: FloatArray | None, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the proposals or cells have their boxes (N, 4), xyxy pixels of the image, and scores (N, classes)."""
        scores = torch.stack([row.proposal_scores for row in evidence if row.proposal_scores is not None]).mean(0)
        moved = [
            view.restore(row.boxes.numpy(), *size)
            for view, row in zip(self.views, evidence, strict=True)
            if row.boxes is not None
        ]
        final = np.mean(moved, axis=0) if moved else boxes
        assert final is not None
        return torch.from_numpy(final), scores

    def _merged(self, evidence: Sequence[ViewOutput]) -> tuple[FloatArray, FloatArray | None]:
        """Heatmaps (classes, h, w) over all views, and the foreground (h, w) where the model has it."""
        heat = _mean_of_views([row.maps for row in evidence if row.maps is not None], self.views)
        objects = [row.objectness[None] for row in evidence if row.objectness is not None]
        return heat, _mean_of_views(objects, self.views)[0] if objects else None

    def _cam_boxes(
        self,
        heat: FloatArray,
        objectness: FloatArray | None,
        size: tuple[int, int],
        labels: NDArray[np.int64],
        threshold: float,
    ) -> FloatArray:
        """The box that the heatmap of each of these classes shines on: (len(labels), 4) float32, xyxy pixels."""
        # An image may have many more pixels than maps can tell apart.
        view = View(min(max(size), MAX_PIXELS_PER_VIEW_PIXEL * max(view.scale for view in self.views)))
        fine = view.size(*size)
        if objectness is None:
            boxes = [largest_component_box(heat[label], fine, threshold) for label in labels]
        else:
            boxes = [objectness_box(heat[label], objectness, fine, threshold) for label in labels]
        return view.restore(np.array(boxes, np.float32).reshape(-1, 4), *size)


def _pixels(image: ImageInput) -> NDArray[np.uint8]:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"an array must be (h, w, 3) uint8 RGB, not {image.shape} {image.dtype}")
        return image
    if isinstance(image, Image.Image):
        return to_array(image)
    return read_image(Path(image))


def _mean_of_views(planes: Sequence[torch.Tensor], views: Sequence[View]) -> FloatArray:
    """The mean over the views of what each has, (planes, h, w), turned back."""
    maps = [row.numpy() for row in planes]
    turned = [row[:, :, ::-1] if view.flipped else row for view, row in zip(views, maps, strict=True)]
    # Views differ in resolution; they meet at that of the finest.
    height, width = max(row.shape[1:] for row in turned)
    grids = [[enlarge(np.ascontiguousarray(plane), (width, height)) for plane in row] for row in turned]
    return np.asarray(np.mean(grids, axis=0), np.float32)


def _suppress(
    boxes: torch.Tensor, scores: torch.Tensor, config: InferenceConfig
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    rows, labels = torch.nonzero(scores >= config.min_score, as_tuple=True)
    candidates, values = boxes[rows], scores[rows, labels]
    keep = batched_nms(candidates, values, labels, config.nms)[: config.max_boxes]
    found = vote(boxes, scores, labels[keep], rows[keep]) if config.vote else candidates[keep]
    kept = found.numpy(), values[keep].numpy(), labels[keep].numpy()
    return _without_parts(*kept) if config.parts else kept


def _without_parts(
    boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """The same boxes, the best first, where those that lie within a better one of their class score less.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,), the highest first.
        labels: (N,).
    """
    within = (coverage(boxes, boxes) >= CONTAINED_AREA) & (labels[:, None] == labels)
    # Of a row's columns those before it are the better ones.
    doubted = np.where(np.tril(within, -1).any(axis=1), scores * np.float32(CONTAINED_FACTOR), scores)
    order = np.argsort(-doubted, kind="stable")
    return boxes[order], doubted[order], labels[order]


def confident(detections: Detections) -> Detections:
    """The boxes worth showing a person.

    Multiple-instance scores share one unit among all proposals, so no fixed threshold serves: shown are classes that
    are more likely in the image than not, and of these the boxes that score at least half as much as the class's
    best.
    """
    best = np.zeros(len(detections.classes), np.float32)
    np.maximum.at(best, detections.labels, detections.scores)
    best[detections.image_scores < 0.5] = np.inf
    keep = detections.scores >= best[detections.labels] / 2
    return replace(
        detections, boxes=detections.boxes[keep], scores=detections.scores[keep], labels=detections.labels[keep]
    )


def points_of(heatmaps: Heatmaps) -> FloatArray:
    """The arg-max of every class map, at the centre of its cell: (classes, 2) float32, x and y in image pixels."""
    classes, height, width = heatmaps.maps.shape
    row, column = np.divmod(heatmaps.maps.reshape(classes, -1).argmax(axis=1), width)
    centres = np.stack([(column + 0.5) / width, (row + 0.5) / height], axis=1)
    return np.asarray(centres * heatmaps.size, np.float32)
