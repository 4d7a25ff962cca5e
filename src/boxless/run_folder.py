"""The run folder: weights, resolved configuration, history and a manifest that names what made them."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim import Optimizer

import boxless.methods  # noqa: F401  (registers the heads that a configuration names)
from boxless.config import Config, parse, read_yaml
from boxless.errors import BoxlessError, in_one_line
from boxless.files import check_writable, read_json, write_json, write_text, write_whole
from boxless.run_path import is_exported, on_hub
from boxless.structures import Annotations, Dataset
from boxless.yaml_keys import ValueDumper

FORMAT = 9
"""Version of the run folder; raised whenever an older Boxless could not read a newer folder or the other way round."""

WEIGHTS = "weights.safetensors"
BACKBONE = "backbone.safetensors"
CONFIG = "config.yaml"
MANIFEST = "manifest.json"
HISTORY = "history.jsonl"
TRAINING_IMAGES = "training_images.txt"
CHECKPOINT = "checkpoint.pt"
CAM_RUN = "cam"
"""Within the run folder, the one of the CAM."""

MAX_SAMPLE_IMAGES = 32
"""Images of the training set that the manifest names, and on which an exported file is compared with its run."""

_KINDS = {
    "method": str,
    "supervision": str,
    "classes": list,
    "data": dict,
    "weights": dict,
    "seconds": dict,
    "finished": bool,
}
"""What is read of every manifest."""


def check_run(run: Path, config: Config) -> None:
    """Check that a run folder is new, or that of a run begun with the same settings.

    Raises:
        BoxlessError: the folder is of another run, holds something else, or cannot be written.
    """
    if (run / MANIFEST).exists():
        read_manifest(run)
        changed = _differences(_decisive(read_config(run)), _decisive(config))
        changes = ", ".join(f"{key} ({old} there, {new} now)" for key, old, new in changed)
        if changes:
            raise BoxlessError(f"{run}: begun with other settings: {changes}; choose another --out, or delete it")
    elif run.is_file() or (run.is_dir() and any(map(_foreign, run.iterdir()))):
        raise BoxlessError(f"{run}: not empty and not a run folder; choose another --out")
    elif (run / CONFIG).exists() and (run / CONFIG).read_text(encoding="utf-8", errors="replace") != _as_yaml(config):
        raise BoxlessError(f"{run / CONFIG}: would be overwritten; choose another --out, or delete it")
    else:
        check_writable(run / MANIFEST)


def _foreign(file: Path) -> bool:
    """Whether a file is not one that a run leaves when it is stopped at its very start."""
    return file.name != CONFIG and not file.name.startswith(".")


def _decisive(config: Config) -> dict[str, Any]:
    """The settings that decide the trained weights."""
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
        used = manifest["supervision"] if manifest["supervision"] in ("tags", "boxes") else "tags or given boxes"
        same = {
            f"images or {used}": begun["data"]["digest"] == manifest["data"]["digest"],
            "classes": begun["classes"] == manifest["classes"],
            "weights of the backbone": begun["weights"] == manifest["weights"],
        }
        for what, fits in same.items():
            if not fits:
                raise BoxlessError(f"{run}: begun on other {what}; choose another --out, or delete it")
        if begun["finished"]:
            _delete_checkpoint(run)
            return True
    write_text(run / CONFIG, _as_yaml(config))
    write_json(run / MANIFEST, manifest)
    return False


def _as_yaml(config: Config) -> str:
    return yaml.dump(config.model_dump(mode="json"), Dumper=ValueDumper, sort_keys=False)


def finish_run(run: Path, manifest: dict[str, Any]) -> None:
    """Mark a run, whose weights are saved, as finished, and delete its checkpoint."""
    write_json(run / MANIFEST, manifest | {"finished": True})
    # Where the process is killed here, `begin_run` does it.
    _delete_checkpoint(run)


def _delete_checkpoint(run: Path) -> None:
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
        manifest = read_json(path.read_text(encoding="utf-8"))
        form = manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        if run.is_file() and is_exported(run):
            raise BoxlessError(
                f"{run}: boxless predict takes it, this needs the run folder that it was exported from"
            ) from None
        if model := on_hub(run):
            raise BoxlessError(
                f"hf://{model.repo}: boxless predict and boxless serve take it; this needs the run folder "
                "on the machine that pushed it"
            ) from None
        raise BoxlessError(
            f"{run}: not a run folder: it has no {MANIFEST}; boxless train ... --out {run} makes one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BoxlessError(f"{path}: damaged ({error}); train again") from None
    if form != FORMAT:
        made_with = manifest.get("versions")
        made_by = made_with.get("boxless") if isinstance(made_with, dict) else "another version"
        raise BoxlessError(
            f"{run}: a run folder of format {form}, made by Boxless {made_by}; this version reads format {FORMAT}. "
            "Install that version, or train again"
        )
    if wrong := [key for key, kind in _KINDS.items() if not isinstance(manifest.get(key), kind)]:
        raise BoxlessError(f"{path}: damaged (missing, or of another kind: {', '.join(wrong)}); train again")
    return dict(manifest)


def public_weights(manifest: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """What a manifest says of the backbone's weights, of a file its name alone, for those who get the detector."""
    weights = config.backbone.weights
    source = str(manifest["weights"].get("source")).replace(weights, Path(weights).name)
    return {**manifest["weights"], "source": source}


