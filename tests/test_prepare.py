from pathlib import Path

import pytest
from running import assert_same_bits, boxless, small_settings

CACHED = ("boxless.features.FeatureStore.extract_all", "boxless.proposals.store.generate")


def arrays(cache: Path) -> dict[str, bytes]:
    return {str(file.relative_to(cache)): file.read_bytes() for file in cache.rglob("*.npy.zst")}


@pytest.mark.parametrize("method", ["wsddn", "cam"])
def test_a_training_reads_what_two_shares_prepared(
    method: str, demo: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    words = [demo, "--split", "train", "--method", method, *small_settings(method)]
    assert boxless(monkeypatch, "train", *words, "--out", tmp_path / "alone") == 0
    alone = arrays(cache)
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "shared"))
    assert boxless(monkeypatch, "prepare", *words, "--shards", "2/2") == 0
    half = arrays(tmp_path / "shared")
    assert len(half) == len(alone) / 2
    assert boxless(monkeypatch, "prepare", *words, "--shards", "1/2") == 0
    assert arrays(tmp_path / "shared") == alone and half.items() <= alone.items()

    def unwanted(*_: object) -> None:
        raise AssertionError("computed anew")

    for name in CACHED:
        monkeypatch.setattr(name, unwanted)
    assert boxless(monkeypatch, "train", *words, "--out", tmp_path / "run") == 0
    assert arrays(tmp_path / "shared") == alone
    assert_same_bits(tmp_path / "alone", tmp_path / "run")


def test_without_shards_all_views_of_all_networks_are_prepared(
    demo: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = [demo, "--split", "train", *small_settings("seeded"), "pseudo_labels.mosaics=0"]
    assert boxless(monkeypatch, "prepare", *words) == 0
    said = capsys.readouterr().err
    assert "Prepared in " in said and "Trained" not in said
    prepared = arrays(cache)
    assert boxless(monkeypatch, "train", *words, "--out", tmp_path / "run") == 0
    assert arrays(cache) == prepared


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("0/2", "form i/n"),
        ("3/2", "form i/n"),
        ("2", "form i/n"),
        ("17/17", "train: 16 images, of which share 17/17 has none; give fewer"),
    ],
)
def test_a_wrong_share_is_an_error_before_any_work(
    share: str,
    message: str,
    demo: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert boxless(monkeypatch, "prepare", demo, "--split", "train", "--shards", share) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not cache.exists()


def test_settings_are_checked_as_for_training(
    demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert boxless(monkeypatch, "prepare", demo, "proposals.sise=3") == 1
    assert "proposals.sise" in capsys.readouterr().err
    assert boxless(monkeypatch, "prepare", demo, "--method", "wsdn") == 1
    assert "wsdn" in capsys.readouterr().err
    assert not cache.exists()
