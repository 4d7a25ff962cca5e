"""Images -> Detections and Heatmaps."""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from boxless.cached_dataset import CachedDataset
from boxless.calibration import manifest_calibration
from boxless.config import Config, ProposalConfig
from boxless.devices import default_device, find_device, full_width, one_thread_per_image, views_at_once
from boxless.features import FeatureStore, Item, collate
from boxless.files import expand_user
from boxless.hub import fetch
from boxless.methods import FastRCNN, ViewOutput
from boxless.methods.cam import DEFAULT_THRESHOLD
from boxless.network import Network, load_network
from boxless.np_box_ops import iou
from boxless.postprocess import Selection, ViewArrays, average_boxes, average_heatmaps, box_vote, cam_boxes
from boxless.predictor import Predictor
from boxless.run_folder import MANIFEST, read_config, read_manifest, read_training_images
from boxless.run_path import on_hub
from boxless.structures import Detections, FloatArray, Heatmaps, IntArray
from boxless.trust import untrusted_classes
from boxless.views import View, views_of

COARSE_STEP, FINE_IOU = 4, 0.4
"""To find the box of a given class, every `COARSE_STEP`-th proposal is scored first, and then those of this IoU with
the best of them."""


class CachedImage(NamedTuple):
    """What a detector reads of an image; see `Detector.read`.

    Args:
        maps: the feature maps of every test view, (C, h, w).
        proposals: (N, 4) float32, xyxy pixels of the image; None for methods that score map cells.
        size: width and height of the image in pixels.
    """

    maps: Sequence[torch.Tensor]
    proposals: FloatArray | None
    size: tuple[int, int]