def weight_files(run: Path, manifest: Mapping[str, Any]) -> dict[str, Path]:
    """The files of weights, by the part of the network that they hold.

    Raises:
        BoxlessError: there are none, or one is neither in the run folder nor in the run that it is a part of.
    """
    files = manifest.get("files")
    for name in files.values() if isinstance(files, dict) else (None,):
        if not isinstance(name, str) or PurePath(name).is_absolute() or ".." in PurePath(name).parts[1:]:
            raise BoxlessError(f"{run / MANIFEST}: names no weights of this run ({str(name)[:100]!r}); train again")
    return {part: run / name for part, name in manifest["files"].items()}


def save_checkpoint(run: Path, model: nn.Module, optimizer: Optimizer, epochs: int) -> None:
    """Save what a resumed run needs: weights, the optimizer's state, and the number of finished epochs."""
    content = BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs}, content)
    with write_whole(run / CHECKPOINT) as file:
        # PyTorch would turn the error of a full disk into one of its own.
        file.write(content.getbuffer())


def read_checkpoint(run: Path, model: nn.Module, optimizer: Optimizer) -> int:
    """Load a run's checkpoint into the model and the optimizer.

    Returns:
        Epochs done; 0 where there is no checkpoint.

    Raises:
        BoxlessError: the checkpoint is damaged.
    """
    try:
        with zipfile.ZipFile(run / CHECKPOINT) as archive:
            # A compressed one, which PyTorch does not write, may be many times as large as its file.
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("it is compressed")
        state = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epochs"])
    except FileNotFoundError:
        return 0
    except Exception as error:
        raise BoxlessError(f"{run / CHECKPOINT}: damaged ({in_one_line(error)}); delete it to start anew") from None


def write_history(run: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON line an epoch."""
    write_text(run / HISTORY, "".join(json.dumps(row) + "\n" for row in rows))


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of `write_history`; none where there are none yet.

    Raises:
        BoxlessError: the file is damaged.
    """
    path = run / HISTORY
    try:
        rows = [read_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(row[key], int | float) for row in rows for key in ("epoch", "seconds")):
            raise ValueError("an epoch without numbers")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BoxlessError(f"{path}: damaged ({error}); delete it, it only records past epochs") from None
    return rows


def result_file(run: Path, kind: str, data: str) -> Path:
    """Where a run folder has the result of an evaluation.

    Args:
        run: the run folder.
        kind: `metrics` or `diagnosis`.
        data: name of the data that was evaluated on.
    """
    # A split of a table may be called `a/b`.
    return run / f"{kind}-{data.replace(' ', '-').replace('/', '-')}.json"


def read_results(run: Path, kind: str, key: str) -> list[dict[str, Any]]:
    """What evaluations have left in a run folder.

    Args:
        run: the run folder.
        kind: see `result_file`.
        key: that all results of this kind have.

    Raises:
        BoxlessError: a file of it is damaged.
    """
    results = []
    for file in sorted(run.glob(f"{kind}-*.json")):
        try:
            content = read_json(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not content.keys() >= {"data", "classes", key}:
                raise ValueError(f"it lacks 'data', 'classes' or '{key}'")
        except (OSError, ValueError, RecursionError) as error:
            raise BoxlessError(f"{file}: damaged ({error}); evaluate again, or delete it") from None
        results.append(content)
    return results


def write_training_images(run: Path, keys: Sequence[str]) -> None:
    """Record the content keys (`images.content_keys`) of the training images, so that scores of them are marked.

    Raises:
        BoxlessError: the folder cannot be written.
    """
    write_text(run / TRAINING_IMAGES, "".join(f"{key}\n" for key in keys))


def read_training_images(run: Path) -> frozenset[str] | None:
    """Those keys; None where there is no such file, as of a run from the Hugging Face Hub or a network within a run."""
    try:
        return frozenset((run / TRAINING_IMAGES).read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return None


def dataset_digest(dataset: Dataset, keys: Sequence[str]) -> str:
    """A name for the training data: image contents and tags, in order, and the boxes that are trained on."""
    state = hashlib.blake2b(json.dumps(dataset.classes).encode(), digest_size=16)
    for sample, key in zip(dataset.samples, keys, strict=True):
        state.update(json.dumps([sample.id, key, sorted(sample.tags), sorted(sample.unsure)]).encode())
        if sample.annotations is not None:
            state.update(_described(sample.annotations))
        if sample.given is not None:
            state.update(_described(sample.given.right) + b"/" + _described(sample.given.wrong))
            state.update(json.dumps(sorted(sample.given.complete)).encode())
        if sample.counts or sample.points:
            state.update(json.dumps([sorted(sample.counts.items()), sample.points]).encode())
    return state.hexdigest()


def _described(boxes: Annotations) -> bytes:
    return json.dumps([part.tolist() for part in astuple(boxes)]).encode()


def versions() -> dict[str, str]:
    """Versions of the packages that a run's result depends on, without those that a build of another name replaces."""
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
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
