import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opened_files import Opened
from playwright.sync_api import Browser, sync_playwright

from boxless.demo.data import make_demo

CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROME_ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

TOGETHER = ("tests/campaign", "tests/report", "tests/runtime")
"""Folders whose tests share what takes long to make."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the campaign run with `-m campaign` only."""
    if "campaign" in config.option.markexpr:
        return
    large = [item for item in items if item.get_closest_marker("campaign")]
    if large:
        config.hook.pytest_deselected(items=large)
        items[:] = [item for item in items if item not in large]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Each of several processes computes in one thread: their threads would wait for each other."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, what all tests of a folder share is made in one of the processes only."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache; they share one of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo data set: 16 images in train, 6 in val."""
    return make_demo(tmp_path_factory.mktemp("demo"), seed=5, train=16, val=6)


@pytest.fixture(scope="module")
def short_training() -> Iterator[None]:
    """For tests that do not depend on how well the CAM within a run is trained, see `running.shorten_training`."""
    # Here, as it brings torch, which many tests do not need.
    from running import shorten_training

    with pytest.MonkeyPatch.context() as patch:
        shorten_training(patch)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; tests open pages in contexts of their own."""
    chrome = next(filter(None, map(shutil.which, CHROMES)), None)
    if chrome is None:
        pytest.skip("needs chromium or chrome on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chrome, args=CHROME_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _audit() -> Opened:
    found = Opened()
    sys.addaudithook(found.record)  # Audit hooks cannot be removed; this one records only while it is watching.
    return found


@pytest.fixture
def opened(_audit: Opened) -> Opened:
    """The files that this process opens within `with opened:`."""
    _audit.names.clear()
    _audit.for_writing.clear()
    return _audit
