"""From heatmaps and scores to pseudo boxes, and from pseudo boxes to what every proposal is to be."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou, nms

from boxless.features import Targets
from boxless.structures import FloatArray


@dataclass(frozen=True)
class PseudoLabels:
    """What an image's proposals are taught to find.

    Args:
        boxes: (M, 4), xyxy pixels of the view.
        labels: (M,) int64, the class of each.
        weights: (M,), how much each is trusted, in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor


def trust(targets: Targets) -> PseudoLabels:
    """Boxes that teach, pseudo or true, as what proposals are to find.

    Difficult ones have no weight, so that a proposal that overlaps one of them most is neither object nor background.
    """
    # The others come first: a proposal that overlaps nothing is assigned to the first.
    order = targets.ignore.int().argsort(stable=True)
    return PseudoLabels(targets.boxes[order], targets.labels[order], 1 - targets.ignore[order].float())


def mine_top(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class that is present its best proposal, trusted as much as it scores (OICR, section 3.2, eq. 4).

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        image_labels: (classes,), 1 where the class is present.
    """
    labels = torch.nonzero(image_labels == 1).flatten()
    best, rows = scores.detach()[:, labels].max(dim=0)
    return PseudoLabels(boxes[rows], labels, best)


def vote(boxes: Tensor, scores: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
    """For each of these boxes the mean of those that overlap it by half, weighted by the square of their scores.

    One proposal's edges are an accident; those of many that score well are not (box voting; Gidaris and Komodakis,
    ICCV 2015, section 4).

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes), not negative.
        labels: (M,) int64, the classes by whose scores is voted.
        rows: (M,) int64, which boxes are voted for; by default the best of each class.

    Returns:
        (M, 4), xyxy.
    """
    own = scores[:, labels]
    rows = own.argmax(dim=0) if rows is None else rows
    near = box_iou(boxes, boxes[rows]) >= 0.5
    # A box without any area overlaps nothing, not even itself.
    near[rows, torch.arange(len(rows))] = True
    own = own * near
    best = own.amax(dim=0)
    # Relative to the best, as the squares of scores that are all next to nothing would vanish.
    weights = torch.where(best > 0, own / best, near).square()
    # No matrix product: of the many shapes oneDNN would keep a kernel each (`devices.full_width`).
    return (weights[:, :, None] * boxes[:, None]).sum(dim=0) / weights.sum(dim=0)[:, None]


def snap(boxes: FloatArray, proposals: FloatArray) -> FloatArray:
    """Boxes moved onto edges that are in the image: for each the mean of the proposals near it.

    Pseudo boxes are right about where an object is and wrong about where it ends; proposals end at real edges
    (docs/experiments.md). Proposals of IoU `NEAR` or more count, weighted by the eighth power of it; a box without any
    stays.

    Args:
        boxes: (M, 4), xyxy pixels.
        proposals: (N, 4), xyxy pixels, of the same image.

    Returns:
        (M, 4) float32, xyxy pixels.
    """
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(proposals)).double().numpy()
    weights = np.where(overlaps >= NEAR, overlaps, 0) ** 8
    total = weights.sum(axis=1, keepdims=True)
    means = weights @ proposals / np.maximum(total, 1e-12)
    return np.where(total > 0, means, boxes).astype(np.float32)


NEAR = 0.6
"""The least IoU of a proposal that has a say in where a pseudo box ends."""


def mine_clusters(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class that is present the centres of its proposal clusters (PCL; Tang et al., PAMI 2018, section 3.4).

    Of a class's scores, parted in three by k-means, the top part's proposals are the vertices of a graph with edges
    where IoU is over `GRAPH_IOU`. Again and again the vertex with the most edges becomes a centre, trusted as much as
    the best score among its neighbours, and takes these along. At most the `MOST_CENTRES` most trusted are kept. As in
    the authors' code a proposal is a centre of one class only. (Their code leaves off with five vertices to go; the
    paper covers all, as is done here.)

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        image_labels: (classes,), 1 where the class is present.
    """
    rows, labels, weights = [], [], []
    free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for label in torch.nonzero(image_labels == 1).flatten().tolist():
        candidates = torch.nonzero(free).flatten()
        if not len(candidates):
            break
        candidates = candidates[top_cluster(scores.detach()[candidates, label])]
        centres, confidence = _graph_centres(boxes[candidates], scores.detach()[candidates, label])
        chosen = candidates[centres]
        free[chosen] = False
        rows.append(chosen)
        labels.append(torch.full_like(chosen, label))
        weights.append(confidence)
    if not rows:
        return _nothing(boxes)
    return PseudoLabels(boxes[torch.cat(rows)], torch.cat(labels), torch.cat(weights))


