from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SMALL, as_stored, shorten_training, weights

import boxless
from boxless.images import read_image
from boxless.methods import CAM, HeatmapModel
from boxless.run_folder import build_network
from boxless.structures import FloatArray
from boxless.training.cam_boxes import THRESHOLDS, chance_corrected_iou, consistent_threshold
from boxless.views import View

# Consistency of boxes across two scales.


def test_chance_corrected_iou_by_hand():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    assert chance_corrected_iou(boxes, boxes) == pytest.approx(1)
    # Each has 1/2 with its own, 0 with the other.
    half = np.array([[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 0.75]], np.float32)
    assert chance_corrected_iou(boxes, half) == pytest.approx(0.5)
    whole = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32)
    assert chance_corrected_iou(whole, whole) == 0
    # (1/2 + 1/2 + 1) / 3 with its own, (1 + 1) / 6 with the others.
    three = np.array([[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.2], [0.5, 0.5, 1, 1]], np.float32)
    expected = (2 / 3 - 1 / 3) / (1 - 1 / 3)
    assert chance_corrected_iou(three, three[[1, 0, 2]]) == pytest.approx(expected, abs=1e-6)


def pair(overlap: float) -> tuple[FloatArray, FloatArray]:
    """Two objects far from each other, of which two scales give boxes of this IoU."""
    boxes = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]], np.float32)
    return boxes, boxes - np.array([0, 0, 0, 0.4 * (1 - overlap)], np.float32)


def test_the_threshold_is_a_geometric_mean_weighted_by_consistency():
    assert consistent_threshold({0.1: pair(0.8), 0.4: pair(0.8)}) == pytest.approx(0.2, rel=1e-4)
    assert consistent_threshold({0.1: pair(0.9), 0.4: pair(0.3)}) == pytest.approx(0.1, rel=1e-4)
    # A chance-corrected IoU higher by 0.02 has e times the weight.
    mean = np.exp((np.e * np.log(0.1) + np.log(0.4)) / (np.e + 1))
    assert consistent_threshold({0.1: pair(0.82), 0.4: pair(0.8)}) == pytest.approx(mean, rel=1e-3)
    expected = np.exp(np.mean(np.log(THRESHOLDS)))
    assert consistent_threshold({value: pair(0.5) for value in THRESHOLDS}) == pytest.approx(expected)


# Fitting after training.


@pytest.mark.slow
def test_objectness_and_threshold_are_fitted_after_training_and_saved(demo: Path, tmp_path: Path):
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
    # The threshold is the one at which the boxes of two scales are most consistent, over all objects.
    assert isinstance(loaded.model, HeatmapModel)
    threshold = float(loaded.model.threshold)
    pairs: dict[float, tuple[FloatArray, FloatArray]] = {}
    for value in THRESHOLDS:
        loaded.model.threshold.fill_(value)
        boxes: list[list[FloatArray]] = [[], []]
        for sample in samples:
            image = read_image(sample.path)
            size = (image.shape[1], image.shape[0])
            for found, view in zip(boxes, (View(160), View(220)), strict=True):
                maps = [loaded.features.extract(image, view)]
                # The first is read from the cache.
                maps = [as_stored(one).float() for one in maps] if view == View(160) else maps
                own = loaded.with_views([view]).boxes_for_labels(maps, None, size, sorted(sample.tags))
                found.append(np.asarray(own / np.array([*size, *size], np.float32), np.float32))
        pairs[value] = (np.concatenate(boxes[0]), np.concatenate(boxes[1]))
    assert threshold == pytest.approx(consistent_threshold(pairs), rel=1e-3)
    assert THRESHOLDS[0] < threshold < THRESHOLDS[-1]


@pytest.mark.parametrize("objectness", ["false", "true"])
def test_a_threshold_of_the_settings_is_kept(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objectness: str
):
    shorten_training(monkeypatch)
    options = [*SMALL, "training.epochs=1", "head.threshold=0.33", f"head.objectness={objectness}"]
    boxless.train(demo, tmp_path / "run", method="cam", split="train", options=options)
    assert weights(tmp_path / "run")["model.threshold"].item() == pytest.approx(0.33)
