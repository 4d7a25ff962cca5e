"""Time and memory that are estimated before a training."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from running import QUICK, SMALL_BACKBONE, assert_same_bits
from torch import Tensor, nn

import boxless
from boxless.config import TrainingConfig
from boxless.errors import BoxlessError
from boxless.features import Batch, Item
from boxless.methods import Model
from boxless.training import engine
from boxless.training import estimate as module
from boxless.training.estimate import Estimate, estimate
from boxless.views import View

VIEWS = (View(64), View(128), View(64, True), View(128, True))
SIZES = ((90, 30), (60, 50), (80, 40))


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(Model):
    """A step takes a second a hundred pixels of the view's longest side and image; 12 weights are trained."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(nn.Sequential(nn.BatchNorm2d(3)).requires_grad_(False))
        self.clock = clock
        self.norm = nn.BatchNorm2d(3)
        self.layer = nn.Conv2d(3, 2, 1, bias=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        assert self.training and not self.tail.training
        self.clock.now += float(batch.sizes.max(dim=1).values.sum()) / 100
        return {"loss": self.layer(self.norm(self.tail(batch.maps))).mean()}


class Items:
    """`VIEWS` of the images in `SIZES`; remembers which were asked for."""

    def __init__(self) -> None:
        self.views, self.data = VIEWS, SimpleNamespace(sizes=SIZES)
        self.asked: list[tuple[int, int]] = []

    def __getitem__(self, index: tuple[int, int]) -> Item:
        self.asked.append(index)
        width, height = VIEWS[index[1]].size(*SIZES[index[0]])
        return Item(torch.rand(3, 4, 4), (height, width))


def run(monkeypatch: pytest.MonkeyPatch, training: TrainingConfig) -> tuple[Estimate, Model, Items]:
    clock, items = Clock(), Items()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "peak_memory", lambda: 5e8)
    torch.manual_seed(0)
    model = Timed(clock)
    found = estimate(Accelerator(cpu=True), model, items, [0, 2], training)  # type: ignore[arg-type]
    return found, model, items


def test_time_is_the_mean_over_scales_and_memory_has_the_optimizer(monkeypatch: pytest.MonkeyPatch):
    found, _, items = run(monkeypatch, TrainingConfig(optimizer="adamw"))
    # Two images of 64 and two of 128 pixels.
    assert found.seconds == pytest.approx((1.28 + 2.56) / 2)
    # Twelve weights, of which AdamW keeps two numbers each.
    assert found.memory == 5e8 + 12 * 4 * 2
    assert run(monkeypatch, TrainingConfig(optimizer="sgd"))[0].memory == 5e8 + 12 * 4
    # The squarest images at the largest scale first, for the memory; what is timed was read once before.
    assert items.asked == [(1, 1), (2, 1), *[(0, 1), (2, 1), (0, 0), (2, 0)] * 2]


def test_weights_buffers_and_gradients_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    before = Timed(Clock()).state_dict()
    _, model, _ = run(monkeypatch, TrainingConfig())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


def test_a_step_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch):
    def fail(*words: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Timed, "forward", fail)
    with pytest.raises(
        BoxlessError, match=r"a step at 128 px does not fit .* lower training.batch_size=8, raise training.accum"
    ):
        run(monkeypatch, TrainingConfig())


@pytest.mark.slow
def test_training_does_not_depend_on_the_estimate(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MIST with DropBlock has random numbers and batch normalisation in what is trained."""
    small = (*QUICK, *SMALL_BACKBONE, "training.epochs=1", "proposals.min_area=0.4")
    options = [*small, "head.drop_block=true", "head.pool=7"]
    boxless.train(demo, tmp_path / "with", method="mist", split="train", options=options)
    monkeypatch.setattr(engine, "estimate", lambda *words: Estimate(0, 0))
    boxless.train(demo, tmp_path / "without", method="mist", split="train", options=options)
    assert_same_bits(tmp_path / "with", tmp_path / "without")
