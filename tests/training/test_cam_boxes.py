from dataclasses import replace
from pathlib import Path

import pytest
import torch
from running import SMALL, shorten_training, weights

import boxless
from boxless.methods import CAM
from boxless.network import build_network


@pytest.mark.slow
def test_objectness_is_fitted_after_training_and_saved(demo: Path, tmp_path: Path):
    dataset = boxless.load_dataset(demo, "train")
    samples = dataset.samples[:5]
    data = replace(dataset, samples=samples)
    detector = boxless.train(data, tmp_path / "run", method="cam", options=SMALL, seed=1)
    model = detector.model
    assert isinstance(model, CAM) and model.objectness is not None
    untrained = build_network(detector.config, len(detector.classes)).model.state_dict()
    fitted = [name for name in untrained if name.startswith("objectness.")]
    assert len(fitted) == 4 and not any(torch.equal(untrained[name], model.state_dict()[name]) for name in fitted)
    loaded = boxless.Detector.load(tmp_path / "run", "cpu")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.model.state_dict().items())
    assert isinstance(loaded.model, CAM) and float(loaded.model.threshold) == pytest.approx(0.1)


@pytest.mark.parametrize("objectness", ["false", "true"])
def test_a_threshold_of_the_settings_is_kept(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objectness: str
):
    shorten_training(monkeypatch)
    options = [*SMALL, "training.epochs=1", "head.threshold=0.33", f"head.objectness={objectness}"]
    boxless.train(demo, tmp_path / "run", method="cam", split="train", options=options)
    assert weights(tmp_path / "run")["model.threshold"].item() == pytest.approx(0.33)
