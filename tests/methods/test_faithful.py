"""Losses and gradients of the classic methods against references written from the equations, in double precision.

Each reference is loops over proposals and classes, from the paper where the authors' code says the same, else from what
that code computes. `docs/faithful.md` has what was compared and what differs on purpose.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from boxless.backbones import Backbone
from boxless.config import resolve
from boxless.features import Batch, Item, collate
from boxless.methods import HeatmapModel, MILConfig, MILDetector, preset
from boxless.methods.roi_pooling import distinct_boxes
from boxless.metrics import iou

CLASSES, STRIDE = 4, 16
LOSS, GRADIENT = 1e-5, 1e-4
"""Largest relative difference of a loss, and of a gradient from the largest entry of its tensor."""
Loss = dict[str, Tensor]
Pseudo = list[tuple[int, int, float]]
"""Of one image: the proposal, the class, and the weight of every pseudo label."""


def image(seed: int, present: tuple[int, ...], number: int = 60) -> Item:
    """A view of 160 x 128 with proposals around three places; no two are pooled from the same cells, as they tie."""
    rng = np.random.default_rng(seed)
    centres = np.array([[20, 20, 90, 80], [70, 40, 150, 120], [90, 10, 150, 60]])
    boxes = centres[rng.integers(3, size=number)] + rng.uniform(-18, 18, (number, 4))
    boxes = distinct_boxes(torch.from_numpy(boxes.clip(0, [160, 128, 160, 128]).astype(np.float32)), STRIDE)
    image_labels = torch.zeros(CLASSES)
    image_labels[list(present)] = 1
    maps = torch.from_numpy(rng.normal(size=(6, 8, 10)).astype(np.float32)).relu()
    return Item(maps, (128, 160), boxes, image_labels)


def detector(method: str, **changes: Any) -> MILDetector:
    """The detector of a preset on a small random backbone, with weights far from zero and without dropout."""
    torch.manual_seed(3)
    config = resolve(preset(method)).head
    assert isinstance(config, MILConfig)
    settings = {"hidden": (12,), "dropout": 0.0, "distinct": False, "sample": None} | changes
    network = Backbone(nn.Sequential(), 6, STRIDE, (0.5,) * 3, (0.5,) * 3, "random", "none")
    model = MILDetector(network, nn.Sequential(), config.model_copy(update=settings), CLASSES)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.5)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.5)
    return model.train()


# References.


def region_features(model: MILDetector, row: Item) -> Tensor:
    """RoIPool of torchvision and the hidden layer, (N, D)."""
    assert row.proposals is not None
    return hidden_features(model, pooled_cells(model, row, row.proposals))


def pooled_cells(model: MILDetector, row: Item, boxes: Tensor) -> Tensor:
    corners = boxes.double() - torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)
    return roi_pool(row.map[None].double(), [corners], output_size=model.side, spatial_scale=1 / STRIDE)


def hidden_features(model: MILDetector, pooled: Tensor) -> Tensor:
    hidden = model.trunk[1]
    return (pooled.flatten(1) @ hidden.weight.double().T + hidden.bias.double()).relu()


def context_features(model: MILDetector, row: Item) -> Tensor:
    """ContextLocNet, section 3: a region 1.8 times as large, within the image, without the region; on a 3x3 grid the
    region is the cell in the middle."""
    assert row.proposals is not None and model.side == 3
    height, width = row.size
    larger = []
    for left, top, right, bottom in row.proposals.tolist():
        x, y, w, h = (left + right) / 2, (top + bottom) / 2, 0.9 * (right - left), 0.9 * (bottom - top)
        larger.append([max(x - w, 0), max(y - h, 0), min(x + w, width), min(y + h, height)])
    pooled = pooled_cells(model, row, torch.tensor(larger))
    pooled[:, :, 1, 1] = 0
    return hidden_features(model, pooled)


def streams(model: MILDetector, features: Tensor, context: Tensor | None = None) -> Tensor:
    """WSDDN, equations 1 to 3; with a context its score is subtracted (ContextLocNet, section 3)."""
    head = model.head
    classes = (features @ head.classify.weight.double().T + head.classify.bias.double()).exp()
    contrast = features if context is None else features - context
    proposals = (contrast @ head.detect.weight.double().T / head.temperature).exp()
    return classes / classes.sum(dim=1, keepdim=True) * (proposals / proposals.sum(dim=0, keepdim=True))


def image_loss(scores: Tensor, image_labels: Tensor) -> Tensor:
    """Sum over classes of the binary log losses of one image."""
    total = scores.new_zeros(())
    for label, present in enumerate(image_labels.tolist()):
        score = sum(scores[row, label] for row in range(len(scores)))
        total = total - (score if present else 1 - score).log()
    return total


def overlaps(boxes: Tensor) -> np.ndarray[Any, Any]:
    return iou(boxes.numpy(), boxes.numpy())


def regulariser(features: Tensor, scores: Tensor, boxes: Tensor, image_labels: Tensor) -> Tensor:
    """WSDDN, section 3.4: half of score^2 |phi - phi_best|^2 over those of the ten best near the best, IoU over 0.6."""
    total, near = features.new_zeros(()), overlaps(boxes)
    for label in torch.nonzero(image_labels).flatten().tolist():
        order = scores[:, label].argsort(descending=True).tolist()
        for row in order[1:10]:
            if near[order[0], row] > 0.6:
                distance = (features[row] - features[order[0]]).square().sum()
                total = total + 0.5 * scores[row, label].detach() ** 2 * distance
    return total


def top(boxes: Tensor, scores: Tensor, present: list[int]) -> Pseudo:
    """OICR's code: class by class the best of the proposals that no class before has taken."""
    found: Pseudo = []
    for label in present:
        free = [row for row in range(len(boxes)) if row not in {used for used, _, _ in found}]
        best = max(free, key=lambda row: scores[row, label].item())
        found.append((best, label, scores[best, label].item()))
    return found


