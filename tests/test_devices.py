from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import SEEDED

import boxless
from boxless import devices
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
    """As on a processor with AVX-512 alone, where the setting is used."""
    monkeypatch.setattr(devices, "_exact", lambda: True)
    before = precision()
    yield
    assert precision() == before


def test_the_setting_is_restored_by_the_last_block_that_is_left():
    before, first, second = precision(), full_width(CPU), full_width(CPU)
    with first:
        assert precision() == "bf16" != before
        second.__enter__()
    # As where one thread is done and another is not.
    assert precision() == "bf16"
    second.__exit__(None, None, None)
    assert precision() == before


def test_the_setting_is_restored_after_an_error():
    with pytest.raises(ValueError, match="stop"), full_width(CPU):
        raise ValueError("stop")
    assert precision() != "bf16"


def test_other_devices_and_processors_are_unchanged(monkeypatch: pytest.MonkeyPatch):
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
def test_processors_that_would_round_are_excluded(has: dict[str, bool], exact: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    devices._exact.cache_clear()
    assert devices._exact() == exact
    devices._exact.cache_clear()


def test_products_are_exact(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    torch.manual_seed(0)
    one, other = torch.randn(300, 200), torch.randn(200, 100)
    with full_width(CPU):
        product = one @ other
    # With factors rounded to bfloat16 the largest error is near 0.1.
    torch.testing.assert_close(product.double(), one.double() @ other.double(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_everything_but_stored_maps_is_computed_in_full_width(
    demo: Path, tmp_path: Path, cache: Path, short_training: None, monkeypatch: pytest.MonkeyPatch
):
    """Maps that a run stores, those of the monitored split too, must not depend on the processor."""
    storing, maps, heads = [0], set(), set()
    compute, extract, forward = FeatureStore.compute, FeatureStore._forward, FastRCNN.forward

    def recorded_compute(self: FeatureStore, *rest: Any) -> Any:
        storing[0] += 1
        try:
            return compute(self, *rest)
        finally:
            storing[0] -= 1

    def recorded_extraction(self: FeatureStore, *rest: Any) -> Any:
        maps.add((bool(storing[0]), precision()))
        return extract(self, *rest)

    def recorded_forward(self: FastRCNN, batch: Any) -> Any:
        heads.add((self.training, precision()))
        return forward(self, batch)

    monkeypatch.setattr(FeatureStore, "compute", recorded_compute)
    monkeypatch.setattr(FeatureStore, "_forward", recorded_extraction)
    monkeypatch.setattr(FastRCNN, "forward", recorded_forward)
    options = [*SEEDED, "training.epochs=1", "training.monitor=val"]
    detector = boxless.train(demo, tmp_path / "run", method="seeded", split="train", options=options)
    assert heads == {(True, "bf16"), (False, "bf16")}
    assert {mode for stored, mode in maps if stored} == {precision()}
    detector.predict(next((demo / "JPEGImages").iterdir()))
    assert (False, "bf16") in maps
