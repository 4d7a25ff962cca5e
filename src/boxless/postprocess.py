"""From the outputs of a model to boxes and heatmaps: averages over views, CAM boxes, and the selection of boxes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from boxless.config import InferenceConfig
from boxless.features import View
from boxless.methods import ViewOutput
from boxless.methods.box_ops import box_vote
from boxless.methods.heatmap_boxes import largest_component_box, objectness_box, resize_map
from boxless.metrics.boxes import coverage
from boxless.structures import FloatArray, Heatmaps

CONTAINED_AREA, CONTAINED_FACTOR = 0.8, 0.7
"""A box of which this share of the area lies in a higher-scored one of its class has its score multiplied by the factor
(docs/lab_book)."""

MAX_PIXELS_PER_VIEW_PIXEL = 2
"""CAM boxes are computed in pixels of the image, but no finer than this many pixels per pixel of the view."""

Selected = tuple[FloatArray, FloatArray, NDArray[np.int64]]
"""Boxes (N, 4), scores (N,) and labels (N,), the highest scores first."""


def select_boxes(boxes: torch.Tensor, scores: torch.Tensor, config: InferenceConfig) -> Selected:
    """Suppression by class, box voting and downweighting of contained boxes, as the settings say.

    Args:
        boxes: (N, 4), xyxy pixels.
        scores: (N, classes).
        config: thresholds.
    """
    rows, labels = torch.nonzero(scores >= config.min_score, as_tuple=True)
    candidates, values = boxes[rows], scores[rows, labels]
    keep = batched_nms(candidates, values, labels, config.nms)[: config.max_boxes]
    found = box_vote(boxes, scores, labels[keep], rows[keep]) if config.vote else candidates[keep]
    kept = found.numpy(), values[keep].numpy(), labels[keep].numpy()
    return _downweight_contained(*kept) if config.contained else kept


def _downweight_contained(boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64]) -> Selected:
    contained = (coverage(boxes, boxes) >= CONTAINED_AREA) & (labels[:, None] == labels)
    # Rows are sorted by score: columns before a row's own are the higher-scored boxes.
    inside = np.tril(contained, -1).any(axis=1)
    weighted = np.where(inside, scores * np.float32(CONTAINED_FACTOR), scores)
    order = np.argsort(-weighted, kind="stable")
    return boxes[order], weighted[order], labels[order]


def average_boxes(
    outputs: Sequence[ViewOutput], views: Sequence[View], boxes: FloatArray | None, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (N, 4), xyxy pixels of the image, and scores (N, classes), averaged over the views.

    Args:
        outputs: of every view.
        views: the views.
        boxes: proposals (N, 4), xyxy pixels of the image; None where the outputs have boxes of their own.
        size: width and height of the image in pixels.
    """
    scores = torch.stack([row.proposal_scores for row in outputs if row.proposal_scores is not None]).mean(0)
    moved = [
        view.restore(row.boxes.numpy(), *size)
        for view, row in zip(views, outputs, strict=True)
        if row.boxes is not None
    ]
    final = np.mean(moved, axis=0) if moved else boxes
    assert final is not None
    return torch.from_numpy(final), scores


def average_heatmaps(outputs: Sequence[ViewOutput], views: Sequence[View]) -> tuple[FloatArray, FloatArray | None]:
    """Heatmaps (classes, h, w) and objectness (h, w) where the model has it, averaged over the views."""
    heatmaps = mean_of_views([row.maps for row in outputs if row.maps is not None], views)
    objects = [row.objectness[None] for row in outputs if row.objectness is not None]
    return heatmaps, mean_of_views(objects, views)[0] if objects else None


def cam_boxes(
    heatmaps: FloatArray,
    objectness: FloatArray | None,
    size: tuple[int, int],
    labels: NDArray[np.int64],
    threshold: float,
    views: Sequence[View],
) -> FloatArray:
    """The CAM box of each of these classes: (len(labels), 4) float32, xyxy pixels of the image.

    Args:
        heatmaps: (classes, h, w), spanning the image.
        objectness: (h, w), log odds, or None.
        size: width and height of the image in pixels.
        labels: the classes.
        threshold: fraction of a heatmap's maximum.
        views: that the heatmaps come from.
    """
    # An image may have many more pixels than maps resolve.
    view = View(min(max(size), MAX_PIXELS_PER_VIEW_PIXEL * max(view.scale for view in views)))
    fine = view.size(*size)
    if objectness is None:
        boxes = [largest_component_box(heatmaps[label], fine, threshold) for label in labels]
    else:
        boxes = [objectness_box(heatmaps[label], objectness, fine, threshold) for label in labels]
    return view.restore(np.array(boxes, np.float32).reshape(-1, 4), *size)


def mean_of_views(planes: Sequence[torch.Tensor], views: Sequence[View]) -> FloatArray:
    """The mean over the views of their maps (planes, h, w), mirrored ones mirrored back, at the finest resolution."""
    maps = [row.numpy() for row in planes]
    turned = [row[:, :, ::-1] if view.flipped else row for view, row in zip(views, maps, strict=True)]
    height, width = max(row.shape[1:] for row in turned)
    grids = [[resize_map(np.ascontiguousarray(plane), (width, height)) for plane in row] for row in turned]
    return np.asarray(np.mean(grids, axis=0), np.float32)


def points_of(heatmaps: Heatmaps) -> FloatArray:
    """The arg-max of every class map, at the centre of its cell: (classes, 2) float32, x and y in image pixels."""
    classes, height, width = heatmaps.maps.shape
    row, column = np.divmod(heatmaps.maps.reshape(classes, -1).argmax(axis=1), width)
    centres = np.stack([(column + 0.5) / width, (row + 0.5) / height], axis=1)
    return np.asarray(centres * heatmaps.size, np.float32)