def spread(boxes: Tensor, scores: Tensor, present: list[int]) -> Pseudo:
    """MIST, algorithm 1; on a tie the class of higher score, which the paper asks for, comes first."""
    found, near = [], overlaps(boxes)
    for label in present:
        kept: list[int] = []
        for row in scores[:, label].argsort(descending=True).tolist()[: int(0.15 * len(boxes))]:
            if all(near[row, other] < 0.2 for other in kept):
                kept.append(row)
        found += [(row, label, scores[row, label].item()) for row in kept]
    return sorted(found, key=lambda one: -one[2])


def clusters(boxes: Tensor, scores: Tensor, present: list[int]) -> Pseudo:
    """PCL, section 3.4: k-means of the scores by trying all cuts, then a greedy cover of the top cluster's graph."""
    found: Pseudo = []
    near = overlaps(boxes) > 0.4
    for label in present:
        free = [row for row in range(len(boxes)) if row not in {used for used, _, _ in found}]
        ranked = sorted(free, key=lambda row: scores[row, label].item())
        values = np.array([scores[row, label].item() for row in ranked])

        def cost(low: int, high: int, values: np.ndarray[Any, Any] = values) -> float:
            part = values[low:high]
            return float(((part - part.mean()) ** 2).sum())

        cuts = [(one, two) for two in range(2, len(values)) for one in range(1, two)]
        _, start = min((cost(0, one) + cost(one, two) + cost(two, len(values)), two) for one, two in cuts)
        vertices, own = set(ranked[start:]), []
        while vertices:
            degrees = {row: sum(near[row, other] for other in vertices) for row in vertices}
            centre = max(vertices, key=lambda row: (degrees[row], scores[row, label].item()))
            members = {row for row in vertices if near[centre, row]}
            own.append((centre, label, max(scores[row, label].item() for row in members)))
            vertices -= members
        found += sorted(own, key=lambda one: -one[2])[:5]
    return found


def matches(boxes: Tensor, pseudo: Pseudo, ignore: float) -> list[tuple[int, float, int]]:
    """OICR, section 3.2: class, weight and pseudo label of every proposal."""
    near, found = overlaps(boxes), []
    for row in range(len(boxes)):
        best = max(range(len(pseudo)), key=lambda number: near[row, pseudo[number][0]])
        overlap, (_, label, weight) = near[row, pseudo[best][0]], pseudo[best]
        found.append((label if overlap >= 0.5 else CLASSES, weight if overlap >= ignore else 0.0, best))
    return found


def softmax_loss(probabilities: Tensor, found: list[tuple[int, float, int]]) -> Tensor:
    """OICR, equation 4."""
    terms = [weight * probabilities[row, label].log() for row, (label, weight, _) in enumerate(found)]
    return -torch.stack(terms).sum() / len(found)


