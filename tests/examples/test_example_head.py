import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from running_examples import EXAMPLES, SMALL, run_example, unregistered
from torch import nn

import boxless
from boxless.config import HEADS
from boxless.methods import PRESETS


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    with unregistered(HEADS, PRESETS):
        yield


def test_the_strongest_locations_are_averaged():
    head = runpy.run_path(str(EXAMPLES / "head.py"))["TopShare"]
    maps = torch.tensor([[[4.0, 1, 0], [3, 2, -9]], [[0, 0, 0], [0, 0, 6]]])
    # Of six locations a third is two, and a tenth is rounded up to one.
    assert head(nn.Sequential(), 1 / 3, (5, 2)).pool(maps).tolist() == [3.5, 3]
    assert head(nn.Sequential(), 0.1, (5, 2)).pool(maps).tolist() == [4, 6]
    assert head(nn.Sequential(), 1.0, (5, 2)).pool(maps).tolist() == pytest.approx([1 / 6, 1])


def test_a_method_with_the_head_trains_predicts_and_needs_its_file(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, image = tmp_path / "run", boxless.load_dataset(demo, "val").samples[0].path
    words = ["train", demo, "--out", run, "--split", "train", "--method", "top_share", "head.share=0.25", *SMALL]
    with unregistered(HEADS, PRESETS):
        assert run_example("head.py", words, monkeypatch) == 0
        detector = boxless.Detector.load(run)
        with pytest.raises(boxless.BoxlessError, match=r"head\.share: Input should be less than or equal to 1"):
            boxless.train(demo, tmp_path / "other", method="top_share", split="train", options=["head.share=2"])
    assert detector.config.head.model_dump() == {"kind": "top_share", "share": 0.25}
    assert not detector.model.threshold.isnan()
    # One box a class: those of heatmaps.
    assert sorted(detector.predict(image, threshold=0).labels.tolist()) == list(range(len(detector.classes)))
    with pytest.raises(boxless.BoxlessError, match=r"head\.kind 'top_share' is unknown; there are cam, "):
        boxless.Detector.load(run)
