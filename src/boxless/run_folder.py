"""The run folder: weights, resolved configuration, history and a manifest that names what made them."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.optim import Optimizer

from boxless.backbones import Backbone, create_backbone
from boxless.cache import write_text, write_whole
from boxless.config import Config, parse, read_yaml
from boxless.errors import BoxlessError
from boxless.methods import Model, build_model
from boxless.structures import Dataset

FORMAT = 4
"""Of the run folder; raised whenever an older Boxless could not read a newer folder or the other way round."""

WEIGHTS = "weights.safetensors"
CONFIG = "config.yaml"
MANIFEST = "manifest.json"
HISTORY = "history.jsonl"
LOCALIZER, FOLD, MOSAICS = "localizer", "fold", "mosaics"
"""The folders within a run folder that take the runs of the classifier whose heatmaps give the first boxes, and of the
heads that give second opinions, and the images that were put together."""
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Network:
    """All parts of a detector: the frozen stages, and the model that is trained on their maps."""

    backbone: Backbone
    frozen: nn.Sequential
    model: Model

    def everything(self) -> nn.ModuleDict:
        """Both parts, for saving and loading."""
        return nn.ModuleDict({"frozen": self.frozen, "model": self.model})


def build_network(config: Config, classes: int) -> Network:
    """Build the network of a configuration; new layers are drawn from its seed.

    Raises:
        BoxlessError: the backbone is unknown, its weights cannot be had, or the head does not fit.
    """
    # The caller's random numbers go on as if nothing had been drawn.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = create_backbone(config.backbone)
        frozen, tail = backbone.split(config.backbone.freeze)
        if config.hypercolumns:
            frozen = backbone.hypercolumns()
        # Building a backbone draws numbers too, and how many depends on its library.
        torch.manual_seed(config.seed)
        model = build_model(config, backbone, tail, classes)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    return Network(backbone, frozen, model)


def load_network(run: Path, config: Config, classes: int) -> Network:
    """Build a run's network and load its weights; nothing is downloaded.

    Raises:
        BoxlessError: the weights are missing, damaged, or of another network.
    """
    bare = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": "none"})})
    network = build_network(bare, classes)
    try:
        network.everything().load_state_dict(load_file(run / WEIGHTS))
    except FileNotFoundError:
        raise BoxlessError(
            f"{run}: no {WEIGHTS}; the training has not ended: run the same train command again"
        ) from None
    except (SafetensorError, RuntimeError) as error:
        raise BoxlessError(f"{run / WEIGHTS}: does not load ({str(error)[:300]}); train again") from None
    return network


def save_network(run: Path, network: Network) -> None:
    """Write all weights of a network into its run folder."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.everything().state_dict().items()}
    with write_whole(run / WEIGHTS) as file:
        file.write(save(state))


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def check_run(run: Path, config: Config) -> None:
    """See that a run folder is new, or that of a run begun with the same settings.

    Raises:
        BoxlessError: the folder is of another run or holds something else.
    """
    if (run / MANIFEST).exists():
        read_manifest(run)
        changed = _differences(_decisive(read_config(run)), _decisive(config))
        told = ", ".join(f"{key} ({old} there, {new} now)" for key, old, new in changed)
        if told:
            raise BoxlessError(f"{run}: begun with other settings: {told}; choose another --out, or delete it")
    elif run.is_file() or (run.is_dir() and any(map(_foreign, run.iterdir()))):
        raise BoxlessError(f"{run}: not empty and no run folder; choose another --out")


def _foreign(file: Path) -> bool:
    """Whether a file is none of those that a run may have left that was stopped while it began."""
    return file.name != CONFIG and not file.name.startswith(".")


def _decisive(config: Config) -> dict[str, Any]:
    """The settings that decide what is learned."""
    return config.model_dump(exclude={"training": {"workers", "monitor"}})


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


def begin_run(run: Path, config: Config, manifest: dict[str, Any]) -> bool:
    """Write configuration and manifest, unless the folder already holds this very training, finished.

    Returns:
        Whether it does.

    Raises:
        BoxlessError: the folder was begun on other data, other weights, or by another version.
    """
    if (run / MANIFEST).exists():
        begun = read_manifest(run)
        same = {
            f"images or {config.supervision}": begun["data"]["digest"] == manifest["data"]["digest"],
            "classes": begun["classes"] == manifest["classes"],
            "weights of the backbone": begun["weights"] == manifest["weights"],
        }
        for what, fits in same.items():
            if not fits:
                raise BoxlessError(f"{run}: begun on other {what}; choose another --out, or delete it")
        if begun["finished"]:
            return True
    write_text(run / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    write_json(run / MANIFEST, manifest)
    return False


def finish_run(run: Path, manifest: dict[str, Any]) -> None:
    """Mark a run, whose weights are saved, as finished; the checkpoint has then done its work."""
    write_json(run / MANIFEST, manifest | {"finished": True})
    (run / CHECKPOINT).unlink(missing_ok=True)


def read_config(run: Path) -> Config:
    """The configuration of a run folder.

    Raises:
        BoxlessError: it is missing or does not fit this version.
    """
    return parse(read_yaml(run / CONFIG), str(run / CONFIG))


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        BoxlessError: it is missing, damaged, or of another format.
    """
    path = run / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        form = manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise BoxlessError(
            f"{run}: no run folder: it has no {MANIFEST}; boxless train ... --out {run} makes one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BoxlessError(f"{path}: damaged ({error}); train again") from None
    if form != FORMAT:
        made_by = manifest.get("versions", {}).get("boxless", "another version")
        raise BoxlessError(
            f"{run}: a run folder of format {form}, made by Boxless {made_by}; this version reads format {FORMAT}. "
            "Install that version, or train again"
        )
    return dict(manifest)


def save_checkpoint(run: Path, model: nn.Module, optimizer: Optimizer, epochs: int) -> None:
    """Keep what a resumed run needs: weights, the optimizer's state, and how many epochs are done."""
    with write_whole(run / CHECKPOINT) as file:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs}, file)


def read_checkpoint(run: Path, model: nn.Module, optimizer: Optimizer) -> int:
    """Load a run's checkpoint into the model and the optimizer.

    Returns:
        Epochs done; 0 where there is no checkpoint.

    Raises:
        BoxlessError: the checkpoint is damaged.
    """
    if not (run / CHECKPOINT).exists():
        return 0
    try:
        state = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:
        raise BoxlessError(f"{run / CHECKPOINT}: damaged ({str(error)[:200]}); delete it to start anew") from None
    return int(state["epochs"])


def write_history(run: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON line an epoch."""
    write_text(run / HISTORY, "".join(json.dumps(row) + "\n" for row in rows))


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of `write_history`; none where there are none yet."""
    path = run / HISTORY
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def dataset_digest(dataset: Dataset, keys: Sequence[str]) -> str:
    """A name for what training sees: image contents and tags, in order, and boxes where they were left in."""
    state = hashlib.blake2b(json.dumps(dataset.classes).encode(), digest_size=16)
    for sample, key in zip(dataset.samples, keys, strict=True):
        state.update(json.dumps([sample.id, key, sorted(sample.tags), sorted(sample.unsure)]).encode())
        if sample.annotations is not None:
            state.update(json.dumps([part.tolist() for part in astuple(sample.annotations)]).encode())
    return state.hexdigest()


def versions() -> dict[str, str]:
    """Of everything that decides what a run learns."""
    packages = (
        "boxless",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "opencv-contrib-python-headless",
        "pillow",
        "accelerate",
    )
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
