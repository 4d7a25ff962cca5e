"""Images -> Detections and Heatmaps."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from boxless.config import Config
from boxless.devices import default_device, full_width, one_thread_per_image
from boxless.features import Batch, FeatureStore, Item, View, collate, views_of
from boxless.files import expand_user
from boxless.images import read_image
from boxless.inputs import ImageInput, to_rgb
from boxless.methods import BoxSupervised, FastRCNN, HeatmapModel, ViewOutput
from boxless.methods.box_ops import box_vote, paired_iou
from boxless.methods.cam import DEFAULT_THRESHOLD
from boxless.methods.heatmap_boxes import proposal_heatmap
from boxless.parallel import map_images, map_threads
from boxless.postprocess import average_boxes, average_heatmaps, cam_boxes, select_boxes
from boxless.progress import progress_bars
from boxless.proposals import propose
from boxless.run_folder import Network, load_network, read_config, read_manifest
from boxless.structures import Detections, FloatArray, Heatmaps

HEATMAP_CELLS = 128
"""Most cells a side of a heatmap made of boxes."""
RESCORING_FLOOR = 0.5
"""Factor of the scores of a class whose best box does not overlap its CAM box at all; it rises to 1 with their IoU."""
RESCORING_MIN_SCORE = 0.01
"""Classes below this image-level score get `RESCORING_FLOOR` without computing their CAM boxes, which saves time."""
COARSE_STEP, FINE_IOU = 4, 0.4
"""To find the box of a given class, every `COARSE_STEP`-th proposal is scored first, and then those of this IoU with
the best of them."""

Images = list[Any] | tuple[Any, ...]
"""A list of `ImageInput`."""

T = TypeVar("T")


class Scored(NamedTuple):
    """The scores of one image, averaged over its views.

    Args:
        image_scores: (classes,) float32, image-level scores.
        boxes: (N, 4), xyxy pixels of the image; None for models whose boxes are drawn around heatmaps.
        scores: (N, classes), likewise.
        heatmaps: (classes, h, w), of those models; None for the others.
        objectness: (h, w), log odds, or None.
    """

    image_scores: FloatArray
    boxes: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    heatmaps: FloatArray | None = None
    objectness: FloatArray | None = None


class Detector:
    """A trained detector.

    >>> detector = Detector.load("runs/first")  # doctest: +SKIP
    >>> detector.predict("street.jpg").names  # doctest: +SKIP
    ['bus', 'person']

    Args:
        network: its weights.
        config: of its run.
        classes: class names.
        device: where it runs.
        name: used in exports; that of its run folder where it has one.
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
        self.proposals = config.proposals if config.head.scores_proposals else None

    @classmethod
    def load(cls, run: str | os.PathLike[str], device: str | torch.device | None = None) -> "Detector":
        """Load a run folder; nothing is downloaded.

        Args:
            run: the folder.
            device: where to run, such as `cuda:1`; by default what accelerate finds.

        Raises:
            BoxlessError: it is not a run folder, an unfinished one, or of another version.
        """
        folder = expand_user(run)
        manifest, config = read_manifest(folder), read_config(folder)
        network = load_network(folder, config, manifest)
        where = default_device() if device is None else torch.device(device)
        return cls(network, config, manifest["classes"], where, folder.resolve().name)

    def with_views(self, views: Sequence[View]) -> "Detector":
        """The same detector with other test views."""
        other = copy.copy(self)
        other.views = tuple(views)
        return other

    @overload
    def predict(self, images: ImageInput, threshold: float | None = ..., *, progress: bool = ...) -> Detections: ...
    @overload
    def predict(self, images: Images, threshold: float | None = ..., *, progress: bool = ...) -> list[Detections]: ...
    def predict(
        self, images: ImageInput | Images, threshold: float | None = None, *, progress: bool = True
    ) -> Detections | list[Detections]:
        """Detect objects in one image or in a list of images.

        Args:
            images: a path, an RGB array (h, w, 3) uint8, a Pillow image, a tensor (3, h, w) or an open file, see
                `inputs.to_rgb`; or a list of them, which is processed in parallel.
            threshold: least score of a box; None gives the confident boxes (`Detections.confident`), 0 all.
            progress: whether a list gets a progress bar.

        Returns:
            Detections for one image, a list in the same order for a list.

        Raises:
            ImageError: an image cannot be read or is of another type.
        """

        def detect(image: ImageInput) -> Detections:
            found = self._detections(*self._score_pixels(to_rgb(image)))
            return found.confident() if threshold is None else found.above(threshold)

        return self._for_each(detect, images, "Predict", progress)

    @overload
    def heatmap(self, images: ImageInput, *, progress: bool = ...) -> Heatmaps: ...
    @overload
    def heatmap(self, images: Images, *, progress: bool = ...) -> list[Heatmaps]: ...
    def heatmap(self, images: ImageInput | Images, *, progress: bool = True) -> Heatmaps | list[Heatmaps]:
        """Class heatmaps of one image or of a list of images, as `predict` takes them.

        Raises:
            ImageError: an image cannot be read or is of another type.
        """
        return self._for_each(
            lambda image: self._heatmaps(*self._score_pixels(to_rgb(image))), images, "Heatmaps", progress
        )

    def predict_with_heatmaps(self, image: ImageInput) -> tuple[Detections, Heatmaps]:
        """All boxes and the heatmaps of one image, from one pass through the network."""
        scored, size = self._score_pixels(to_rgb(image))
        return self._detections(scored, size), self._heatmaps(scored, size)

    def predict_files(
        self, files: Sequence[Path], skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, NDArray[np.uint8], Detections]]:
        """Yield file, pixels (h, w, 3) and all boxes of image files, in order and in parallel.

        The results do not depend on the number of images and cores.

        Args:
            files: image files.
            skipped: receives the files that cannot be read -> reason.
        """

        def work(path: Path) -> tuple[NDArray[np.uint8], Detections]:
            pixels = read_image(path)
            return pixels, self._detections(*self._score_pixels(pixels))

        for path, (pixels, found) in self._map_files(work, files, "Predict", skipped):
            yield path, pixels, found

    def heatmap_files(
        self, files: Sequence[Path], skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, NDArray[np.uint8], Detections, Heatmaps]]:
        """As `predict_files`, with heatmaps."""

        def work(path: Path) -> tuple[NDArray[np.uint8], Detections, Heatmaps]:
            pixels = read_image(path)
            return pixels, *self.predict_with_heatmaps(pixels)

        for path, results in self._map_files(work, files, "Heatmaps", skipped):
            yield path, *results

    def postprocess(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> tuple[Detections, Heatmaps]:
        """From the feature maps of every test view to boxes and heatmaps.

        Scores are means over the views (WSDDN sums them, which ranks the same). Scores of a head trained on pseudo
        labels are rescored by the IoU of its best box of the class and the CAM box.

        Args:
            maps: one a view, (C, h, w).
            boxes: proposals (N, 4), xyxy pixels of the image, for methods that use them.
            size: width and height of the image in pixels.
        """
        scored = self._score(maps, boxes, size)
        return self._detections(scored, size), self._heatmaps(scored, size)

    def boxes_for_labels(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int], labels: Sequence[int]
    ) -> FloatArray:
        """The best box of each class that is known to be in the image.

        Args:
            maps, boxes, size: as for `postprocess`.
            labels: the classes.

        Returns:
            (len(labels), 4) float32, xyxy pixels of the image.
        """
        wanted = np.array(labels, np.int64)
        if isinstance(self.model, FastRCNN) and boxes is not None and len(wanted):
            candidates = self._coarse_to_fine(self.model, maps, boxes, size, wanted)
        else:
            outputs = self._outputs(maps, boxes, size)
            if outputs[0].proposal_scores is None:
                return cam_boxes(*average_heatmaps(outputs, self.views), size, wanted, self._threshold, self.views)
            candidates = average_boxes(outputs, self.views, boxes, size)
        return box_vote(*candidates, torch.from_numpy(wanted)).numpy()

    def cam_boxes_at(
        self, maps: Sequence[torch.Tensor], size: tuple[int, int], labels: Sequence[int], thresholds: Sequence[float]
    ) -> list[FloatArray]:
        """The CAM boxes of each of these classes at each threshold: (len(labels), 4) float32, xyxy pixels, each.

        Args:
            maps, size: as for `postprocess`.
            labels: the classes.
            thresholds: fractions of a heatmap's maximum.
        """
        heatmaps, objectness = average_heatmaps(self._outputs(maps, None, size), self.views)
        wanted = np.array(labels, np.int64)
        return [cam_boxes(heatmaps, objectness, size, wanted, threshold, self.views) for threshold in thresholds]

    def _for_each(
        self,
        work: Callable[[ImageInput], T],
        images: ImageInput | Images,
        description: str,
        progress: bool,
    ) -> T | list[T]:
        if not isinstance(images, list | tuple):
            return work(images)
        with (
            progress_bars(progress),
            one_thread_per_image(self.device) as threads,
            full_width(self.device),
            closing(map_threads(work, images, description, threads)) as results,
        ):
            return list(results)

    def _map_files(
        self, work: Callable[[Path], T], files: Sequence[Path], description: str, skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, T]]:
        with (
            one_thread_per_image(self.device) as threads,
            full_width(self.device),
            closing(map_images(work, files, description, threads, skipped)) as results,
        ):
            yield from results

    def _score_pixels(self, pixels: NDArray[np.uint8]) -> tuple[Scored, tuple[int, int]]:
        size = pixels.shape[1], pixels.shape[0]
        boxes = propose(pixels, self.proposals) if self.proposals else None
        with full_width(self.device):
            return self._score([self.features.extract(pixels, view) for view in self.views], boxes, size), size

    def _score(self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]) -> Scored:
        outputs = self._outputs(maps, boxes, size)
        image_scores = np.mean([view.image_scores.numpy() for view in outputs], axis=0)
        if outputs[0].proposal_scores is None:
            heatmaps, objectness = average_heatmaps(outputs, self.views)
            return Scored(image_scores, heatmaps=heatmaps, objectness=objectness)
        final, scores = average_boxes(outputs, self.views, boxes, size)
        if self.config.uses_pseudo_labels:
            scores = scores * self._rescoring(outputs, image_scores, final, scores, size)
        return Scored(image_scores, final, scores)

    def _detections(self, scored: Scored, size: tuple[int, int]) -> Detections:
        limits, image_scores = self.config.inference, scored.image_scores
        if scored.boxes is not None and scored.scores is not None:
            found = select_boxes(scored.boxes, scored.scores, limits)
        else:
            assert scored.heatmaps is not None
            labels = np.argsort(-image_scores, kind="stable")
            labels = labels[image_scores[labels] >= limits.min_score][: limits.max_boxes]
            boxes = cam_boxes(scored.heatmaps, scored.objectness, size, labels, self._threshold, self.views)
            found = boxes, image_scores[labels].astype(np.float32), labels.astype(np.int64)
        return Detections(*found, self.classes, size, image_scores.astype(np.float32))

    def _heatmaps(self, scored: Scored, size: tuple[int, int]) -> Heatmaps:
        maps = scored.heatmaps
        if scored.boxes is not None and scored.scores is not None:
            cell = max(8, max(size) / HEATMAP_CELLS)
            maps = proposal_heatmap(scored.boxes.numpy(), scored.scores.numpy(), size, cell)
        assert maps is not None
        return Heatmaps(maps, self.classes, size)

    def _coarse_to_fine(
        self,
        model: FastRCNN,
        maps: Sequence[torch.Tensor],
        boxes: FloatArray,
        size: tuple[int, int],
        labels: NDArray[np.int64],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `average_boxes`, for the proposals near the best box of each class.

        A head trained on boxes scores all proposals around an object well, so that a few of them find it: a third of
        the time, and the same accuracy (docs/lab_book).
        """
        with torch.inference_mode():
            views = [model.prepare_views(batch) for batch in self._batches(maps, None, size)]

        def scored(some: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
            rows = [torch.from_numpy(view.boxes(some, *size)).to(self.device) for view in self.views]
            with torch.inference_mode():
                pairs = zip(views, rows, strict=True)
                outputs = [output for own, row in pairs for output in model.score_proposals(own, [row])]
            return average_boxes([output.cpu() for output in outputs], self.views, some, size)

        moved, scores = scored(boxes[::COARSE_STEP])
        best = scores[:, labels].argmax(dim=0)
        near = box_iou(torch.from_numpy(boxes), moved[best]) >= FINE_IOU
        near[best * COARSE_STEP] = True
        return scored(boxes[near.any(dim=1).numpy()])

    def _rescoring(
        self,
        outputs: Sequence[ViewOutput],
        image_scores: FloatArray,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """Factors of the scores by the IoU of each class's best box and its CAM box: (classes,)."""
        labels = np.flatnonzero(image_scores >= RESCORING_MIN_SCORE)
        # In pixels of a view, as an image may have many more.
        view = View(max(view.scale for view in self.views))
        heatmaps, objectness = average_heatmaps(outputs, self.views)
        boxes_of_cam = cam_boxes(heatmaps, objectness, view.size(*size), labels, self._threshold, self.views)
        rows = torch.from_numpy(labels)
        overlaps = torch.zeros(len(image_scores))
        best = box_vote(boxes, scores, rows)
        overlaps[rows] = paired_iou(best, torch.from_numpy(view.restore(boxes_of_cam, *size)))
        return RESCORING_FLOOR + (1 - RESCORING_FLOOR) * overlaps

    @property
    def _threshold(self) -> float:
        assert isinstance(self.model, HeatmapModel | BoxSupervised)
        return float(self.model.threshold.nan_to_num(DEFAULT_THRESHOLD))

    def _outputs(
        self, maps: Sequence[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> list[ViewOutput]:
        """The model's output for every test view, on the CPU."""
        with torch.inference_mode():
            batches = self._batches(maps, boxes, size)
            outputs: list[ViewOutput] = [output for batch in batches for output in self.model(batch)]
        return [output.cpu() for output in outputs]

    def _batches(
        self, maps: Iterable[torch.Tensor], boxes: FloatArray | None, size: tuple[int, int]
    ) -> Iterator[Batch]:
        """Every test view as a batch of its own."""
        for view, features in zip(self.views, maps, strict=True):
            width, height = view.size(*size)
            moved = None if boxes is None else torch.from_numpy(view.boxes(boxes, *size))
            yield collate([Item(features, (height, width), moved)]).to(self.device)
