"""Pictures -> Detections and Heatmaps."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import batched_nms

from boxless.config import Config, InferenceConfig, LocalizerConfig
from boxless.errors import PictureError
from boxless.features import FeatureStore, Item, View, collate, views_of
from boxless.methods import Evidence
from boxless.methods.mining import enlarge, largest_component_box, proposal_heatmap
from boxless.pictures import read_picture, to_array
from boxless.progress import track
from boxless.proposals import propose
from boxless.runs import Network, load_network, read_config, read_manifest
from boxless.structures import Detections, FloatArray, Heatmaps

Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image


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
        self.proposals = config.proposals if config.head.kind == "detector" else None

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

    def predict(self, picture: Picture) -> Detections:
        """Boxes in one picture: a file, an RGB array (h, w, 3) uint8, or a Pillow image.

        Raises:
            PictureError: the picture cannot be read.
        """
        return self.look(picture)[0]

    def heatmap(self, picture: Picture) -> Heatmaps:
        """Class heatmaps of one picture: a file, an RGB array (h, w, 3) uint8, or a Pillow image.

        Raises:
            PictureError: the picture cannot be read.
        """
        return self.look(picture)[1]

    def look(self, picture: Picture) -> tuple[Detections, Heatmaps]:
        """Both boxes and heatmaps, for the price of one."""
        pixels = _pixels(picture)
        boxes = propose(pixels, self.proposals) if self.proposals else None
        maps = [self.features.extract(pixels, view) for view in self.views]
        return self.decide(maps, boxes, (pixels.shape[1], pixels.shape[0]))

    def look_all(
        self, pictures: Sequence[Path], skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, NDArray[np.uint8], Detections, Heatmaps]]:
        """Walk over picture files behind a progress bar, one at a time in memory.

        Args:
            pictures: files.
            skipped: takes up the files that cannot be read -> reason.
        """
        for path in track(pictures, "Predict", len(pictures)):
            try:
                pixels = read_picture(path)
            except PictureError as error:
                skipped[path] = str(error)
                continue
            yield path, pixels, *self.look(pixels)

    def decide(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> tuple[Detections, Heatmaps]:
        """From the feature maps of every test view to boxes and heatmaps.

        Scores are means over the views (WSDDN sums them, which ranks the same).

        Args:
            maps: one a view, (C, h, w).
            boxes: proposals (N, 4), xyxy pixels of the picture, for methods that use them.
            size: width and height of the picture in pixels.
        """
        evidence = [self._evidence(view, row, boxes, size) for view, row in zip(self.views, maps, strict=True)]
        image_scores = np.mean([view.image_scores.numpy() for view in evidence], axis=0)
        if boxes is not None:
            scores = torch.stack([row.proposal_scores for row in evidence if row.proposal_scores is not None]).mean(0)
            moved = [
                view.restore(row.boxes.numpy(), *size)
                for view, row in zip(self.views, evidence, strict=True)
                if row.boxes is not None
            ]
            final = np.mean(moved, axis=0) if moved else boxes
            found = _suppress(torch.from_numpy(final), scores, self.config.inference)
            heat = proposal_heatmap(final, scores.numpy(), size)
        else:
            heat = _merged_maps(evidence, self.views)
            found = self._boxes_of_maps(heat, image_scores, size)
        return (
            Detections(*found, self.classes, size, image_scores.astype(np.float32)),
            Heatmaps(heat, self.classes, size),
        )

    def _evidence(
        self, view: View, features: torch.Tensor, boxes: FloatArray | None, size: tuple[int, int]
    ) -> Evidence:
        width, height = view.size(*size)
        moved = None if boxes is None else torch.from_numpy(view.boxes(boxes, *size))
        with torch.inference_mode():
            evidence: Evidence = self.model(collate([Item(features, (height, width), moved)]).to(self.device))[0]
        return Evidence(
            evidence.image_scores.float().cpu(),
            None if evidence.proposal_scores is None else evidence.proposal_scores.float().cpu(),
            None if evidence.maps is None else evidence.maps.float().cpu(),
            None if evidence.boxes is None else evidence.boxes.float().cpu(),
        )

    def _boxes_of_maps(
        self, heat: FloatArray, scores: FloatArray, size: tuple[int, int]
    ) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
        assert isinstance(self.config.head, LocalizerConfig)
        labels = np.argsort(-scores, kind="stable")
        labels = labels[scores[labels] >= self.config.inference.min_score][: self.config.inference.max_boxes]
        boxes = [largest_component_box(heat[label], size, self.config.head.threshold) for label in labels]
        return np.array(boxes, np.float32).reshape(-1, 4), scores[labels].astype(np.float32), labels.astype(np.int64)


def _pixels(picture: Picture) -> NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise PictureError(f"an array must be (h, w, 3) uint8 RGB, not {picture.shape} {picture.dtype}")
        return picture
    if isinstance(picture, Image.Image):
        return to_array(picture)
    return read_picture(Path(picture))


def _merged_maps(evidence: Sequence[Evidence], views: Sequence[View]) -> FloatArray:
    maps = [view.maps.numpy() for view in evidence if view.maps is not None]
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
    return candidates[keep].numpy(), values[keep].numpy(), labels[keep].numpy()


def confident(detections: Detections) -> Detections:
    """The boxes worth showing a person.

    Multiple-instance scores share one unit among all proposals, so no fixed threshold serves: shown are classes that
    are more likely in the picture than not, and of these the boxes that score at least half as much as the class's
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
    """The arg-max of every class map, at the centre of its cell: (classes, 2) float32, x and y in picture pixels."""
    classes, height, width = heatmaps.maps.shape
    row, column = np.divmod(heatmaps.maps.reshape(classes, -1).argmax(axis=1), width)
    centres = np.stack([(column + 0.5) / width, (row + 0.5) / height], axis=1)
    return np.asarray(centres * heatmaps.size, np.float32)
