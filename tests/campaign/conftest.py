"""The campaign against damage: its large part runs with `-m campaign` only, and every part prints what it counted."""

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from counting import Tally

if TYPE_CHECKING:
    from bench import Bench

_TALLIES = pytest.StashKey[defaultdict[str, Tally]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLIES] = defaultdict(Tally)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if "campaign" in config.option.markexpr:
        terminalreporter.section("campaign")
        for part, tally in config.stash[_TALLIES].items():
            terminalreporter.line(f"{part}: {tally}")


@pytest.fixture
def tallies(request: pytest.FixtureRequest) -> defaultdict[str, Tally]:
    """For each part of the campaign its counts, which are printed at the end."""
    return request.config.stash[_TALLIES]


@pytest.fixture(scope="session")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The library that makes reads fail; None where there is no compiler."""
    if shutil.which("cc") is None:
        return None
    library = tmp_path_factory.mktemp("reads") / "reads.so"
    source = Path(__file__).with_name("reads.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def bench(demo: Path, reads: Path | None, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Bench]":
    """Where commands are run, killed and run again."""
    # Here, as they bring torch.
    from archive_server import archive_server
    from bench import Bench
    from preloaded import Preloaded

    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("needs Linux")
    preloaded = Preloaded(tmp_path_factory.mktemp("output"), reads)
    try:
        with archive_server() as server:
            yield Bench(preloaded, demo, tmp_path_factory.mktemp("bench"), server)
    finally:
        preloaded.close()
