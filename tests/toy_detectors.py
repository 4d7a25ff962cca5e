"""Detectors with toy models, whose output is one function."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boxless.backbones import Backbone
from boxless.config import config_with
from boxless.detector import Detector
from boxless.features import Batch
from boxless.methods import FastRCNN, FastRCNNConfig, HeatmapModel, ViewOutput
from boxless.methods.fast_rcnn import PreparedView
from boxless.network import Network

CLASSES = ("cat", "dog", "owl")

Predict = Callable[[Tensor, tuple[int, int], Any], ViewOutput]
"""Output of a view from its map, its size (height, width) and its boxes."""


class ToyModel(HeatmapModel):
    """A model of one function; its threshold is a half."""

    def __init__(self, predict: Predict) -> None:
        super().__init__(nn.Sequential(), (3, 3), 1, 0.0, 0.5)
        self.predict = predict

    def forward(self, batch: Batch) -> list[ViewOutput]:
        assert not self.training
        (height, width), boxes = batch.sizes[0].tolist(), None if batch.proposals is None else batch.proposals[0]
        return [self.predict(batch.maps[0], (height, width), boxes)]


class ToyHead(FastRCNN):
    """The same as a head over proposals."""

    def __init__(self, predict: Predict) -> None:
        nn.Module.__init__(self)
        self.predict, self.cam = predict, ToyModel(predict)  # type: ignore[assignment]

    def prepare_views(self, batch: Batch) -> list[PreparedView]:
        assert not self.training
        return [PreparedView(batch.maps[0], batch.sizes[0], ViewOutput(torch.zeros(3)))]

    def score_proposals(self, views: Sequence[PreparedView], proposals: Sequence[Tensor]) -> list[ViewOutput]:
        ((view, size, _),), (boxes,) = views, proposals
        height, width = size.tolist()
        return [self.predict(view, (height, width), boxes)]


def detector(predict: Predict, head: Any, **settings: Any) -> Detector:
    """A detector with a toy model on a small random backbone."""
    torch.manual_seed(0)
    stages = nn.Sequential(nn.Conv2d(3, 3, 3, stride=16, padding=1)).eval()
    backbone = Backbone(stages, 3, 16, (0.5,) * 3, (0.5,) * 3, "random", "none")
    config = config_with(head.kind).model_validate({"method": "toy", "head": head} | settings)
    model = ToyHead(predict) if isinstance(head, FastRCNNConfig) else ToyModel(predict)
    network = Network(backbone, stages, model)
    return Detector(network, config, CLASSES, torch.device("cpu"))
