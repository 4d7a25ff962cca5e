"""The network of a run: built from its configuration, saved to its folder and loaded from there."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from boxless.backbones import Backbone, create_backbone
from boxless.config import Config
from boxless.errors import BoxlessError, in_one_line
from boxless.files import write_whole
from boxless.methods import Model
from boxless.run_folder import BACKBONE, WEIGHTS, weight_files


@dataclass(frozen=True)
class Shared:
    """What the networks of one run have in common: computed once, stored once and loaded by each.

    Args:
        folder: the run folder that has it.
        backbone: the backbone.
        frozen: its frozen stages.
        files: parts of a network, by their name within it (`frozen`, `model.cam`, `model.pca`) -> safetensors file.
    """

    folder: Path
    backbone: Backbone
    frozen: nn.Sequential
    files: Mapping[str, Path]


class Network(nn.Module):
    """All parts of a detector: the frozen stages, and the model that is trained on their maps.

    Args:
        backbone: what both are made of.
        frozen: its frozen stages.
        model: its other stages and the head.
    """

    def __init__(self, backbone: Backbone, frozen: nn.Sequential, model: Model) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen.requires_grad_(False)
        self.model = model


def build_network(config: Config, classes: int, shared: Shared | None = None) -> Network:
    """Build the network of a configuration; new layers are drawn from its seed.

    Args:
        config: of the run.
        classes: number of classes.
        shared: what another network of the run has computed before; its files are loaded.

    Raises:
        BoxlessError: the backbone is unknown, its weights cannot be had, or the head does not fit.
    """
    # The caller's random state is restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        if shared is None:
            backbone = create_backbone(config.backbone)
            frozen, tail = backbone.split(config.backbone.freeze)
            if config.head.hypercolumns:
                frozen = backbone.hypercolumns()
        else:
            backbone, frozen, tail = shared.backbone, shared.frozen, nn.Sequential()
        # Building a backbone draws numbers too, and how many depends on its library.
        torch.default_generator.manual_seed(config.seed)
        model = config.head.build(backbone, tail, classes)
    assert isinstance(model, Model)
    network = Network(backbone, frozen, model)
    for part, file in ({} if shared is None else shared.files).items():
        if part != "frozen":
            network.get_submodule(part).load_state_dict(load_file(file))
    return network


def load_network(run: Path, config: Config, manifest: Mapping[str, Any]) -> Network:
    """Build a run's network and load its weights; nothing is downloaded.

    Raises:
        BoxlessError: the weights are missing, damaged, or of another network.
    """
    if not manifest["finished"]:
        raise BoxlessError(f"{run}: the training has not ended: run the same train command again")
    bare = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": "none"})})
    network = build_network(bare, len(manifest["classes"]))
    state: dict[str, torch.Tensor] = {}
    for part, file in weight_files(run, manifest).items():
        if not file.is_file():
            raise BoxlessError(
                f"{file}: missing; a run folder is moved as a whole, with the folder it lies in if it is part of "
                "another run"
            )
        try:
            state |= {f"{part}.{key}": tensor for key, tensor in load_file(file).items()}
        except (SafetensorError, OSError) as error:
            raise BoxlessError(f"{file}: does not load ({in_one_line(error)}); train again") from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BoxlessError(f"{run}: weights of another network ({in_one_line(error)}); train again") from None
    return network


def save_weights(module: nn.Module, file: Path, leave_out: Collection[str] = ()) -> None:
    """Write the weights of a module as safetensors, without those of the submodules named in `leave_out`."""
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
        if not name.startswith(tuple(f"{part}." for part in leave_out))
    }
    with write_whole(file) as handle:
        handle.write(save(state))


def save_network(run: Path, network: Network, shared: Shared | None) -> dict[str, str]:
    """Write the weights of a network into its run folder, without those that the run's networks share.

    Returns:
        Parts of the network -> the files that hold their weights, relative to the run folder.
    """
    files = dict(shared.files) if shared is not None else {}
    if "frozen" not in files and len(network.frozen):
        files["frozen"] = run / BACKBONE
        save_weights(network.frozen, files["frozen"])
    save_weights(network.model, run / WEIGHTS, [part.removeprefix("model.") for part in files])
    paths = {part: Path(os.path.relpath(file, run)).as_posix() for part, file in files.items()}
    return {**paths, "model": WEIGHTS}
