"""From images of every kind to detections and heatmaps."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from toy_detectors import detector

from boxless.config import ProposalConfig, ViewConfig, resolve
from boxless.datasets import load_dataset
from boxless.detector import CachedImage, Detector
from boxless.errors import ImageError
from boxless.images import read_image
from boxless.methods import MILConfig, ViewOutput, preset
from boxless.network import build_network
from boxless.proposals import propose
from boxless.structures import Detections


def depends_on_the_view(maps: Tensor, size: tuple[int, int], boxes: Tensor) -> ViewOutput:
    """Scores of proposals that depend on the whole map of a view."""
    scores = torch.linspace(0.1, 1, len(boxes) * 3).reshape(-1, 3) * maps.abs().mean()
    return ViewOutput((1 + maps.abs().mean()) * torch.tensor([0.6, 0.5, 0.1]), scores)


@pytest.fixture
def toy() -> Detector:
    proposals = ProposalConfig(generator="grid", min_area=0.2)
    return detector(depends_on_the_view, MILConfig(), proposals=proposals, views=ViewConfig(scales=(64, 96)))


@pytest.fixture(scope="module")
def paths(demo: Path) -> list[Path]:
    return [sample.path for sample in load_dataset(demo, "val").samples]


def assert_equal(found: Detections, expected: Detections) -> None:
    assert found.size == expected.size and found.classes == expected.classes
    for name in ("boxes", "scores", "labels", "image_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def as_tensor(path: Path) -> Tensor:
    return torch.from_numpy(read_image(path)).permute(2, 0, 1)


INPUTS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "string": str,
    "array": read_image,
    "pillow": lambda path: Image.fromarray(read_image(path)),
    "tensor": as_tensor,
    "float tensor": lambda path: as_tensor(path).float() / 255,
    "file": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("name", INPUTS)
def test_every_kind_of_image_gives_the_same_result(name: str, toy: Detector, paths: list[Path]):
    image = read_image(paths[0])
    size = (image.shape[1], image.shape[0])
    maps = [toy.features.extract(image, view) for view in toy.views]
    cached = CachedImage(maps, propose(image, toy.config.proposals), size)
    ((expected, expected_heatmaps),) = toy.postprocess_with_heatmaps([cached])
    assert len(expected) > 0
    assert_equal(toy.predict(INPUTS[name](paths[0]), 0), expected)
    np.testing.assert_array_equal(toy.heatmap(INPUTS[name](paths[0])).maps, expected_heatmaps.maps)
    found, heatmaps = toy.predict_with_heatmaps(INPUTS[name](paths[0]))
    assert_equal(found, expected)
    np.testing.assert_array_equal(heatmaps.maps, expected_heatmaps.maps)


@pytest.mark.parametrize("sequence", [list, tuple])
def test_a_list_gives_a_list_in_the_same_order(sequence: Any, toy: Detector, paths: list[Path]):
    images = sequence(convert(path) for convert, path in zip(INPUTS.values(), [*paths, paths[0]], strict=True))
    found, heatmaps = toy.predict(images, 0), toy.heatmap([*paths, paths[0]])
    assert isinstance(found, list) and isinstance(heatmaps, list) and len(found) == len(heatmaps) == 7
    for own, maps, path in zip(found, heatmaps, [*paths, paths[0]], strict=True):
        assert_equal(own, toy.predict([path], 0)[0])
        np.testing.assert_array_equal(maps.maps, toy.heatmap([path])[0].maps)
    assert toy.predict(sequence()) == toy.heatmap(sequence()) == []


def test_the_threshold_selects_boxes(toy: Detector, paths: list[Path]):
    everything = toy.predict(paths[0], 0)
    assert_equal(toy.predict(paths[0]), everything.confident())
    assert 0 < len(everything.confident()) < len(everything)
    middle = float(np.median(everything.scores))
    assert_equal(toy.predict(paths[0], middle), everything.above(middle))
    assert_equal(toy.predict(paths[0], threshold=middle), everything[everything.scores >= middle])
    assert len(toy.predict(paths[0], 1e9)) == 0
    for threshold in (None, middle):
        assert [len(found) for found in toy.predict(paths[:2], threshold)] == [
            len(toy.predict([path], threshold)[0]) for path in paths[:2]
        ]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 30, 4), np.uint8), r"\(h, w, 3\) uint8 RGB"),
        (np.zeros((20, 30, 3), np.float32), r"\(h, w, 3\) uint8 RGB"),
        (torch.zeros(20, 30, 3), r"a tensor must be \(3, h, w\)"),
        (5, "an image is a path, an array, a Pillow image, a tensor or an open binary file, not int"),
        (None, "not NoneType"),
        ({"image": 1}, "not dict"),
        ("https://example.org/a.jpg", "addresses are not downloaded"),
    ],
)
def test_anything_else_is_refused_in_one_line(toy: Detector, image: Any, message: str):
    for call in (toy.predict, toy.heatmap, toy.predict_with_heatmaps, lambda wrong: toy.predict([wrong])):
        with pytest.raises(ImageError, match=message) as error:
            call(image)
        assert "\n" not in str(error.value)


def test_a_file_that_is_no_image_is_named(toy: Detector, tmp_path: Path):
    (tmp_path / "no.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"no\.jpg"):
        toy.predict(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match=r"no\.jpg"), (tmp_path / "no.jpg").open("rb") as file:
        toy.predict(file)


def test_prediction_computes_no_heatmap(toy: Detector, paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.predictor.proposal_heatmap", lambda *_: pytest.fail("a heatmap was computed"))
    assert len(toy.predict(paths[0], 0)) > 0
    assert len(list(toy.predict_files(paths[:2], {}))) == 2


# Many files.


def test_broken_files_are_skipped_and_named(toy: Detector, paths: list[Path], tmp_path: Path):
    (tmp_path / "no.jpg").write_bytes(b"no image")
    files = [paths[0], tmp_path / "no.jpg", paths[1], tmp_path / "gone.jpg"]
    for call in (toy.predict_files, toy.heatmap_files):
        skipped: dict[Path, str] = {}
        found = list(call(files, skipped))
        assert [path for path, *_ in found] == paths[:2]
        assert list(skipped) == [tmp_path / "no.jpg", tmp_path / "gone.jpg"]
        assert all(str(path) in reason for path, reason in skipped.items())
        for path, pixels, *_ in found:
            np.testing.assert_array_equal(pixels, read_image(path))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_images_and_cores(paths: list[Path], threads: Callable[[int], None]):
    # The network of the default method: there the number of torch's threads changes the last bits of a map.
    config = resolve(preset("seeded"), options=["views.scales=[320]"])
    default = Detector(build_network(config, 6), config, list("abcdef"), torch.device("cpu"))
    threads(1)
    expected = [default.predict_with_heatmaps(path) for path in paths[:3]]
    assert all(len(found) for found, _ in expected)
    for number in (2, 3):
        threads(number)
        together = [results[2:] for results in default.heatmap_files(paths[:3], {})]
        alone = [results[2:] for path in paths[:3] for results in default.heatmap_files([path], {})]
        assert torch.get_num_threads() == number
        for results in (together, alone):
            for (found, heatmaps), (detections, maps) in zip(results, expected, strict=True):
                assert_equal(found, detections)
                assert heatmaps.maps.tobytes() == maps.maps.tobytes()
        for found, (detections, _) in zip(default.predict(paths[:3], 0), expected, strict=True):
            assert_equal(found, detections)


def test_an_iteration_that_ends_early_restores_the_number_of_threads(
    toy: Detector, paths: list[Path], threads: Callable[[int], None]
):
    threads(3)
    results = toy.heatmap_files(paths, {})
    next(results)
    assert torch.get_num_threads() == 1
    results.close()
    assert torch.get_num_threads() == 3


def test_a_pillow_image_that_is_not_yet_loaded_may_be_given_several_times(
    toy: Detector, paths: list[Path], tmp_path: Path, threads: Callable[[int], None]
):
    threads(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(paths[0]).save(tmp_path / "turned.webp", exif=exif)
    expected = toy.predict(tmp_path / "turned.webp")
    for _ in range(5):
        with Image.open(tmp_path / "turned.webp") as lazy:
            for found in toy.predict([lazy] * 4):
                np.testing.assert_array_equal(found.boxes, expected.boxes)