class Detector(Predictor):
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

    proposals: ProposalConfig | None

    def __init__(
        self, network: Network, config: Config, classes: Sequence[str], device: torch.device, name: str = "boxless"
    ) -> None:
        self.name = name
        self.config = config
        self.method, self.selection = config.method, Selection(**config.inference.model_dump(exclude={"views"}))
        self.supervision: str = config.supervision
        """What it was trained on; of a loaded run as its manifest says, where boxes may be given beside tags."""
        self.training_images: frozenset[str] | None = None
        """Content keys of the images that a loaded run was trained on; None if unknown."""
        self.classes = tuple(classes)
        self.views = views_of(config.test_views)
        self.device = device
        self.features = FeatureStore(network.backbone, network.frozen, config.backbone, device)
        self.model = network.model.to(device).eval()
        # None for methods that score map cells rather than proposals.
        self.proposals = config.proposals if config.head.scores_proposals else None

    @classmethod
    def load(cls, run: str | os.PathLike[str], device: str | torch.device | None = None) -> "Detector":
        """Load a run folder; nothing is downloaded, unless it is on the Hugging Face Hub.

        Args:
            run: the folder, or `hf://OWNER/NAME` for a run that `boxless push` has uploaded, see `hub`.
            device: where to run, such as `cuda:1`; by default what accelerate finds.

        Raises:
            BoxlessError: it is not a run folder, an unfinished one, of another version, or cannot be downloaded; or
                there is no such device.
        """
        model = on_hub(run)
        folder = expand_user(run) if model is None else fetch(model)
        manifest, config = read_manifest(folder), read_config(folder)
        network = load_network(folder, config, manifest)
        where = default_device() if device is None else find_device(device)
        name = folder.resolve().name if model is None else model.repo.rpartition("/")[2]
        detector = cls(network, config, manifest["classes"], where, name)
        detector.supervision, detector.untrusted = manifest["supervision"], untrusted_classes(manifest)
        detector.training_images = read_training_images(folder)
        detector.calibration = manifest_calibration(folder / MANIFEST, manifest)
        return detector

    def with_views(self, views: Sequence[View]) -> "Detector":
        """The same detector with other test views."""
        other = copy.copy(self)
        other.views = tuple(views)
        return other

    def read(self, data: CachedDataset, row: int) -> CachedImage:
        """What the detector reads of an image of a dataset, which has the maps of its test views."""
        return CachedImage(
            data.maps(row, self.views), data.proposals_of(row) if self.proposals else None, data.sizes[row]
        )

    def postprocess(self, image: CachedImage) -> Detections:
        """From the feature maps of every test view to boxes.

        Scores are means over the views (WSDDN sums them, which ranks the same).
        """
        return self._detections(self._scored(self.view_outputs(image), image.proposals, image.size))

    def postprocess_with_heatmaps(self, images: Sequence[CachedImage]) -> list[tuple[Detections, Heatmaps]]:
        """`postprocess` for several images, whose views go through the network in batches where the device gains."""
        results = []
        for image, outputs in zip(images, self._outputs_of(images), strict=True):
            scored = self._scored(outputs, image.proposals, image.size)
            results.append((self._detections(scored), self._heatmaps(scored)))
        return results

    def class_scores(self, image: CachedImage) -> FloatArray:
        """The best score of a box of each class before calibration, by methods that score boxes: (classes,) float32."""
        scored = self._scored(self.view_outputs(image), image.proposals, image.size)
        assert scored.scores is not None
        return np.asarray(scored.scores.max(axis=0, initial=0), np.float32)

    def boxes_for_labels(self, image: CachedImage, labels: IntArray) -> FloatArray:
        """The best box of each class that is known to be in the image.

        Args:
            image: its maps and proposals.
            labels: the classes (L,) int64.

        Returns:
            (L, 4) float32, xyxy pixels of the image.
        """
        if not len(labels):
            return np.zeros((0, 4), np.float32)
        if isinstance(self.model, FastRCNN) and image.proposals is not None:
            return box_vote(*self._coarse_to_fine(self.model, image, image.proposals, labels), labels)
        outputs = self.view_outputs(image)
        if outputs[0].proposal_scores is None:
            maps = average_heatmaps(outputs, self.views)
            return cam_boxes(*maps, image.size, labels, self.cam_threshold, self.views)
        return box_vote(*average_boxes(outputs, self.views, image.proposals, image.size), labels)

    def view_outputs(self, image: CachedImage) -> list[ViewArrays]:
        """The model's output for every test view."""
        return self._outputs_of([image])[0]

    @contextmanager
    def in_parallel(self) -> Iterator[int]:
        """See `Predictor`."""
        with one_thread_per_image(self.device) as threads, full_width(self.device):
            yield threads

    def outputs(self, pixels: NDArray[np.uint8], boxes: FloatArray | None) -> list[ViewArrays]:
        """See `Predictor`."""
        with full_width(self.device):
            maps = dict(self.features.extract_all([(pixels, view) for view in self.views]))
            rows = [maps[number] for number in range(len(self.views))]
            return self.view_outputs(CachedImage(rows, boxes, (pixels.shape[1], pixels.shape[0])))

    def _coarse_to_fine(
        self, model: FastRCNN, image: CachedImage, proposals: FloatArray, labels: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """As `average_boxes`, for the proposals near the best box of each class.

        A head trained on boxes scores all proposals around an object well, so that a few of them find it: a third of
        the time, and the same accuracy (docs/lab_book).
        """
        with torch.inference_mode():
            items = self._items(image._replace(proposals=None))
            views = [model.prepare_views(collate([item]).to(self.device)) for item in items]

        def scored(some: FloatArray) -> tuple[FloatArray, FloatArray]:
            rows = [torch.from_numpy(view.boxes(some, *image.size)).to(self.device) for view in self.views]
            with torch.inference_mode():
                pairs = zip(views, rows, strict=True)
                outputs = [output for view, row in pairs for output in model.score_proposals(view, [row])]
            return average_boxes([output.numpy() for output in outputs], self.views, some, image.size)

        moved, scores = scored(proposals[::COARSE_STEP])
        best = scores[:, labels].argmax(axis=0)
        near = iou(proposals, moved[best]) >= FINE_IOU
        near[best * COARSE_STEP] = True
        return scored(proposals[near.any(axis=1)])

    @property
    def cam_threshold(self) -> float:
        """See `Predictor`; the default until objectness is fitted, and of heads with heatmaps and no threshold."""
        threshold = getattr(self.model, "threshold", torch.tensor(torch.nan))
        return float(threshold.nan_to_num(DEFAULT_THRESHOLD))

    def _outputs_of(self, images: Sequence[CachedImage]) -> list[list[ViewArrays]]:
        """The model's output for every test view of every image."""
        items = [item for image in images for item in self._items(image)]
        found: dict[int, ViewArrays] = {}
        with torch.inference_mode():
            for numbers in views_at_once([item.size for item in items], self.device):
                outputs: list[ViewOutput] = self.model(collate([items[number] for number in numbers]).to(self.device))
                found |= {number: output.numpy() for number, output in zip(numbers, outputs, strict=True)}
        rows = range(0, len(items), len(self.views))
        return [[found[number] for number in range(first, first + len(self.views))] for first in rows]

    def _items(self, image: CachedImage) -> Iterator[Item]:
        for view, features in zip(self.views, image.maps, strict=True):
            width, height = view.size(*image.size)
            moved = None if image.proposals is None else torch.from_numpy(view.boxes(image.proposals, *image.size))
            yield Item(features, (height, width), moved)
