"""Finished run folders whose networks are small and have random weights: as varied in their outputs as trained ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from boxless.backbones import BACKBONES, Backbone
from boxless.backbones.cells import PadToMultiple
from boxless.config import BackboneConfig, resolve
from boxless.detector import Detector
from boxless.files import write_json, write_text
from boxless.methods import preset
from boxless.methods.box_supervised import BoxSupervised
from boxless.network import build_network, save_network
from boxless.run_folder import CONFIG, FORMAT, MANIFEST, versions
from boxless.runtime import Runtime

CLASSES = ["cat", "großer hund", "owl"]
CALIBRATION = {
    "cat": {"slope": 1.3, "intercept": 2.1},
    "großer hund": {"slope": 0.4, "intercept": -0.7},
    "owl": {"slope": 1.0, "intercept": 0.2},
}
OPTIONS = {
    "student": ("head.channels=8", "head.pca_dims=[6, 8]"),
    "seeded": ("head.hidden=[32]", "head.pca_dims=[6, 8]", "proposals.generator=grid", "proposals.min_area=0.05"),
    "oicr": ("head.hidden=[16]",),
}


class Exported(NamedTuple):
    """A run and its file, loaded."""

    run: Path
    file: Path
    detector: Detector
    runtime: Runtime


@BACKBONES.register("random")
def random_backbone(config: BackboneConfig) -> Backbone:
    """Three stages with the layers that an export has to replace, of strides 4, 16 and 16."""
    stages = nn.Sequential(
        nn.Sequential(PadToMultiple(2), Conv2dSame(3, 8, 5, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(Conv2dSame(8, 12, 5, stride=4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(12, 16, 3, padding=1)),
    )
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    return Backbone(stages, 16, 16, mean, std, "random", "none needed: random", levels=(0, 1))


def random_run(folder: Path, method: str, options: Sequence[str] = (), images: Sequence[Path] = ()) -> Path:
    """Write a run folder, whose manifest names these images as those of its training set."""
    small = ["backbone.name=random", "backbone.weights=none", "views.scales=[160]", *OPTIONS[method]]
    config = resolve(preset(method), options=[*small, *options])
    network = build_network(config, len(CLASSES))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.2)
        if isinstance(network.model, BoxSupervised):
            network.model.cam.threshold.fill_(0.3)
            for pca in (network.model.pca.last, network.model.pca.earlier):
                pca.mean.copy_(torch.randn(pca.mean.shape, generator=random) * 0.2)
    folder.mkdir(parents=True)
    write_text(folder / CONFIG, yaml.safe_dump(config.model_dump(mode="json")))
    manifest = {
        "format": FORMAT,
        "method": method,
        "supervision": "tags",
        "seed": 7,
        "classes": CLASSES,
        "data": {"name": "drawn", "images": len(images), "digest": "da7a" * 8},
        "sample_images": [str(path) for path in images],
        "weights": {"source": "random", "licence": "none needed: random", "frozen": "0" * 16},
        "pseudo_labels": {"owl": {"agreement": 0.1}},
        "calibration": CALIBRATION if method == "seeded" else None,
        "versions": versions(),
        "seconds": {},
        "files": save_network(folder, network, None),
        "finished": True,
    }
    write_json(folder / MANIFEST, manifest)
    return folder
