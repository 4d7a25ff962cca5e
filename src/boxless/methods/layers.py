"""Layers that several heads are made of."""

from collections.abc import Sequence

from torch import Tensor, nn


def unit_rms(maps: Tensor) -> Tensor:
    """Normalise each location of maps (..., C, H, W) to unit RMS over its channels.

    Deep maps have their largest magnitudes on the most discriminative part of an object; the direction of the feature
    vectors is the same all over it.
    """
    return maps / cell_rms(maps)


def cell_rms(maps: Tensor) -> Tensor:
    """RMS of each location over its channels, never zero: (..., C, H, W) -> (..., 1, H, W)."""
    return (maps.square().mean(dim=-3, keepdim=True) + 1e-6).sqrt()


def fully_connected(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Hidden layers over flattened regions, each with ReLU and dropout; without widths, dropout alone."""
    layers: list[nn.Module] = [nn.Flatten()]
    if not widths:
        layers.append(nn.Dropout(dropout))
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers)


def linear(inputs: int, outputs: int, deviation: float) -> nn.Linear:
    """A linear layer with weights drawn from N(0, deviation) and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)
    return layer
