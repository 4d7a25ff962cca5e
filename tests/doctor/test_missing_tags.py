"""Images whose tags likely lack a class."""

from pathlib import Path

import numpy as np
import pytest
from running import SEEDED

from boxless.cache import load_array
from boxless.config import resolve
from boxless.datasets import load_dataset
from boxless.doctor import examine, missing
from boxless.doctor.missing import average_features, likely_missing
from boxless.features import from_stored
from boxless.structures import Dataset, FloatArray, Sample


def planted(number: int, separation: float) -> tuple[FloatArray, FloatArray]:
    """Descriptors of 20 numbers, of which the first two tell two classes, and the image labels, without a mistake."""
    random = np.random.default_rng(3)
    labels = (random.random((number, 2)) < 0.4).astype(np.float32)
    descriptors = random.normal(size=(number, 20)).astype(np.float32)
    descriptors[:, :2] += separation * labels
    return descriptors, labels


def test_removed_tags_are_found():
    descriptors, truth = planted(300, 5)
    tags = truth.copy()
    shown = np.argwhere(truth == 1)
    removed = shown[np.random.default_rng(1).permutation(len(shown))[:24]]
    tags[tuple(removed.T)] = 0
    found = likely_missing(descriptors, tags)
    assert (found[tuple(removed.T)] > 0).mean() > 0.5
    wrong = (found > 0) & (truth == 0)
    assert wrong.sum() <= 2
    # Only what is absent can be missing.
    assert not found[tags == 1].any()


def test_where_descriptors_tell_nothing_no_image_is_named():
    assert not likely_missing(*planted(100, 0)).any()


def test_unknown_tags_and_classes_without_an_image_are_not_missing():
    descriptors, tags = planted(100, 5)
    tags[:, 1] = 0
    tags[tags[:, 0] == 1, 0] = np.nan
    tags[:3, 0] = 1
    found = likely_missing(descriptors, tags)
    assert not found[:, 1].any() and not found[np.isnan(tags[:, 0]), 0].any()


def test_an_image_is_described_by_the_mean_of_its_map(
    demo: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(missing, "resolve", lambda settings: resolve(settings, options=SEEDED))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    samples = [*load_dataset(demo, "train").samples[:2], Sample("broken", tmp_path / "broken.jpg", frozenset())]
    paths, found = average_features(Dataset("some", ("cat",), tuple(samples)))
    assert paths == [sample.path for sample in samples[:2]]
    maps = [from_stored(load_array(file)).float().numpy() for file in cache.glob("features/*/??/*.npy.zst")]
    expected = [own.mean(axis=(1, 2)) for own in maps]
    assert len(maps) == 2
    np.testing.assert_allclose(sorted(found.tolist()), sorted(map(np.ndarray.tolist, expected)), rtol=1e-3, atol=1e-3)


def test_the_doctor_names_the_images(demo: Path, monkeypatch: pytest.MonkeyPatch):
    plain = examine(demo, "train")
    assert "missing tags" not in {finding["fault"] for finding in plain["findings"]}
    paths = []

    def averages(dataset: object) -> tuple[list[Path], FloatArray]:
        kept = [sample.path for sample in dataset.samples][1:]  # type: ignore[attr-defined]
        paths.extend(kept)
        return kept, np.zeros((len(kept), 4), np.float32)

    name = next(iter(plain["classes"]))
    column = list(plain["classes"]).index(name)

    def likely(descriptors: FloatArray, image_labels: FloatArray) -> FloatArray:
        assert image_labels.shape == (len(descriptors), len(plain["classes"]))
        found = np.zeros_like(image_labels)
        found[2, column], found[5, column] = 0.6, 0.7
        return found

    monkeypatch.setattr(missing, "average_features", averages)
    monkeypatch.setattr(missing, "likely_missing", likely)
    report = examine(demo, "train", missing_tags=True)
    (finding,) = (finding for finding in report["findings"] if finding["fault"] == "missing tags")
    assert finding["classes"] == [name] and finding["level"] == "note" and finding["what"].endswith(": 2")
    assert finding["images"] == [[str(paths[5])], [str(paths[2])]]
    assert report["classes"] == plain["classes"]
