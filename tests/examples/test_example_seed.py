import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import shorten_training
from running_examples import EXAMPLES, SMALL, run_example, unregistered

import boxless
from boxless.cached_dataset import cache_dataset
from boxless.pseudo_labels import SEEDS

QUICK = (*SMALL, "head.pca_dims=[12,6]", "head.hidden=[16]", "proposals.generator=grid", "proposals.min_area=0.05")


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    with unregistered(SEEDS):
        yield


def test_otsus_threshold_parts_two_levels():
    threshold = runpy.run_path(str(EXAMPLES / "seed.py"))["otsu_threshold"]
    heatmap = np.full((8, 8), 0.2, np.float32)
    heatmap[2:5, 3:7] = 0.8
    assert 0.25 < threshold(heatmap) <= 1
    assert threshold(10 * heatmap - 1) == pytest.approx(threshold((10 * heatmap - 1) / 7), abs=1 / 255)
    # A map without a positive value has no threshold to find.
    assert 0 < threshold(-heatmap) < 1


def test_a_run_starts_from_the_seed(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shorten_training(monkeypatch)
    run, dataset = tmp_path / "run", boxless.load_dataset(demo, "train")
    words = ["train", demo, "--out", run, "--split", "train", "pseudo_labels.seeds=[otsu]", *QUICK]
    assert run_example("seed.py", words, monkeypatch) == 0
    cam = boxless.Detector.load(run / "cam")
    data = cache_dataset(dataset.tags_only(), cam.features, cam.views, None)
    boxes = SEEDS.pop("otsu")(data, cam)
    assert [one.labels.tolist() for one in boxes] == [sorted(sample.tags) for sample in dataset.samples]
    for one, (width, height) in zip(boxes, data.sizes, strict=True):
        assert (one.boxes[:, :2] >= 0).all() and (one.boxes[:, 2:] <= (width, height)).all()
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
    counts = json.loads((run / "manifest.json").read_text())["pseudo_labels"].values()
    assert sum(count["all"] for count in counts) == sum(len(one.labels) for one in boxes)
    # The detector does not need the seed; another training does.
    assert len(boxless.Detector.load(run).predict(dataset.samples[0].path, threshold=0))
    with pytest.raises(boxless.BoxlessError, match="seeds 'otsu' is unknown; there are cam, mixed_cam, local_cam"):
        boxless.train(demo, tmp_path / "other", split="train", options=["pseudo_labels.seeds=[otsu]"])
