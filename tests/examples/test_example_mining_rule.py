import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from running_examples import EXAMPLES, SMALL, run_example, unregistered

import boxless
from boxless.methods import PRESETS
from boxless.methods.mining import MINING

QUICK = (*SMALL, "proposals.generator=grid", "proposals.min_area=0.05", "head.hidden=[16]")


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    with unregistered(MINING, PRESETS):
        yield


def test_the_hull_of_a_box_and_its_neighbours():
    mine = runpy.run_path(str(EXAMPLES / "mining_rule.py"))["mine_hull"]
    # IoU with the first: 1, 0.6, 0.6, 0, 0.6; the third scores too little, the fourth is elsewhere.
    boxes = torch.tensor([[10.0, 0, 50, 40], [20, 0, 60, 40], [0, 0, 40, 40], [70, 50, 99, 80], [10, 10, 50, 50]])
    scores = torch.tensor([[0.8, 0.1], [0.4, 0.1], [0.3, 0.1], [0.7, 0.9], [0.5, 0.2]])
    found = mine(boxes, scores.requires_grad_(), torch.tensor([1.0, 1]))
    assert found.boxes.tolist() == [[10, 0, 60, 50], [70, 50, 99, 80]]
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.weights, torch.tensor([0.8, 0.9]))
    assert not found.weights.requires_grad
    assert mine(boxes, scores, torch.tensor([0.0, torch.nan])).boxes.shape == (0, 4)


def test_a_method_with_the_rule_trains_and_is_loaded_without_it(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "hull"
    with unregistered(MINING, PRESETS):
        words = ["train", demo, "--out", run, "--method", "hull", "--split", "train", *QUICK]
        assert run_example("mining_rule.py", words, monkeypatch) == 0
    assert "refine 3" in (run / "history.jsonl").read_text()
    detector = boxless.Detector.load(run)
    assert detector.config.method == "hull"
    assert len(detector.predict(boxless.load_dataset(demo, "val").samples[0].path, threshold=0))
    with pytest.raises(boxless.BoxlessError, match=r"mining 'hull' is unknown; there are top, clusters, spread"):
        boxless.train(demo, run, method="oicr", options=["head.refinement.mining=hull"])