def bag_loss(probabilities: Tensor, found: list[tuple[int, float, int]]) -> Tensor:
    """PCL, section 3.5: a cluster is a bag of weight M s, of the mean probability of its members."""
    total = probabilities.new_zeros(())
    for cluster in {best for label, _, best in found if label < CLASSES}:
        members = [row for row, (label, _, best) in enumerate(found) if label < CLASSES and best == cluster]
        label, weight, _ = found[members[0]]
        mean = torch.stack([probabilities[row, label] for row in members]).sum() / len(members)
        total = total - len(members) * weight * mean.log()
    for row, (label, weight, _) in enumerate(found):
        if label == CLASSES:
            total = total - weight * probabilities[row, CLASSES].log()
    return total / len(found)


def regression_loss(deltas: Tensor, boxes: Tensor, pseudo: Pseudo, found: list[tuple[int, float, int]]) -> Tensor:
    """Fast R-CNN, equations 2 and 3, with the weights 10, 10, 5, 5 of its code, over the proposals on pseudo labels."""
    total = deltas.new_zeros(())
    for row, (label, weight, best) in enumerate(found):
        if label == CLASSES:
            continue
        left, top, right, bottom = boxes[row].double().tolist()
        width, height = right - left, bottom - top
        x0, y0, x1, y1 = boxes[pseudo[best][0]].double().tolist()
        shift = [((x0 + x1) - (left + right)) / 2 / width * 10, ((y0 + y1) - (top + bottom)) / 2 / height * 10]
        scale = [np.log((x1 - x0) / width) * 5, np.log((y1 - y0) / height) * 5]
        for predicted, target in zip(deltas[row], [*shift, *scale], strict=True):
            error = (predicted - target).abs()
            total = total + weight * (0.5 * error**2 if error < 1 else error - 0.5)
    return total / len(found)


def refined_losses(model: MILDetector, rows: list[Item], mine: Callable[..., Pseudo]) -> Loss:
    """OICR's, PCL's and MIST's losses: the image loss a mean over classes, every stage trained on the one before."""
    assert model.refinement is not None
    ignore, sums = model.refinement.config.ignore, {}
    for row in rows:
        assert row.proposals is not None and row.image_labels is not None
        features, present = region_features(model, row), torch.nonzero(row.image_labels).flatten().tolist()
        scores = streams(model, features)
        sums.setdefault("image labels", []).append(image_loss(scores, row.image_labels) / CLASSES)
        regressions = []
        for number, stage in enumerate(model.refinement.stages):
            pseudo = mine(row.proposals, scores.detach(), present)
            found = matches(row.proposals, pseudo, ignore)
            exponentials = (features @ stage.weight.double().T + stage.bias.double()).exp()
            scores = exponentials / exponentials.sum(dim=1, keepdim=True)
            loss = bag_loss if mine is clusters else softmax_loss
            sums.setdefault(f"refine {number + 1}", []).append(loss(scores, found))
            if model.refinement.config.box_regression:
                layer = model.refinement.regressions[number]
                deltas = features @ layer.weight.double().T + layer.bias.double()
                regressions.append(regression_loss(deltas, row.proposals, pseudo, found))
        if regressions:
            sums.setdefault("boxes", []).append(torch.stack(regressions).sum())
    return {name: torch.stack(values).mean() for name, values in sums.items()}


def wsddn_losses(model: MILDetector, rows: list[Item]) -> Loss:
    """WSDDN's, equation 5: the sum over classes and the regulariser, here averaged over images."""
    sums: dict[str, list[Tensor]] = {"image labels": [], "spatial": []}
    for row in rows:
        assert row.proposals is not None and row.image_labels is not None
        features = region_features(model, row)
        scores = streams(model, features)
        sums["image labels"].append(image_loss(scores, row.image_labels))
        weight = model.config.spatial_weight
        sums["spatial"].append(weight * regulariser(features, scores, row.proposals, row.image_labels))
    return {name: torch.stack(values).mean() for name, values in sums.items()}


# Comparisons.


