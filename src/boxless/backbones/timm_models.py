"""timm's names, and its networks with the weights that a configuration asks for."""

from pathlib import Path
from typing import Any

import timm

from boxless.backbones.base import BACKBONES
from boxless.backbones.weights import download, read_weights
from boxless.config import BackboneConfig
from boxless.errors import BoxlessError, in_one_line

HUB = "hf-hub:"


def timm_name(name: str) -> str:
    """The name under which timm builds a network: without `timm/` or `hf-hub:timm/` in front where timm knows the rest.

    Another `hf-hub:` name stays as it is; only the hub knows whether it is valid.

    Raises:
        BoxlessError: timm has no such network, or no such weights for it; the message says what else there is.
    """
    bare = name.removeprefix(HUB).removeprefix("timm/")
    if not timm.is_model(bare):
        if name.startswith(HUB):
            return name
        own, close = ", ".join(BACKBONES), timm.list_models(f"*{bare}*")[:5]
        raise BoxlessError(
            f"backbone '{name}' is unknown; there are {own} and every timm name"
            + (f", such as {', '.join(close)}" if close else "")
        )
    try:
        timm.get_pretrained_cfg(bare)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(bare.partition(".")[0] + ".*")) or "none"
        raise BoxlessError(f"backbone '{name}' is unknown: timm's weights of this network are {tags}") from None
    return bare


def create_model(config: BackboneConfig, name: str, **options: Any) -> Any:
    """A timm network with the weights of `config`, or None where it does not take the options.

    Args:
        config: for `weights`.
        name: timm's.
        options: of the network.

    Raises:
        BoxlessError: the weights cannot be downloaded or read, or do not fit.
    """
    options["pretrained"] = config.weights != "none"
    if config.weights not in ("auto", "none"):
        # Given the file itself, older versions of timm unpickle whatever it holds.
        options["pretrained_cfg_overlay"] = {"state_dict": read_weights(Path(config.weights))}

    def create() -> Any | None:
        try:
            return timm.create_model(name, **options)
        except (TypeError, AssertionError, NotImplementedError):
            return None

    # A configuration from the hub is downloaded even for random weights.
    if config.weights == "auto" or name.startswith(HUB):
        return download(config.name, create)
    try:
        return create()
    except (RuntimeError, ValueError, KeyError) as error:
        weights = "random weights" if config.weights == "none" else config.weights
        raise BoxlessError(f"{weights}: does not fit timm's {name} ({in_one_line(error)})") from None


def source_of(config: BackboneConfig) -> str:
    """Where the weights of a timm network come from, for the manifest."""
    return "random" if config.weights == "none" else f"timm {config.name}, {config.weights}"
