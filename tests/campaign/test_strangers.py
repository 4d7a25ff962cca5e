"""Files from strangers: nothing in them is executed, no other file is read, and they fill neither memory nor time."""

import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import Tally
from damage import bounded
from PIL import Image
from run_victims import SMALL_RUN, make_run
from safetensors.torch import load_file, save_file

from boxless.backbones.weights import read_weights
from boxless.config import read_yaml, resolve
from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.images import read_image
from boxless.methods import preset
from boxless.run_folder import check_run, read_checkpoint


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "stranger")


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """Exists if code from a file was executed."""
    return tmp_path / "executed"


def read_all(run: Path) -> None:
    """Everything that reads the files of a run folder."""
    layer = torch.nn.Linear(2, 2)
    read_checkpoint(run, layer, torch.optim.SGD(layer.parameters(), 0.1))
    check_run(run, resolve(preset("cam"), run / "config.yaml", SMALL_RUN))
    Detector.load(run, "cpu")


def test_the_payload_works(executed: Path, tmp_path: Path) -> None:
    torch.save(Payload(executed), tmp_path / "file")
    torch.load(tmp_path / "file", weights_only=False)
    assert executed.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "backbone.safetensors", "checkpoint.pt"])
@pytest.mark.parametrize("modern", [True, False])
def test_pickles_in_a_run_are_not_executed(name: str, modern: bool, run: Path, executed: Path) -> None:
    content = {"model": Payload(executed), "optimizer": Payload(executed), "epochs": 1}
    torch.save(content, run / name, _use_new_zipfile_serialization=modern)
    with pytest.raises(BoxlessError, match=f"{name}: (does not load|damaged)"):
        read_all(run)
    assert not executed.exists()


def test_pickles_as_weights_of_a_backbone_are_not_executed(executed: Path, tmp_path: Path) -> None:
    torch.save({"layer": Payload(executed)}, tmp_path / "weights.pth")
    with pytest.raises(BoxlessError, match="no PyTorch state dict"):
        read_weights(tmp_path / "weights.pth")
    assert not executed.exists()


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.mkdir [{}]", "!!python/object/new:os.mkdir [[{}]]", "!!python/name:os.mkdir {}"]
)
def test_tags_of_yaml_are_not_executed(text: str, run: Path, executed: Path) -> None:
    value = text.format(executed)
    with (run / "config.yaml").open("a") as file:
        file.write(f"\nseed: {value}\n")
    (run / "data.yaml").write_text(f"names: {value}\ntrain: {value}\n")
    with pytest.raises(BoxlessError, match=r"config\.yaml: not valid YAML"):
        Detector.load(run, "cpu")
    with pytest.raises(BoxlessError):
        load_dataset(run / "data.yaml")
    with pytest.raises(BoxlessError):
        resolve(preset("cam"), None, [f"seed={value}"])
    assert not executed.exists()


@pytest.mark.parametrize("name", ["/elsewhere/secret.safetensors", "../../secret.safetensors", "a/../../../secret", 5])
def test_weights_elsewhere_are_not_read(name: object, run: Path) -> None:
    """Not even those that would fit."""
    save_file(load_file(run / "weights.safetensors"), run.parents[1] / "secret.safetensors")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"]["model"] = name
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BoxlessError, match=r"manifest\.json: names no weights of this run"):
        Detector.load(run, "cpu")


def test_pipes_and_devices_are_no_weights(run: Path) -> None:
    (run / "weights.safetensors").unlink()
    os.mkfifo(run / "weights.safetensors")
    with pytest.raises(BoxlessError, match=r"weights\.safetensors: missing"):
        Detector.load(run, "cpu")


# What is small as a file and large in memory.

LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
ALIASES = f"l0: &l0 [ha]\n{LAUGHS}"


@pytest.mark.parametrize("key", ["names", "train", "path", "boxless_labels"])
def test_aliases_of_yaml_are_not_written_out(key: str, tmp_path: Path) -> None:
    rest = {"names": "[cat]", "train": "."}
    rest[key] = "*l11"
    (tmp_path / "data.yaml").write_text(ALIASES + "".join(f"{name}: {value}\n" for name, value in rest.items()))
    with bounded(Tally()), pytest.raises(BoxlessError, match=rf"data\.yaml: .*`{key}`"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("place", ["seed: *l11", "head: *l11", "head: {kind: *l11}", "training: {epochs: *l11}"])
def test_aliases_in_settings_are_not_written_out(place: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"{ALIASES}{place}\n")
    with bounded(Tally()), pytest.raises(BoxlessError):
        resolve(preset("cam"), tmp_path / "own.yaml")
    with bounded(Tally()):
        assert "l11" in read_yaml(tmp_path / "own.yaml")


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(run: Path) -> None:
    with zipfile.ZipFile(run / "checkpoint.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(3 * 10**7))
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    with bounded(Tally()), pytest.raises(BoxlessError, match="it is compressed"):
        read_all(run)


def _exif(turned: bool) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    return exif


@pytest.mark.parametrize(
    ("mode", "suffix", "turned"),
    [
        ("P", ".png", False),
        *(
            pytest.param(*kind, marks=pytest.mark.campaign)
            for kind in (("RGB", ".png", True), ("RGBA", ".png", True), ("I;16", ".png", False), ("F", ".tif", True))
        ),
    ],
)
def test_the_largest_image_that_is_read_takes_less_than_a_gigabyte(
    mode: str, suffix: str, turned: bool, tmp_path: Path, tallies: defaultdict[str, Tally]
) -> None:
    side = int(np.sqrt(Image.MAX_IMAGE_PIXELS or 0))
    options = {"compression": "tiff_adobe_deflate"} if suffix == ".tif" else {"transparency": 0} if mode == "P" else {}
    Image.new(mode, (side, side), 1).save(tmp_path / f"large{suffix}", exif=_exif(turned), **options)
    assert (tmp_path / f"large{suffix}").stat().st_size < 10**6
    with bounded(tallies["strangers, the largest images"]):
        assert read_image(tmp_path / f"large{suffix}").shape == (side, side, 3)
    Image.new("1", (side + 1, side + 1)).save(tmp_path / "larger.png")
    with bounded(Tally()), pytest.raises(BoxlessError, match="too many to decode safely"):
        read_image(tmp_path / "larger.png")