def gradients(model: nn.Module, found: Loss) -> dict[str, Tensor]:
    """Of the sum of losses, by weight."""
    model.zero_grad()
    torch.stack([loss.double() for loss in found.values()]).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def compare(model: nn.Module, batch: Batch, reference: Loss) -> None:
    """Losses and gradients differ by less than `LOSS` and `GRADIENT`."""
    found = model(batch)
    assert found.keys() == reference.keys()
    for name, loss in found.items():
        assert loss.item() == pytest.approx(reference[name].item(), rel=LOSS), name
    own, expected = gradients(model, found), gradients(model, reference)
    assert own.keys() == expected.keys()
    for name, gradient in own.items():
        difference = (gradient - expected[name]).abs().max() / expected[name].abs().max()
        assert difference < GRADIENT, name


ROWS = [image(0, (0, 2)), image(1, (1,), 45), image(2, (0, 1, 3), 80)]


def test_wsddn():
    model = detector("wsddn", spatial_weight=10)
    reference = wsddn_losses(model, ROWS)
    assert reference["spatial"] > 0.01
    compare(model, collate(ROWS), reference)


def test_contextlocnet():
    """With RoIPool, as in the paper, and with WSDDN's loss."""
    model = detector("contextlocnet", unit_rms=False, pool=3)
    losses = []
    for row in ROWS:
        scores = streams(model, region_features(model, row), context_features(model, row))
        assert row.image_labels is not None
        losses.append(image_loss(scores, row.image_labels))
    compare(model, collate(ROWS), {"image labels": torch.stack(losses).mean()})


@pytest.mark.parametrize(("method", "mine"), [("oicr", top), ("pcl", clusters), ("mist", spread)])
@pytest.mark.parametrize("ignore", [0, 0.1])
def test_methods_with_refinement(method: str, mine: Callable[..., Pseudo], ignore: float):
    plain = detector(method)
    config = plain.config.refinement
    assert config is not None
    model = detector(method, refinement=config.model_copy(update={"ignore": ignore}))
    compare(model, collate(ROWS), refined_losses(model, ROWS, mine))


def test_the_comparison_is_of_something():
    """Stages mine different pseudo labels, and a factor of one thousandth too much is found."""
    model = detector("oicr")
    reference = refined_losses(model, ROWS, top)
    assert len({round(loss.item(), 6) for loss in reference.values()}) == 4
    with torch.no_grad():
        model.head.classify.weight.mul_(1.001)
    with pytest.raises(AssertionError):
        compare(model, collate(ROWS), reference)


def heatmap_model(method: str, **changes: Any) -> HeatmapModel:
    torch.manual_seed(3)
    config = resolve(preset(method)).head.model_copy(update=changes)
    network = Backbone(nn.Sequential(), 6, STRIDE, (0.5,) * 3, (0.5,) * 3, "random", "none")
    model = config.build(network, nn.Sequential(), CLASSES)
    assert isinstance(model, HeatmapModel)
    return model.train()


def logistic_loss(scores: list[Tensor], rows: list[Item]) -> Tensor:
    """Oquab et al., section 3: the sum over classes of log(1 + exp(-y f)), y 1 or -1; averaged over images."""
    total = scores[0].new_zeros(())
    for own, row in zip(scores, rows, strict=True):
        assert row.image_labels is not None
        for score, present in zip(own, row.image_labels.tolist(), strict=True):
            total = total + (1 + (-score if present else score).exp()).log()
    return total / len(rows)


def layers_of(model: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def test_oquab():
    model = heatmap_model("oquab", sharpness=None, hidden=(5,))
    first, last = layers_of(model)
    scores = []
    for row in ROWS:
        cells = row.map.double().flatten(1).T
        hidden = (cells @ first.weight.double()[:, :, 0, 0].T + first.bias.double()).relu()
        scores.append((hidden @ last.weight.double()[:, :, 0, 0].T + last.bias.double()).amax(dim=0))
    compare(model, collate(ROWS), {"image labels": logistic_loss(scores, ROWS)})


def test_cam():
    """Zhou et al., section 2: the score of a class is the weighted sum of averages, and of the map alike."""
    model = heatmap_model("cam", objectness=False)
    (layer,) = layers_of(model)
    weight, bias = layer.weight.double()[:, :, 0, 0], layer.bias.double()
    scores = [row.map.double().mean(dim=(1, 2)) @ weight.T + bias for row in ROWS]
    compare(model, collate(ROWS), {"image labels": logistic_loss(scores, ROWS)})
