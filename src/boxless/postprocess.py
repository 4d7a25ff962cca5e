"""From the outputs of a network to boxes and heatmaps: averages over views, CAM boxes, and the selection of boxes.

Arrays alone: trained networks and exported files (`boxless.runtime`) share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxless.heatmap_boxes import largest_component_box, objectness_box, resize_map
from boxless.np_box_ops import iou
from boxless.structures import FloatArray, Heatmaps
from boxless.views import View

MAX_PIXELS_PER_VIEW_PIXEL = 2
"""CAM boxes are computed in pixels of the image, but no finer than this many pixels per pixel of the view."""

Selected = tuple[FloatArray, FloatArray, NDArray[np.int64]]
"""Boxes (N, 4), scores (N,) and labels (N,), the highest scores first."""


@dataclass(frozen=True)
class Selection:
    """How boxes are selected; `config.InferenceConfig` describes it."""

    min_score: float
    nms: float
    vote: bool
    max_boxes: int


class ViewArrays(NamedTuple):
    """The output of a network for one view: `methods.ViewOutput` as float32 arrays, which describes the fields."""

    image_scores: FloatArray
    proposal_scores: FloatArray | None = None
    maps: FloatArray | None = None
    objectness: FloatArray | None = None
    boxes: FloatArray | None = None


class Scored(NamedTuple):
    """The scores of one image, averaged over its views.

    Args:
        image_scores: (classes,) float32, image-level scores.
        size: width and height of the image in pixels.
        boxes: (N, 4), xyxy pixels of the image; None for models whose boxes are drawn around heatmaps.
        scores: (N, classes), likewise.
        heatmaps: (classes, h, w), of those models; None for the others.
        objectness: (h, w), log odds, or None.
    """

    image_scores: FloatArray
    size: tuple[int, int]
    boxes: FloatArray | None = None
    scores: FloatArray | None = None
    heatmaps: FloatArray | None = None
    objectness: FloatArray | None = None


def select_boxes(boxes: FloatArray, scores: FloatArray, selection: Selection) -> Selected:
    """Suppression by class and box voting, as the settings say.

    Args:
        boxes: (N, 4), xyxy pixels.
        scores: (N, classes).
        selection: thresholds.
    """
    rows, labels = np.nonzero(scores >= selection.min_score)
    values = scores[rows, labels]
    keep = nms(boxes[rows], values, labels, selection.nms, selection.max_boxes)
    found = box_vote(boxes, scores, labels[keep], rows[keep]) if selection.vote else boxes[rows[keep]]
    return found, values[keep], labels[keep]


def nms(
    boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64], threshold: float, most: int
) -> NDArray[np.int64]:
    """Non-maximum suppression by class.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N,).
        labels: (N,).
        threshold: IoU above which the lower-scored of two boxes of a class is dropped.
        most: rows to keep.

    Returns:
        Rows that are kept, best score first: at most `most`.
    """
    order = np.lexsort((-scores, labels))
    classes, first = np.unique(labels[order], return_index=True)
    left = dict(zip(classes, np.split(order, first[1:]), strict=True)) if len(order) else {}
    kept: list[int] = []
    while left and len(kept) < most:
        # The best of all classes; of equal scores the first.
        label = min(left, key=lambda label: (-scores[left[label][0]], left[label][0]))
        best, rest = left[label][0], left[label][1:]
        kept.append(int(best))
        left[label] = rest[iou(boxes[best][None], boxes[rest])[0] <= threshold]
        if not len(left[label]):
            del left[label]
    return np.array(kept, np.int64)


def box_vote(
    boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64], rows: NDArray[np.int64] | None = None
) -> FloatArray:
    """Box voting (Gidaris and Komodakis, ICCV 2015, section 4).

    Each box becomes the mean of the boxes that overlap it by half, weighted by the square of their scores.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes), not negative.
        labels: (M,), the classes whose scores are the votes.
        rows: (M,), which boxes are moved; by default the highest-scored of each class.

    Returns:
        (M, 4) float32, xyxy.
    """
    own = scores[:, labels]
    rows = own.argmax(axis=0) if rows is None else rows
    near = iou(boxes, boxes[rows]) >= 0.5
    # A box without area overlaps nothing, not even itself.
    near[rows, np.arange(len(rows))] = True
    own = own * near
    best = own.max(axis=0)
    # Relative to the best, as the squares of very small scores would underflow.
    weights = np.where(best > 0, own / np.where(best > 0, best, 1), near).astype(np.float32) ** 2
    return np.asarray(np.einsum("nm,nc->mc", weights, boxes) / weights.sum(axis=0)[:, None], np.float32)


def average_boxes(
    outputs: Sequence[ViewArrays], views: Sequence[View], boxes: FloatArray | None, size: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Boxes (N, 4), xyxy pixels of the image, and scores (N, classes), averaged over the views.

    Args:
        outputs: of every view.
        views: the views.
        boxes: proposals (N, 4), xyxy pixels of the image; None where the outputs have boxes of their own.
        size: width and height of the image in pixels.
    """
    scores = np.mean([row.proposal_scores for row in outputs if row.proposal_scores is not None], axis=0)
    moved = [view.restore(row.boxes, *size) for view, row in zip(views, outputs, strict=True) if row.boxes is not None]
    final = np.mean(moved, axis=0) if moved else boxes
    assert final is not None
    return final, scores


def average_heatmaps(outputs: Sequence[ViewArrays], views: Sequence[View]) -> tuple[FloatArray, FloatArray | None]:
    """Heatmaps (classes, h, w) and objectness (h, w) where the model has it, averaged over the views."""
    heatmaps = mean_of_views([row.maps for row in outputs if row.maps is not None], views)
    objects = [row.objectness[None] for row in outputs if row.objectness is not None]
    return heatmaps, mean_of_views(objects, views)[0] if objects else None


def average_image_scores(outputs: Sequence[ViewArrays]) -> FloatArray:
    """Image-level scores (classes,) float32, averaged over the views."""
    return np.asarray(np.mean([view.image_scores for view in outputs], axis=0), np.float32)


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


def mean_of_views(planes: Sequence[FloatArray], views: Sequence[View]) -> FloatArray:
    """The mean over the views of their maps (planes, h, w), mirrored ones mirrored back, at the finest resolution."""
    turned = [row[:, :, ::-1] if view.flipped else row for view, row in zip(views, planes, strict=True)]
    height, width = max(row.shape[1:] for row in turned)
    grids = [[resize_map(np.ascontiguousarray(plane), (width, height)) for plane in row] for row in turned]
    return np.asarray(np.mean(grids, axis=0), np.float32)


def points_of(heatmaps: Heatmaps) -> FloatArray:
    """The arg-max of every class map, at the centre of its cell: (classes, 2) float32, x and y in image pixels."""
    classes, height, width = heatmaps.maps.shape
    row, column = np.divmod(heatmaps.maps.reshape(classes, -1).argmax(axis=1), width)
    centres = np.stack([(column + 0.5) / width, (row + 0.5) / height], axis=1)
    return np.asarray(centres * heatmaps.size, np.float32)
