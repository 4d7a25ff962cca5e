"""Views and images that go through a network together on a GPU; here on the CPU, beside one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from running import small_settings

import boxless
from boxless.config import resolve
from boxless.detector import Detector
from boxless.devices import images_at_once, views_at_once
from boxless.evaluation import predict_dataset
from boxless.features import Batch
from boxless.images import read_image
from boxless.methods import preset
from boxless.network import build_network
from boxless.structures import Detections, Heatmaps, Sample

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_on_the_cpu_views_go_one_by_one():
    assert views_at_once([(64, 48), (64, 48), (48, 64)], CPU) == [[0], [1], [2]]
    assert images_at_once(CPU) == 1 < images_at_once(GPU)


def test_on_a_gpu_views_of_one_size_go_together(monkeypatch: pytest.MonkeyPatch):
    sizes = [(64, 48), (48, 64), (64, 48), (64, 48), (500, 500), (500, 500)]
    assert views_at_once(sizes, GPU) == [[0, 2, 3], [1], [4, 5]]
    monkeypatch.setattr("boxless.devices.PIXELS_AT_ONCE", 2 * 64 * 48)
    assert views_at_once(sizes, GPU) == [[0, 2], [3], [1], [4], [5]]
    assert views_at_once([], GPU) == []


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("features", "detector"):
        monkeypatch.setattr(f"boxless.{module}.views_at_once", lambda sizes, device: views_at_once(sizes, GPU))
    for module in ("features", "evaluation"):
        monkeypatch.setattr(f"boxless.{module}.images_at_once", lambda device: images_at_once(GPU))


def untrained(method: str, *settings: str) -> Detector:
    config = resolve(preset(method), None, [*small_settings(method), "views.scales=[96]", *settings])
    return Detector(build_network(config, 6), config, ("ball", "daisy", "fish", "gift", "ladybird", "starfish"), CPU)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("seeded", []),
        ("student", []),
        ("cam", []),
        ("wsddn", ["backbone.freeze=none", "inference.views.scales=[64,96]", "inference.views.flips=true"]),
    ],
)
def test_batches_give_the_results_of_single_views(
    method: str, settings: list[str], demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    detector = untrained(method, *settings)
    dataset = boxless.load_dataset(demo, "train").with_classes(detector.classes, strict=False)
    rows: list[tuple[Detections, Heatmaps]] = []

    def keep(sample: Sample, found: Detections, heatmaps: Heatmaps) -> None:
        rows.append((found, heatmaps))

    predict_dataset(detector, dataset, "Alone", keep)
    alone, batches, forward = list(rows), [], type(detector.model).forward

    def recorded(model: torch.nn.Module, batch: Batch) -> object:
        batches.append(len(batch.sizes))
        return forward(model, batch)  # type: ignore[arg-type]

    rows.clear()
    monkeypatch.setattr(type(detector.model), "forward", recorded)
    as_on_a_gpu(monkeypatch)
    predict_dataset(detector, dataset, "Together", keep)
    assert max(batches) >= 2 and sum(batches) == len(dataset) * len(detector.views)
    assert len(rows) == len(alone) == len(dataset)
    for (found, heatmaps), (single, maps) in zip(rows, alone, strict=True):
        np.testing.assert_array_equal(found.labels, single.labels)
        np.testing.assert_allclose(found.scores, single.scores, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.boxes, single.boxes, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(heatmaps.maps, maps.maps, rtol=1e-3, atol=1e-4)


def test_evaluation_reads_an_image_once_for_all_its_views(demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ["backbone.freeze=none", "inference.views.scales=[64,80]", "inference.views.flips=true"]
    detector, reads = untrained("wsddn", *settings), []

    def counted(path: Path) -> NDArray[np.uint8]:
        reads.append(path)
        return read_image(path)

    for module in ("features", "proposals.store"):
        monkeypatch.setattr(f"boxless.{module}.read_image", counted)
    dataset = boxless.load_dataset(demo, "val").with_classes(detector.classes, strict=False)
    boxless.evaluate(detector, dataset)
    # For the proposals and for the four views.
    assert sorted(reads) == sorted(sample.path for sample in dataset.samples for _ in range(2))
    reads.clear()
    boxless.evaluate(detector, dataset)
    assert sorted(reads) == sorted(sample.path for sample in dataset.samples)
