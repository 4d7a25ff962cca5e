"""Images -> Detections and Heatmaps, by whatever gives the outputs of a network: a run folder or an exported file."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from boxless.calibration import Calibration
from boxless.errors import ImageError
from boxless.heatmap_boxes import proposal_heatmap
from boxless.images import read_image
from boxless.inputs import ImageInput, to_rgb
from boxless.parallel import in_order, map_images, map_threads
from boxless.postprocess import (
    Scored,
    Selection,
    ViewArrays,
    average_boxes,
    average_heatmaps,
    average_image_scores,
    cam_boxes,
    select_boxes,
)
from boxless.progress import progress_bars
from boxless.proposals.generate import Proposing, propose
from boxless.structures import Detections, FloatArray, Heatmaps
from boxless.views import View

HEATMAP_CELLS = 128
"""Most cells a side of a heatmap made of boxes."""

Images = list[Any] | tuple[Any, ...]
"""A list of `ImageInput`."""

T = TypeVar("T")


class Predictor(ABC):
    """What predicts: `Detector` runs the network of a run folder, `runtime.Runtime` an exported file.

    Subclasses set the attributes and define the abstract methods.
    """

    name: str
    """Used in exports: that of the run folder or of the file."""
    method: str
    """Name of the method that it was trained by."""
    supervision: str
    """What it was trained on."""
    untrusted: Mapping[str, float] = MappingProxyType({})
    """Classes whose boxes may be wrong, by `trust`."""
    classes: tuple[str, ...]
    """Class names."""
    views: tuple[View, ...]
    """Test views; outputs are averaged over them."""
    selection: Selection
    """How boxes are selected."""
    proposals: Proposing | None
    """Settings of the region proposals that are scored; None for methods that score map cells."""
    calibration: Calibration | None = None
    """Maps box scores to the probability that the image has the class; None if uncalibrated."""

    @property
    def cam_threshold(self) -> float:
        """Fraction of a heatmap's maximum from which a location belongs to the object.

        Only models whose boxes are drawn around heatmaps have one.
        """
        raise NotImplementedError

    @abstractmethod
    def outputs(self, pixels: NDArray[np.uint8], boxes: FloatArray | None) -> list[ViewArrays]:
        """The output of the network for every view of an image.

        Args:
            pixels: (h, w, 3) uint8, RGB.
            boxes: proposals (N, 4), xyxy pixels of the image, for methods that score them.
        """

    @abstractmethod
    def in_parallel(self) -> AbstractContextManager[int]:
        """A context for many images; yields how many are processed at once."""

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
            found = self._detect(to_rgb(image))
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

        def draw(image: ImageInput) -> Heatmaps:
            return self._heatmaps(self._score_pixels(to_rgb(image)))

        return self._for_each(draw, images, "Heatmaps", progress)

    def predict_with_heatmaps(self, image: ImageInput) -> tuple[Detections, Heatmaps]:
        """All boxes and the heatmaps of one image, from one pass through the network."""
        scored = self._score_pixels(to_rgb(image))
        return self._detections(scored), self._heatmaps(scored)

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
            return pixels, self._detect(pixels)

        for path, (pixels, found) in self._map_files(work, files, "Predict", skipped):
            yield path, pixels, found

    def predict_each(
        self, items: Iterable[T], read: Callable[[T], NDArray[np.uint8]], threads: int | None
    ) -> Generator[Detections | ImageError, None, None]:
        """Yield all boxes of every image, or why it cannot be read, in order and in parallel.

        Args:
            items: what `read` takes, a few more than are worked on at a time.
            read: gives the pixels (h, w, 3) uint8 of an item, or raises `ImageError`.
            threads: how many images are worked on at once; None is one a core, or as many as keep a GPU busy.
        """

        def work(item: T) -> Detections | ImageError:
            try:
                pixels = read(item)
            except ImageError as error:
                return error
            return self._detect(pixels)

        with self.in_parallel() as most, closing(in_order(work, items, threads or most)) as results:
            yield from results

    def heatmap_files(
        self, files: Sequence[Path], skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, NDArray[np.uint8], Detections, Heatmaps]]:
        """As `predict_files`, with heatmaps."""

        def work(path: Path) -> tuple[NDArray[np.uint8], Detections, Heatmaps]:
            pixels = read_image(path)
            return pixels, *self.predict_with_heatmaps(pixels)

        for path, results in self._map_files(work, files, "Heatmaps", skipped):
            yield path, *results

    def _for_each(
        self, work: Callable[[ImageInput], T], images: ImageInput | Images, description: str, progress: bool
    ) -> T | list[T]:
        if not isinstance(images, list | tuple):
            return work(images)
        with (
            progress_bars(progress),
            self.in_parallel() as threads,
            closing(map_threads(work, images, description, threads)) as results,
        ):
            return list(results)

    def _map_files(
        self, work: Callable[[Path], T], files: Sequence[Path], description: str, skipped: dict[Path, str]
    ) -> Iterator[tuple[Path, T]]:
        with (
            self.in_parallel() as threads,
            closing(map_images(work, files, description, threads, skipped)) as results,
        ):
            yield from results

    def _detect(self, pixels: NDArray[np.uint8]) -> Detections:
        return self._detections(self._score_pixels(pixels))

    def _score_pixels(self, pixels: NDArray[np.uint8]) -> Scored:
        boxes = propose(pixels, self.proposals) if self.proposals else None
        return self._scored(self.outputs(pixels, boxes), boxes, (pixels.shape[1], pixels.shape[0]))

    def _scored(self, outputs: Sequence[ViewArrays], boxes: FloatArray | None, size: tuple[int, int]) -> Scored:
        """The outputs of every view as those of the image.

        Args:
            outputs: one a view.
            boxes: proposals (N, 4), xyxy pixels of the image, for methods that use them.
            size: width and height of the image in pixels.
        """
        image_scores = average_image_scores(outputs)
        if outputs[0].proposal_scores is None:
            heatmaps, objectness = average_heatmaps(outputs, self.views)
            return Scored(image_scores, size, heatmaps=heatmaps, objectness=objectness)
        return Scored(image_scores, size, *average_boxes(outputs, self.views, boxes, size))

    def _detections(self, scored: Scored) -> Detections:
        limits, image_scores, size = self.selection, scored.image_scores, scored.size
        if scored.boxes is not None and scored.scores is not None:
            found = select_boxes(scored.boxes, scored.scores, limits)
        else:
            assert scored.heatmaps is not None
            labels = np.argsort(-image_scores, kind="stable")
            labels = labels[image_scores[labels] >= limits.min_score][: limits.max_boxes]
            boxes = cam_boxes(scored.heatmaps, scored.objectness, size, labels, self.cam_threshold, self.views)
            found = boxes, image_scores[labels].astype(np.float32), labels.astype(np.int64)
        detections = Detections(*found, self.classes, size, image_scores.astype(np.float32))
        return detections if self.calibration is None else self.calibration.apply(detections)

    def _heatmaps(self, scored: Scored) -> Heatmaps:
        maps, size = scored.heatmaps, scored.size
        if scored.boxes is not None and scored.scores is not None:
            cell = max(8, max(size) / HEATMAP_CELLS)
            maps = proposal_heatmap(scored.boxes, scored.scores, size, cell)
        assert maps is not None
        return Heatmaps(maps, self.classes, size)
