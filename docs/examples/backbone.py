"""A backbone: a convolutional network of your own.

    python backbone.py train tags.csv --out runs/mine --backbone mine backbone.weights=mine.safetensors

This one has four blocks; any other network can take its place, whose stages turn an image into a map. Train it on
something first, such as a classifier of your images or self-supervision, and save its `state_dict()`: the stages are
frozen, and without a file of weights they are random.
"""

from itertools import pairwise
from pathlib import Path

from torch import nn

from boxless.backbones import BACKBONES, Backbone
from boxless.backbones.weights import load_weights
from boxless.config import BackboneConfig

WIDTHS = (3, 16, 32, 64, 128)


def network() -> nn.Sequential:
    """Four blocks, each of which halves the resolution: (B, 3, H, W) -> (B, 128, ceil(H / 16), ceil(W / 16))."""
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in pairwise(WIDTHS)
        )
    )


@BACKBONES.register("mine")
def mine(config: BackboneConfig) -> Backbone:
    """The network with the weights of a file, or random ones."""
    stages, random = network(), config.weights in ("auto", "none")
    if not random:
        load_weights(stages, Path(config.weights))
    return Backbone(
        stages=stages,
        channels=WIDTHS[-1],
        stride=16,
        # What the weights were trained with: here (pixel / 255 - 0.5) / 0.25.
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        source="random" if random else config.weights,
        licence="mine",
        # Earlier maps that the detector reads too: those of the second and third block.
        levels=(1, 2),
    )


if __name__ == "__main__":
    from boxless.cli import main

    main()
