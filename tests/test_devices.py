from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import SEEDED

import boxless
from boxless import devices, loop
from boxless.devices import full_width
from boxless.features import FeatureStore
from boxless.methods import FastRCNN

CPU = torch.device("cpu")
PRODUCTS = getattr(torch.backends.mkldnn, "matmul", None)

pytestmark = pytest.mark.skipif(PRODUCTS is None, reason="this PyTorch has no such setting")


def precision() -> str:
    assert PRODUCTS is not None
    return str(PRODUCTS.fp32_precision)


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor that the setting serves."""
    monkeypatch.setattr(devices, "_exact", lambda: True)
    before = precision()
    yield
    assert precision() == before


def test_the_setting_lasts_as_long_as_the_last_block_of_any_thread():
    before, first, second = precision(), full_width(CPU), full_width(CPU)
    with first:
        assert precision() == "bf16" != before
        second.__enter__()
    # As where one thread is done and another is not.
    assert precision() == "bf16"
    second.__exit__(None, None, None)
    assert precision() == before


def test_the_setting_is_taken_back_after_an_error():
    with pytest.raises(ValueError, match="stop"), full_width(CPU):
        raise ValueError("stop")
    assert precision() != "bf16"


def test_other_devices_and_processors_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch):
    before = precision()
    with full_width(torch.device("meta")):
        assert precision() == before
    monkeypatch.setattr(devices, "_exact", lambda: False)
    with full_width(CPU):
        assert precision() == before


@pytest.mark.parametrize(
    ("has", "exact"),
    [
        ({"avx512_f": True, "avx512_bf16": True, "amx_tile": False}, True),
        ({"avx512_f": True, "avx512_bf16": True, "amx_tile": True}, False),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({"bf16": True, "sve": True}, False),
    ],
)
def test_only_processors_that_do_not_round_count(has: dict[str, bool], exact: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    devices._exact.cache_clear()
    assert devices._exact() == exact
    devices._exact.cache_clear()


def test_products_are_as_exact_as_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    torch.manual_seed(0)
    one, other = torch.randn(300, 200), torch.randn(200, 100)
    with full_width(CPU):
        product = one @ other
    # With factors rounded to bfloat16 the largest error is near 0.1.
    torch.testing.assert_close(product.double(), one.double() @ other.double(), rtol=0, atol=1e-4)


def test_everything_but_stored_maps_is_computed_in_full_width(
    demo: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """Maps that a run stores, those of the monitored split too, must not depend on who computes them."""
    storing, maps, heads, passes = [0], set(), set(), set()
    compute, extract, forward, epoch = FeatureStore.compute, FeatureStore.extract, FastRCNN.forward, loop._epoch

    def spied_compute(self: FeatureStore, *rest: Any) -> Any:
        storing[0] += 1
        try:
            return compute(self, *rest)
        finally:
            storing[0] -= 1

    def spied_extract(self: FeatureStore, *rest: Any) -> Any:
        maps.add((bool(storing[0]), precision()))
        return extract(self, *rest)

    def spied_forward(self: FastRCNN, batch: Any) -> Any:
        heads.add((self.training, precision()))
        return forward(self, batch)

    def spied_epoch(*rest: Any) -> Any:
        passes.add(precision())
        return epoch(*rest)

    for target, spy in ((FeatureStore, spied_compute), (FeatureStore, spied_extract), (FastRCNN, spied_forward)):
        monkeypatch.setattr(target, spy.__name__.removeprefix("spied_"), spy)
    monkeypatch.setattr(loop, "_epoch", spied_epoch)
    options = [*SEEDED, "training.monitor=val"]
    detector = boxless.train(demo, tmp_path / "run", method="seeded", split="train", options=options)
    assert passes == {"bf16"} and heads == {(True, "bf16"), (False, "bf16")}
    assert {mode for stored, mode in maps if stored} == {precision()}
    detector.predict(next((demo / "JPEGImages").iterdir()))
    assert (False, "bf16") in maps
