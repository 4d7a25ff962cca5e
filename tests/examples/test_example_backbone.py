import json
import runpy
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from running import shorten_training
from running_examples import EXAMPLES, run_example, unregistered
from safetensors.torch import save_file

import boxless
from boxless.backbones import BACKBONES, Backbone
from boxless.config import BackboneConfig
from boxless.features import to_pixels
from boxless.images import read_image

QUICK = (
    "views.scales=[96]",
    "training.epochs=1",
    "head.pca_dims=[12,6]",
    "head.hidden=[16]",
    "proposals.generator=grid",
    "proposals.min_area=0.05",
)


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    with unregistered(BACKBONES):
        yield


def test_a_detector_is_trained_on_the_backbone(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shorten_training(monkeypatch)
    torch.manual_seed(3)
    network = runpy.run_path(str(EXAMPLES / "backbone.py"))["network"]()
    BACKBONES.pop("mine")
    file, run = tmp_path / "mine.safetensors", tmp_path / "run"
    save_file(network.state_dict(), file)
    words = ["train", demo, "--out", run, "--split", "train", "--backbone", "mine", f"backbone.weights={file}", *QUICK]
    assert run_example("backbone.py", words, monkeypatch) == 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["weights"]["source"], manifest["weights"]["licence"]) == (str(file), "mine")
    detector, image = boxless.Detector.load(run), boxless.load_dataset(demo, "train").samples[0].path
    assert len(detector.predict(image, threshold=0))
    # The detector has the weights of the file, and gets the maps of the last block, the second and the third.
    view = detector.views[0]
    pixels = to_pixels(read_image(image), view, Backbone(network, 128, 16, (0.5,) * 3, (0.25,) * 3, "", ""))
    blocks = list(accumulate(network.eval(), lambda maps, block: block(maps), initial=pixels[None]))
    maps = detector.features.extract(read_image(image), view)
    assert maps.shape[0] == 128 + 32 + 64
    torch.testing.assert_close(maps[:128], blocks[4][0].detach(), rtol=2e-3, atol=2e-3)
    # A run loads only where its backbone is registered.
    BACKBONES.pop("mine")
    with pytest.raises(boxless.BoxlessError, match="backbone 'mine' is unknown"):
        boxless.Detector.load(run)


def test_without_a_file_its_weights_are_random():
    mine = runpy.run_path(str(EXAMPLES / "backbone.py"))["mine"]
    backbone = mine(BackboneConfig(name="mine"))
    assert backbone.source == "random"
    # One cell per 16 x 16 pixels, the last ones beyond the border.
    assert backbone.hypercolumns()(torch.zeros(1, 3, 65, 97)).shape == (1, 128 + 32 + 64, 5, 7)