def top_cluster(scores: Tensor, clusters: int = 3) -> Tensor:
    """Which of the scores (N,) belong to the highest of `clusters` k-means clusters: (N,) bool, at least one.

    Lloyd's algorithm from centres spread evenly over the range: the same scores always give the same clusters.
    """
    values = scores.detach().double()
    steps = torch.linspace(0, 1, clusters, dtype=values.dtype, device=values.device)
    centres = values.min() + (values.max() - values.min()) * steps
    before = None
    while True:
        nearest = (values[:, None] - centres).abs().argmin(dim=1)
        if before is not None and torch.equal(nearest, before):
            return nearest == nearest[values.argmax()]
        before, counts = nearest, torch.bincount(nearest, minlength=clusters)
        means = torch.zeros_like(centres).index_add(0, nearest, values) / counts
        # A cluster that has lost all its members stays where it is.
        centres = torch.where(counts > 0, means, centres)


def _graph_centres(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the graph's centres, the most trusted first, and how much each is trusted; see `mine_clusters`."""
    # Of vertices with equally many edges the best is to come first.
    order = scores.argsort(descending=True, stable=True)
    linked = box_iou(boxes[order], boxes[order]) > GRAPH_IOU
    degrees = linked.sum(dim=1)
    left = torch.ones_like(order, dtype=torch.bool)
    centres, confidence = [], []
    while left.any():
        centre = torch.where(left, degrees, -1).argmax()
        taken = linked[centre] & left
        centres.append(order[centre])
        confidence.append(scores[order[taken]].max())
        left &= ~taken
        degrees -= linked[:, taken].sum(dim=1)
    weights, best = torch.stack(confidence).sort(descending=True, stable=True)
    return torch.stack(centres)[best[:MOST_CENTRES]], weights[:MOST_CENTRES]


def mine_spread(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class that is present its best proposals far from each other (MIST; Ren et al., CVPR 2020, alg. 1).

    Of the `TOP_SHARE` best proposals of a class, the best first, each is kept whose IoU with all that were kept is no
    more than `SPREAD_IOU`; it is trusted as much as it scores. Pseudo boxes are sorted by trust, so that of two on the
    same proposal `assign` takes the surer.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        image_labels: (classes,), 1 where the class is present.
    """
    rows, labels = [], []
    for label in torch.nonzero(image_labels == 1).flatten().tolist():
        best, order = scores.detach()[:, label].topk(math.ceil(TOP_SHARE * len(boxes)))
        kept = order[nms(boxes[order], best, SPREAD_IOU)]
        rows.append(kept)
        labels.append(torch.full_like(kept, label))
    if not rows:
        return _nothing(boxes)
    found, classes = torch.cat(rows), torch.cat(labels)
    weights, order = scores.detach()[found, classes].sort(descending=True, stable=True)
    return PseudoLabels(boxes[found[order]], classes[order], weights)


def _nothing(boxes: Tensor) -> PseudoLabels:
    return PseudoLabels(boxes[:0], torch.zeros(0, dtype=torch.int64, device=boxes.device), boxes.new_zeros(0))


GRAPH_IOU, MOST_CENTRES = 0.4, 5
"""PCL, implementation details, and the authors' code."""
TOP_SHARE, SPREAD_IOU = 0.15, 0.2
"""MIST, implementation details (p and tau)."""


def assign(boxes: Tensor, pseudo: PseudoLabels, background: int, ignore: float) -> tuple[Tensor, Tensor, Tensor]:
    """What every proposal is to be: the class of the pseudo box that it overlaps by half, or background (OICR, 3.2).

    Args:
        boxes: (N, 4), xyxy.
        pseudo: of the same image; without any, all is background.
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


def draw(labels: Tensor, weights: Tensor, background: int, most: tuple[int, int, int]) -> Tensor:
    """Rows of the proposals that one image shows a training step, drawn at random (Fast R-CNN, section 2.3).

    Args:
        labels: (N,) int64, as `assign` gives them.
        weights: (N,).
        background: label of what is no object.
        most: of proposals on objects, of those beside, and of those without weight.
    """
    taught = weights > 0
    kinds = (labels != background) & taught, (labels == background) & taught, ~taught
    return torch.cat([_drawn(torch.nonzero(kind).flatten(), number) for kind, number in zip(kinds, most, strict=True)])


def _drawn(rows: Tensor, most: int) -> Tensor:
    return rows[torch.randperm(len(rows), device=rows.device)[:most]]


def balance(labels: Tensor, weights: Tensor, background: int, share: float) -> Tensor:
    """Scale weights so that objects have a fixed share of the loss, as in Fast R-CNN's batches (section 2.3).

    Args:
        labels: (N,) int64, as `assign` gives them.
        weights: (N,); a weight of zero has no part.
        background: label of what is no object.
        share: of the objects in the loss; where an image has none, weights stay as they are.
    """
    objects = (labels != background) & (weights > 0)
    rest = (labels == background) & (weights > 0)
    if not objects.any() or not rest.any():
        return weights
    factors = torch.where(objects, share / objects.sum(), (1 - share) / rest.sum())
    return weights * factors * (weights > 0).sum()


def largest_component_box(heatmap: FloatArray, size: tuple[int, int], threshold: float) -> FloatArray:
    """The box around a heatmap's largest bright region (CAM; Zhou et al., CVPR 2016, section 3.2).

    The map is enlarged to the image; of the pixels of at least `threshold` times its maximum the largest 8-connected
    component is taken. A map that is nowhere positive gives the whole image.

    Args:
        heatmap: (h, w), spans the whole image; what is below zero speaks against the class.
        size: width and height of the image in pixels.
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


def objectness_box(heatmap: FloatArray, objectness: FloatArray, size: tuple[int, int], threshold: float) -> FloatArray:
    """The box around the object that a heatmap shines on, as far as what counts as object reaches.

    The log odds that a place is on an object are shifted by how much the heatmap is above or below `threshold` times
    its maximum. Of the 8-connected components of places that are likelier on an object than not, the one with the
    largest sum of the heatmap is taken; without any the box is that of `largest_component_box`.

    Args:
        heatmap: (h, w), spans the whole image; what is below zero speaks against the class.
        objectness: (h, w), log odds that a place is on an object of any class.
        size: width and height of the image in pixels.
        threshold: in (0, 1).

    Returns:
        (4,) float32, xyxy pixels.
    """
    if heatmap.max() <= 0:
        return np.array([0, 0, *size], np.float32)
    relative = np.maximum(heatmap / heatmap.max(), 1e-3)
    odds = objectness + CAM_WEIGHT * np.log(relative / threshold)
    # Probabilities, as one very sure cell would otherwise shift the edge between it and its neighbours.
    likely = (enlarge(1 / (1 + np.exp(-odds)), size) >= 0.5).astype(np.uint8)
    number, components, statistics, _ = cv2.connectedComponentsWithStats(likely, connectivity=8)
    if number == 1:
        return largest_component_box(heatmap, size, threshold)
    shine = np.maximum(enlarge(heatmap, size), 0)
    sums = np.bincount(components.ravel(), shine.ravel(), minlength=number)
    left, top, width, height, _ = statistics[1 + sums[1:].argmax()]
    return np.array([left, top, left + width, top + height], np.float32)


CAM_WEIGHT = 1.0
"""Weight of the log of a heatmap beside the log odds of the foreground (docs/experiments.md)."""


def enlarge(heatmap: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bilinear interpolation of a map (h, w) that spans the image to `size` (width, height)."""
    return np.asarray(cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR), np.float32)


def proposal_heatmap(boxes: FloatArray, scores: FloatArray, size: tuple[int, int], cell: float = 8) -> FloatArray:
    """For every cell the sum of the scores of the proposals that cover its centre, normalised to a maximum of one.

    Args:
        boxes: (N, 4), xyxy pixels.
        scores: (N, classes).
        size: width and height of the image in pixels.
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
