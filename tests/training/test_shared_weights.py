"""What the networks of a run share is stored once, and every one of them loads by itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SEEDED, weights
from safetensors.torch import load_file

import boxless
from boxless.detector import Detector
from boxless.errors import BoxlessError

pytestmark = [pytest.mark.usefixtures("short_training"), pytest.mark.slow]

FOLDS = ("fold-1-1", "fold-1-2", "fold-2-1", "fold-2-2")
SHARED = {
    "frozen": "../backbone.safetensors",
    "model.cam": "../cam/weights.safetensors",
    "model.pca": "../pca.safetensors",
}


@pytest.fixture(scope="module")
def run(demo: Path, short_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "seeded"
    options = [*SEEDED, "training.epochs=1"]
    boxless.train(demo, folder, method="seeded", split="train", options=options, seed=1, progress=False)
    return folder


@pytest.fixture
def image(demo: Path) -> Path:
    return boxless.load_dataset(demo, "val").samples[0].path


def files(run: Path) -> dict[str, str]:
    return dict(json.loads((run / "manifest.json").read_text())["files"])


def test_every_weight_is_stored_once(run: Path):
    stored = {str(file.relative_to(run)) for file in run.rglob("*.safetensors")}
    folds = {f"{fold}/weights.safetensors" for fold in FOLDS}
    assert (
        stored == {"backbone.safetensors", "pca.safetensors", "weights.safetensors", "cam/weights.safetensors"} | folds
    )
    assert files(run) == {name: file.removeprefix("../") for name, file in SHARED.items()} | {
        "model": "weights.safetensors"
    }
    for fold in FOLDS:
        assert files(run / fold) == SHARED | {"model": "weights.safetensors"}
        assert not any(name.startswith(("cam.", "pca.")) for name in load_file(run / fold / "weights.safetensors"))
    assert files(run / "cam") == {"frozen": "../backbone.safetensors", "model": "weights.safetensors"}


def test_the_files_hold_the_whole_network(run: Path):
    for name in ("", "cam", *FOLDS):
        loaded, stored = Detector.load(run / name, "cpu"), weights(run / name)
        state = {f"model.{key}": value for key, value in loaded.model.state_dict().items()}
        assert state.keys() == {key for key in stored if key.startswith("model.")}
        assert all(torch.equal(value, stored[key]) for key, value in state.items())


@pytest.mark.parametrize("name", ["", "cam", *FOLDS])
def test_every_network_loads_and_predicts(run: Path, image: Path, name: str):
    detector = Detector.load(run / name)
    assert detector.config.method == ("cam" if name == "cam" else "seeded")
    assert len(detector.predict(image, 0))


def test_networks_have_their_cam_and_principal_components_in_common(run: Path):
    final = weights(run)
    for fold in FOLDS:
        own = weights(run / fold)
        for key, tensor in final.items():
            if key.startswith(("frozen.", "model.cam.", "model.pca.")):
                assert torch.equal(own[key], tensor), (fold, key)
        assert not torch.equal(own["model.classify.weight"], final["model.classify.weight"])


def test_a_run_folder_that_was_moved_as_a_whole_loads(run: Path, image: Path, tmp_path: Path):
    moved = shutil.copytree(run, tmp_path / "elsewhere" / "renamed")
    for name in ("", "cam", "fold-1-1"):
        found, expected = (Detector.load(folder / name).predict(image, 0) for folder in (moved, run))
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("file", ["backbone.safetensors", "cam/weights.safetensors", "pca.safetensors"])
def test_a_missing_shared_file_is_named(run: Path, tmp_path: Path, file: str):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / file).unlink()
    name = Path(file).name
    for folder in (copy, copy / "fold-1-1"):
        with pytest.raises(BoxlessError, match=rf"{name}: missing; a run folder is moved as a whole"):
            Detector.load(folder)


def test_a_network_that_was_moved_without_its_run_names_what_is_missing(run: Path, tmp_path: Path):
    alone = shutil.copytree(run / "fold-1-1", tmp_path / "fold-1-1")
    with pytest.raises(BoxlessError, match="missing; a run folder is moved as a whole, with the folder it lies in"):
        Detector.load(alone)


def test_a_damaged_shared_file_is_named(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "pca.safetensors").write_bytes(b"no weights")
    with pytest.raises(BoxlessError, match=r"pca\.safetensors: does not load .*; train again"):
        Detector.load(copy)


def test_weights_of_another_network_are_refused(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.copy(copy / "cam" / "weights.safetensors", copy / "weights.safetensors")
    with pytest.raises(BoxlessError, match="weights of another network"):
        Detector.load(copy)
