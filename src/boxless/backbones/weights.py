"""Weights of backbones: files of them, which are never unpickled, downloads, licences and fingerprints."""

import hashlib
import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from boxless.config import BackboneConfig
from boxless.errors import BoxlessError, in_one_line
from boxless.files import expand_user

PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a PyTorch state dict, by name.

    Raises:
        BoxlessError: there is no such file, or it holds something else.
    """
    file = expand_user(file)
    if not file.is_file():
        raise BoxlessError(
            f"backbone.weights={file}: there is no such file; it may be auto, none, or a file of weights"
        )
    try:
        weights = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
        if not isinstance(weights, dict) or not weights or not all(map(torch.is_tensor, weights.values())):
            raise ValueError("it holds something else")
    except Exception as error:
        # PyTorch's second sentence advises to load the file unsafely.
        reason = in_one_line(error).partition(". ")[0]
        raise BoxlessError(f"{file}: no safetensors file and no PyTorch state dict ({reason})") from None
    return weights


def load_weights(model: nn.Module, file: Path) -> None:
    """Load a file of weights into a network.

    Raises:
        BoxlessError: the file cannot be read, or its names and shapes are not those of the network.
    """
    try:
        model.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise BoxlessError(f"{file}: does not fit the backbone ({in_one_line(error)})") from None


def download(name: str, create: Callable[[], Any]) -> Any:
    """The result of `create`, which downloads the weights of the backbone `name`.

    Raises:
        BoxlessError: the download fails.
    """
    try:
        return create()
    # Two libraries over three HTTP stacks each raise their own; what they share is OSError or RuntimeError.
    except Exception as error:
        raise BoxlessError(
            f"the weights of {name} could not be downloaded ({type(error).__name__}: {in_one_line(error)}). "
            "Without a network, give a file: backbone.weights=FILE.safetensors; or take efficientnet_lite0, whose "
            "weights are installed with Boxless"
        ) from error


def licence_of(config: BackboneConfig, published: str | None) -> str:
    """The licence of a backbone's weights for the manifest; logs a warning, once, unless it is a permissive one.

    Args:
        config: whose `weights` are taken.
        published: the licence of the weights that the library publishes; None or `unknown` if it does not say.
    """
    if config.weights == "none":
        return "none needed: random"
    stated = published not in (None, "unknown")
    if stated and not str(published).lower().startswith(PERMISSIVE):
        warn_of_licence(config.name, str(published))
    if config.weights == "auto":
        return str(published) if stated else f"not stated; see the model card of {config.name}"
    note = f"; published ones of {config.name}: {published}" if stated else ""
    return f"not known: weights of {Path(config.weights).name}{note}"


@cache
def warn_of_licence(name: str, licence: str) -> None:
    """Log, once per process, that the published weights of a backbone have a licence that restricts their use."""
    restricted = re.search(r"\bnc\b|non-?commercial", licence, re.IGNORECASE)
    logging.getLogger("boxless").warning(
        "The published weights of %s have the licence %s, which %s; read it before you use or share what you train "
        "on them",
        name,
        licence,
        "excludes commercial use" if restricted else "has terms of its own",
    )


def fingerprint(module: nn.Module) -> str:
    """A name for a module's weights: 64 bits of BLAKE2b over names and values."""
    state = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
