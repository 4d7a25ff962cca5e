"""From heatmaps and scores to pseudo boxes, and from pseudo boxes to what every proposal is to be."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from boxless.structures import FloatArray


@dataclass(frozen=True)
class PseudoBoxes:
    """What a picture's proposals are taught to find.

    Args:
        boxes: (M, 4), xyxy pixels of the view.
        labels: (M,) int64, the class of each.
        weights: (M,), how much each is trusted, in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor


def mine_heatmaps(maps: Tensor, scores: Tensor, target: Tensor, size: tuple[int, int], threshold: float) -> PseudoBoxes:
    """For every class that is present the box of its heatmap, trusted as much as the class is seen in the picture.

    Args:
        maps: (classes, h, w) class activation maps of a view.
        scores: (classes,) in [0, 1], how sure the classifier is of each class.
        target: (classes,), 1 where the class is present.
        size: width and height of the view in pixels.
        threshold: see `largest_component_box`.
    """
    labels = torch.nonzero(target == 1).flatten()
    planes = maps.detach().float().cpu().numpy()
    boxes = np.array([largest_component_box(planes[label], size, threshold) for label in labels.tolist()], np.float32)
    return PseudoBoxes(torch.from_numpy(boxes.reshape(-1, 4)).to(maps.device), labels, scores.detach()[labels])


def mine_top(boxes: Tensor, scores: Tensor, target: Tensor) -> PseudoBoxes:
    """For every class that is present its best proposal, trusted as much as it scores (OICR, section 3.2, eq. 4).

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        target: (classes,), 1 where the class is present.
    """
    labels = torch.nonzero(target == 1).flatten()
    best, rows = scores.detach()[:, labels].max(dim=0)
    return PseudoBoxes(boxes[rows], labels, best)


def mine_average(boxes: Tensor, scores: Tensor, target: Tensor) -> PseudoBoxes:
    """As `mine_top`, but each box is the mean of all that overlap the best by half, weighted by the square of scores.

    One proposal's edges are an accident; those of many that score well are not (box voting; Gidaris and Komodakis,
    ICCV 2015, section 4).
    """
    top = mine_top(boxes, scores, target)
    weights = scores.detach()[:, top.labels].square() * (box_iou(boxes, top.boxes) >= 0.5)
    return PseudoBoxes((weights.T @ boxes) / weights.sum(dim=0)[:, None], top.labels, top.weights)


def assign(boxes: Tensor, pseudo: PseudoBoxes, background: int, ignore: float) -> tuple[Tensor, Tensor, Tensor]:
    """What every proposal is to be: the class of the pseudo box that it overlaps by half, or background (OICR, 3.2).

    Args:
        boxes: (N, 4), xyxy.
        pseudo: of the same picture; without any, all is background.
        background: label of what is no object.
        ignore: proposals whose best IoU is below have weight zero: they may hold an object that was not found.

    Returns:
        Labels (N,) int64, weights (N,), and the row of the pseudo box that each overlaps most (N,) int64.
    """
    if not len(pseudo.boxes):
        everything = torch.full((len(boxes),), background, device=boxes.device)
        return everything, boxes.new_ones(len(boxes)), torch.zeros_like(everything)
    overlap, nearest = box_iou(boxes, pseudo.boxes).max(dim=1)
    labels = torch.where(overlap >= 0.5, pseudo.labels[nearest], background)
    return labels, pseudo.weights[nearest] * (overlap >= ignore), nearest


def balance(labels: Tensor, weights: Tensor, background: int, share: float) -> Tensor:
    """Scale weights so that objects have a fixed share of the loss, as in Fast R-CNN's batches (section 2.3).

    Args:
        labels: (N,) int64, as `assign` gives them.
        weights: (N,); a weight of zero has no part.
        background: label of what is no object.
        share: of the objects in the loss; where a picture has none, weights stay as they are.
    """
    objects = (labels != background) & (weights > 0)
    rest = (labels == background) & (weights > 0)
    if not objects.any() or not rest.any():
        return weights
    factors = torch.where(objects, share / objects.sum(), (1 - share) / rest.sum())
    return weights * factors * len(labels)


def largest_component_box(heatmap: FloatArray, size: tuple[int, int], threshold: float) -> FloatArray:
    """The box around a heatmap's largest bright region (CAM; Zhou et al., CVPR 2016, section 3.2).

    The map is enlarged to the picture; of the pixels of at least `threshold` times its maximum the largest 8-connected
    component is taken. A map that is nowhere positive gives the whole picture.

    Args:
        heatmap: (h, w), spans the whole picture; what is below zero speaks against the class.
        size: width and height of the picture in pixels.
        threshold: in (0, 1).

    Returns:
        (4,) float32, xyxy pixels.
    """
    enlarged = enlarge(heatmap, size)
    if enlarged.max() <= 0:
        return np.array([0, 0, *size], np.float32)
    bright = (enlarged >= threshold * enlarged.max()).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    left, top, width, height, _ = statistics[1 + statistics[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([left, top, left + width, top + height], np.float32)


def enlarge(heatmap: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bilinear interpolation of a map (h, w) that spans the picture to `size` (width, height)."""
    return np.asarray(cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR), np.float32)


def proposal_heatmap(boxes: FloatArray, scores: FloatArray, size: tuple[int, int], cell: int = 8) -> FloatArray:
    """For every cell the sum of the scores of the proposals that cover its centre, normalised to a maximum of one.

    Args:
        boxes: (N, 4), xyxy pixels.
        scores: (N, classes).
        size: width and height of the picture in pixels.
        cell: side of a cell in pixels.

    Returns:
        (classes, h, w) float32.
    """
    columns, rows = (max(1, round(side / cell)) for side in size)
    scale = np.array([columns / size[0], rows / size[1]] * 2)
    left, top, right, bottom = np.clip(np.ceil(boxes * scale - 0.5), 0, [columns, rows] * 2).astype(np.int64).T
    # A box is four corners of a table whose running sums along both axes fill it in: no loop over boxes.
    table: NDArray[np.float64] = np.zeros((rows + 1, columns + 1, scores.shape[1]))
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(table, (y, x), sign * scores)
    maps = table.cumsum(0).cumsum(1)[:rows, :columns].transpose(2, 0, 1)
    return np.asarray(maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12), np.float32)
