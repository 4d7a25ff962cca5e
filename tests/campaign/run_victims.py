"""The files of a run folder, and settings: what is damaged, and what reads it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from victims import YAML_WORDS, Victim

from boxless.config import parse, read_yaml, resolve
from boxless.detector import Detector
from boxless.methods import preset
from boxless.network import build_network, save_network
from boxless.report import write_report
from boxless.run_folder import FORMAT, MANIFEST, check_run, finish_run, read_checkpoint, write_history

SMALL_RUN = ("views.scales=[64]", "backbone.name=regnety_002", "backbone.weights=none")


def make_run(folder: Path) -> Path:
    """A finished run with random weights; returns its folder."""
    config = resolve(preset("cam"), options=SMALL_RUN)
    network = build_network(config, 2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.model_dump(mode="json").items())
    )
    manifest = {
        "format": FORMAT,
        "method": "cam",
        "supervision": "tags",
        "classes": ["cat", "dog"],
        "data": {"name": "made", "images": 3, "digest": ""},
        "skipped": {},
        "weights": {"source": "random", "licence": "none", "frozen": ""},
        "versions": {},
        "seconds": {"training": 1.0},
    }
    finish_run(folder, manifest | {"files": save_network(folder, network, None)})
    write_history(folder, [{"epoch": 1, "image labels": 0.5, "lr": 0.1, "seconds": 1.0}])
    return folder


def _run_with(name: str, text: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        make_run(folder)
        if text:
            (folder / name).write_text(text)
        return folder / name

    return make


def _load(folder: Path) -> Any:
    return Detector.load(folder, "cpu").classes


def _report(folder: Path) -> Any:
    write_report(folder, folder.parent / "report.html")
    return []


def _begin_again(folder: Path) -> Any:
    check_run(folder, parse(read_yaml(folder / "config.yaml"), "config.yaml"))
    return []


def _configure(folder: Path) -> Any:
    return resolve(preset("cam"), folder / "own.yaml").model_dump()


def _resume(folder: Path) -> Any:
    layer = torch.nn.Linear(2, 2)
    return read_checkpoint(folder, layer, torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9))


def _checkpoint(folder: Path) -> Path:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "epochs": 1}
    torch.save(state, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


_SCORES = {"data": "made val", "supervision": "tags", "images": 3, "CorLoc": 0.5, "classes": {}}

RUNS = [
    Victim("JSON", "manifest of a run", _run_with(MANIFEST), _load),
    Victim("JSON", "manifest of a run in a report", _run_with(MANIFEST), _report),
    Victim("JSON lines", "history of a run", _run_with("history.jsonl"), _report),
    Victim("YAML", "configuration of a run", _run_with("config.yaml"), _load, YAML_WORDS),
    Victim("YAML", "configuration of a begun run", _run_with("config.yaml"), _begin_again, YAML_WORDS),
    Victim("YAML", "settings", _run_with("own.yaml", "training: {epochs: 8, lr: 0.1}\n"), _configure, YAML_WORDS),
    Victim("safetensors", "weights of a run", _run_with("weights.safetensors"), _load),
    Victim("checkpoint", "checkpoint of a run", _checkpoint, _resume),
]
