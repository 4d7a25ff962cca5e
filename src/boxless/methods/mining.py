"""From scores of proposals and image labels to pseudo labels: one rule a paper."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from boxless.methods.kmeans import last_cluster_start
from boxless.methods.matching import PseudoLabels
from boxless.registry import Registry

Rule = Callable[[Tensor, Tensor, Tensor], PseudoLabels]

MINING: Registry[Rule] = Registry("head.refinement.mining")
"""Rules by name: from the boxes (N, 4), scores (N, at least classes) and image labels (classes,) of one image."""

CLUSTERS, GRAPH_IOU, MAX_CENTRES = 3, 0.4, 5
"""PCL, implementation details, and the authors' code."""
TOP_SHARE, SPREAD_IOU = 0.15, 0.2
"""MIST, implementation details (p and tau)."""


@MINING.register("top")
def mine_top(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class present the highest-scored proposal, weighted by its score (OICR, section 3.2, equation 4).

    As in the authors' code, and not in the paper, a proposal is the pseudo label of one class only: a later class takes
    the best of the others.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        image_labels: (classes,), 1 where the class is present.
    """
    # As many as there are proposals: where none is left, a class gets none.
    labels = torch.nonzero(image_labels == 1).flatten()[: len(boxes)]
    own = scores.detach()[:, labels].clone()
    rows = []
    for column in range(len(labels)):
        rows.append(own[:, column].argmax())
        own[rows[-1], column + 1 :] = -torch.inf
    if not rows:
        return _none(boxes)
    best = torch.stack(rows)
    return PseudoLabels(boxes[best], labels, scores.detach()[best, labels])


@MINING.register("clusters")
def mine_clusters(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class present the centres of its proposal clusters (PCL; Tang et al., PAMI 2018, section 3.4).

    The scores of a class are divided into three groups by k-means; the proposals of the top group are the vertices of
    a graph with edges where IoU is over `GRAPH_IOU`. Repeatedly the vertex with the most edges becomes a centre,
    weighted by the highest score among its neighbours, and is removed with them. At most the `MAX_CENTRES` of highest
    weight are kept. As in the authors' code a proposal is a centre of one class only. (Their code stops with five
    vertices left; the paper covers all, as is done here.)

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
        return _none(boxes)
    return PseudoLabels(boxes[torch.cat(rows)], torch.cat(labels), torch.cat(weights), bags=True)


def top_cluster(scores: Tensor) -> Tensor:
    """Which of the scores (N,) belong to the highest of `CLUSTERS` k-means clusters: (N,) bool, at least one.

    In one dimension clusters are intervals, so the optimum is found by dynamic programming over where they begin
    (Wang and Song, R Journal 2011, section 2); Lloyd's algorithm would stop at a local one.
    """
    values, counts = torch.unique(scores.detach().cpu().double(), return_counts=True)
    if len(values) <= CLUSTERS:
        return scores == scores.max()
    start = last_cluster_start(values.numpy(), counts.double().numpy(), CLUSTERS)
    # These are the very numbers, so single precision compares exactly; Apple's GPUs have no double.
    return scores >= float(values[start])


def _graph_centres(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the graph's centres by falling weight, and the weights; see `mine_clusters`."""
    # Of vertices with equally many edges the highest-scored comes first.
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
    return torch.stack(centres)[best[:MAX_CENTRES]], weights[:MAX_CENTRES]


@MINING.register("spread")
def mine_spread(boxes: Tensor, scores: Tensor, image_labels: Tensor) -> PseudoLabels:
    """For every class present its highest-scored proposals far from each other (MIST; Ren et al., CVPR 2020, alg. 1).

    Of the `TOP_SHARE` best proposals of a class, but at least one, in falling order, each is kept whose IoU with all
    kept before is at most `SPREAD_IOU`; its weight is its score. That is the paper's rule. The authors' code, which
    gave their numbers, compares with all of higher score, kept or not, and keeps fewer; measured here it is worse
    (docs/faithful.md).

    Pseudo labels are sorted by weight, so that of two on the same proposal `match_proposals` takes the one of higher
    weight, as the paper says; their code takes the first class.

    Args:
        boxes: (N, 4), xyxy.
        scores: (N, at least classes).
        image_labels: (classes,), 1 where the class is present.
    """
    rows, labels = [], []
    most = max(1, int(TOP_SHARE * len(boxes)))
    for label in torch.nonzero(image_labels == 1).flatten().tolist():
        best, order = scores.detach()[:, label].sort(descending=True, stable=True)
        kept = order[:most][nms(boxes[order[:most]], best[:most], SPREAD_IOU)]
        rows.append(kept)
        labels.append(torch.full_like(kept, label))
    if not rows:
        return _none(boxes)
    found, classes = torch.cat(rows), torch.cat(labels)
    weights, order = scores.detach()[found, classes].sort(descending=True, stable=True)
    return PseudoLabels(boxes[found[order]], classes[order], weights)


def _none(boxes: Tensor) -> PseudoLabels:
    return PseudoLabels(boxes[:0], torch.zeros(0, dtype=torch.int64, device=boxes.device), boxes.new_zeros(0))
