from pathlib import Path

import pytest

from boxless.datasets.demo import make_demo


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's cache is read or filled by tests; what one test computes another may use."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, empty."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo data set: 16 pictures in train, 6 in val."""
    return make_demo(tmp_path_factory.mktemp("demo"), seed=5, train=16, val=6)
