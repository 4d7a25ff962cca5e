"""Losses over image labels, proposals and boxes.

What each is divided by decides how losses that are added weigh against each other:

    image_label_loss       images; summed over classes, as WSDDN and Oquab et al. do
    the same, refined      images and classes: in OICR, PCL and MIST, whose code averages (`mil.MILDetector`)
    spatial_regulariser    images
    refinement_loss        proposals of the image, cluster_loss likewise
    box_loss               proposals of the classification loss that it is added to
    negative_label_loss    proposals
"""

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou


def image_label_loss(scores: Tensor, image_labels: Tensor, *, logits: bool) -> Tensor:
    """Binary log losses, summed over classes, averaged over images (Oquab et al. 2015, section 3; WSDDN, 3.3).

    Args:
        scores: (B, classes), probabilities or logits.
        image_labels: (B, classes), 1 present, 0 absent, NaN unknown: such an entry has no part in the loss.
        logits: whether `scores` are logits.
    """
    sure = ~image_labels.isnan()
    if logits:
        losses = nn.functional.binary_cross_entropy_with_logits(scores[sure], image_labels[sure], reduction="sum")
    else:
        # Sums of softmaxes may be a little over one, and exactly zero.
        present, absent = scores[sure].clamp(min=1e-12), (1 - scores[sure]).clamp(min=1e-12)
        losses = -torch.where(image_labels[sure] == 1, present, absent).log().sum()
    return losses / len(image_labels)


def spatial_regulariser(features: Tensor, scores: Tensor, boxes: Tensor, image_labels: Tensor) -> Tensor:
    """WSDDN's spatial regulariser (section 3.4) for one image: boxes near the best one should have similar features.

    For each class that is present, of its ten best proposals those with IoU over 0.6 to the best are compared with it:
    half the sum of score^2 * |feature - feature of the best|^2. No gradient flows through the scores.

    Args:
        features: (N, D), of the last fully connected layer.
        scores: (N, classes).
        boxes: (N, 4), xyxy.
        image_labels: (classes,), 1 where the class is present.
    """
    loss = features.new_zeros(())
    for label in torch.nonzero(image_labels == 1).flatten():
        weights, best = scores[:, label].detach().topk(min(10, len(boxes)))
        near = box_iou(boxes[best[:1]], boxes[best])[0] > 0.6
        distance = (features[best[near]] - features[best[0]]).square().sum(dim=1)
        loss = loss + 0.5 * (weights[near].square() * distance).sum()
    return loss


def with_unknown(logits: Tensor, labels: Tensor, unknown: Tensor) -> Tensor:
    """Logits in which the background of an image stands for the classes too of which its tags say nothing.

    A proposal that matches no box is background, or an object of a class that may be in the image: of a background
    proposal the loss is that of the sum of these probabilities.

    Args:
        logits: (N, classes + 1), the last is background.
        labels: (N,) int64.
        unknown: (N, classes) bool, the classes of which it is unknown whether the image of a proposal has them.
    """
    if not unknown.any():
        return logits
    either = nn.functional.pad(unknown, (0, 1), value=True)
    joint = logits.masked_fill(~either, -torch.inf).logsumexp(dim=1, keepdim=True)
    merged = torch.cat([logits[:, :-1].masked_fill(unknown, -torch.inf), joint], dim=1)
    return torch.where((labels == unknown.shape[1])[:, None], merged, logits)


def refinement_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross entropy over the proposals of one image (OICR; Tang et al., CVPR 2017, equation 4).

    Args:
        logits: (N, classes + 1), the last is background.
        labels: (N,) int64.
        weights: (N,).
    """
    losses = nn.functional.cross_entropy(logits, labels, reduction="none") * weights
    # Without proposals the loss is 0; a mean over none would be NaN.
    return losses.sum() / max(len(labels), 1)


def negative_label_loss(logits: Tensor, absent: Tensor) -> Tensor:
    """Negative-label loss: minus the log of one minus the probability of all classes that the image does not have.

    A proposal is none of them whatever it holds (negative learning; Kim et al., ICCV 2019, equation 2, with several
    complementary labels at once). Averaged over proposals.

    Args:
        logits: (N, classes + 1), the last is background.
        absent: (N, classes) bool, the classes that the image of a proposal does not have.
    """
    # The log of the sum of all other probabilities, exact where that sum is close to zero.
    others = logits.masked_fill(nn.functional.pad(absent, (0, 1)), -torch.inf)
    losses = logits.logsumexp(dim=1) - others.logsumexp(dim=1)
    return losses.sum() / max(len(logits), 1)


def cluster_loss(logits: Tensor, labels: Tensor, weights: Tensor, nearest: Tensor) -> Tensor:
    """The loss over proposal clusters of one image (PCL; Tang et al., PAMI 2018, section 3.5).

    A cluster, the proposals matched to one pseudo label, is a bag: the log of the mean probability of its class over
    its members, times the sum of their weights (the number of members times the cluster's confidence), so that one
    member of high probability is enough. Background proposals count one by one. The sum is divided by the number of
    proposals.

    Args:
        logits: (N, classes + 1), the last is background.
        labels: (N,) int64.
        weights: (N,).
        nearest: (N,) int64, the cluster of each proposal that is not background.
    """
    logarithms = nn.functional.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    positive = labels < logits.shape[1] - 1
    total = (weights * logarithms)[~positive].sum()
    for cluster in set(nearest[positive].tolist()):
        members = positive & (nearest == cluster)
        mean = logarithms[members].logsumexp(dim=0) - members.sum().log()
        total = total + weights[members].sum() * mean
    return -total / len(logits)


def box_loss(predicted: Tensor, deltas: Tensor, weights: Tensor, proposals: int) -> Tensor:
    """Smooth L1 over the proposals on objects (Fast R-CNN; Girshick, ICCV 2015, equations 2 and 3).

    Args:
        predicted: (P, 4), as `box_ops.encode` gives them.
        deltas: (P, 4), of the targets.
        weights: (P,).
        proposals: number of all proposals in the classification loss, whose scale this one has.
    """
    losses = nn.functional.smooth_l1_loss(predicted, deltas, reduction="none").sum(dim=1) * weights
    return losses.sum() / max(proposals, 1)
