"""A checklist that every registered method passes, in the spirit of scikit-learn's checks of estimators."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import assert_same_bits, small_settings

import boxless
from boxless.config import resolve
from boxless.detector import Detector
from boxless.errors import BoxlessError, CancelledError, ImageError
from boxless.images import image_size
from boxless.methods import PRESETS, MILConfig, preset
from boxless.network import Network, Shared, save_network
from boxless.structures import Annotations, Dataset, Detections

pytestmark = [pytest.mark.usefixtures("short_training"), pytest.mark.slow]


@dataclass(frozen=True)
class Reference:
    """A method that was trained with small settings.

    Args:
        method: its name.
        run: the run folder.
        data: the training images; two of them have no object.
        network: the final network as it was when it was saved.
        epochs: number of epochs of all its networks together.
    """

    method: str
    run: Path
    data: Dataset
    network: Network
    epochs: int


def train(data: Dataset, run: Path, method: str, **options: Any) -> Detector:
    return boxless.train(data, run, method=method, options=small_settings(method), seed=1, **options)


@pytest.fixture(scope="module")
def data(demo: Path) -> Dataset:
    dataset = boxless.load_dataset(demo, "train")
    nothing = Annotations(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    first = [replace(sample, tags=frozenset(), annotations=nothing) for sample in dataset.samples[:2]]
    return replace(dataset, samples=(*first, *dataset.samples[2:12]))


@pytest.fixture(scope="module", params=PRESETS)
def reference(
    request: pytest.FixtureRequest, data: Dataset, short_training: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reference]:
    run, networks, rows = tmp_path_factory.mktemp(request.param) / "reference", {}, []

    def keep(folder: Path, network: Network, shared: Shared | None) -> dict[str, str]:
        networks[folder] = network
        return save_network(folder, network, shared)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boxless.training.fit.save_network", keep)
        train(data, run, request.param, on_epoch_end=rows.append)
    yield Reference(request.param, run, data, networks[run], len(rows))


@pytest.fixture
def images(demo: Path) -> list[Path]:
    return [sample.path for sample in boxless.load_dataset(demo, "val").samples]


def assert_equal(found: Detections, expected: Detections) -> None:
    assert found.size == expected.size
    for name in ("boxes", "scores", "labels", "image_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


class Unreadable:
    """Annotations that raise an error when they are read."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"training on tags reads {name} of the annotations")


def test_the_same_seed_gives_the_same_bits_and_no_box_is_read(reference: Reference, tmp_path: Path):
    samples = [replace(sample, annotations=Unreadable()) for sample in reference.data.samples]  # type: ignore[arg-type]
    train(replace(reference.data, samples=tuple(samples)), tmp_path / "unreadable", reference.method)
    assert_same_bits(reference.run, tmp_path / "unreadable")


def after(epochs: int) -> Callable[[dict[str, Any]], bool]:
    """A callback that cancels a training after so many epochs of all its networks."""
    left = iter(range(epochs - 1))
    return lambda row: next(left, None) is not None


def test_a_cancelled_run_resumes_to_the_same_bits(reference: Reference, tmp_path: Path):
    run = tmp_path / "cancelled"
    with pytest.raises(CancelledError, match=r"cancelled after epoch . of .; the same call resumes it"):
        train(reference.data, run, reference.method, on_epoch_end=after(reference.epochs // 2))
    with pytest.raises(BoxlessError, match="the training has not ended: run the same train command again"):
        Detector.load(run)
    rows: list[dict[str, Any]] = []
    train(reference.data, run, reference.method, on_epoch_end=rows.append)
    # Only what was left is trained.
    assert len(rows) == reference.epochs - reference.epochs // 2
    assert_same_bits(reference.run, run)


def test_a_loaded_network_predicts_as_the_one_that_was_saved(reference: Reference, images: list[Path]):
    loaded = Detector.load(reference.run, "cpu")
    saved = Detector(reference.network, loaded.config, loaded.classes, torch.device("cpu"))
    # It is in the manifest.
    saved.calibration = loaded.calibration
    state = loaded.model.state_dict()
    assert state.keys() == saved.model.state_dict().keys()
    for name, tensor in saved.model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, equal_nan=True)
    for found, expected in zip(loaded.predict(images, 0), saved.predict(images, 0), strict=True):
        assert_equal(found, expected)


def test_images_without_objects_are_trained_on(reference: Reference):
    for file in reference.run.rglob("history.jsonl"):
        for row in map(json.loads, file.read_text().splitlines()):
            assert np.isfinite(list(row.values())).all(), file
    used = json.loads((reference.run / "manifest.json").read_text())["data"]
    assert used["images"] == len(reference.data)
    for found in Detector.load(reference.run).predict([sample.path for sample in reference.data.samples[:2]]):
        assert found.image_scores.shape == (len(reference.data.classes),)


def test_an_image_is_predicted_the_same_alone_and_in_a_list(reference: Reference, images: list[Path]):
    detector = Detector.load(reference.run, "cpu")
    together = detector.predict(images, 0)
    assert [found.size for found in together] == [image_size(path) for path in images]
    for path, found in zip(images, together, strict=True):
        assert len(found)
        (alone,) = detector.predict([path], 0)
        assert_equal(found, alone)
        boxes, (width, height) = found.boxes, found.size
        assert (boxes >= 0).all() and (boxes <= np.array([width, height] * 2) + 1e-2).all()
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("size", [(8, 8), (8, 200), (300, 8)])
def test_tiny_images_are_predicted(reference: Reference, size: tuple[int, int]):
    width, height = size
    found = Detector.load(reference.run).predict(np.full((height, width, 3), 90, np.uint8), 0)
    assert found.size == size and np.isfinite(found.scores).all()
    assert (found.boxes >= 0).all() and (found.boxes <= np.array([width, height] * 2) + 1e-2).all()


def test_smaller_images_are_refused(reference: Reference):
    detector = Detector.load(reference.run)
    for width, height in ((1, 1), (200, 7)):
        with pytest.raises(ImageError, match=f"{width}x{height} px; a side under 8 px cannot be used"):
            detector.predict(np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize("method", PRESETS)
def test_one_class_works_or_is_refused_before_training(data: Dataset, tmp_path: Path, images: list[Path], method: str):
    (name,) = data.classes[:1]
    if isinstance(resolve(preset(method)).head, MILConfig):
        with pytest.raises(BoxlessError, match="one class only: a softmax over one class is constant; take --method"):
            train(data, tmp_path / "run", method, classes=[name])
        assert not (tmp_path / "run").exists()
        return
    detector = train(data, tmp_path / "run", method, classes=[name])
    assert detector.classes == (name,)
    assert set(detector.predict(images[0], 0).labels.tolist()) <= {0}
