"""Runs an example as its docstring says, with settings that train in seconds."""

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from boxless.config import config_with
from boxless.registry import Registry

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SMALL = ("backbone.name=regnety_002", "backbone.weights=none", "views.scales=[96]", "training.epochs=1")
"""With random weights nothing is downloaded; the principal components of larger networks take seconds."""


@contextmanager
def unregistered(*registries: Registry[Any]) -> Iterator[None]:
    """Afterwards the registries hold what they held before."""
    before = [dict(registry) for registry in registries]
    try:
        yield
    finally:
        for registry, parts in zip(registries, before, strict=True):
            registry.clear()
            registry.update(parts)
        config_with.cache_clear()


def run_example(name: str, words: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> int:
    """`python NAME WORDS...` in this process; returns the exit status."""
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return int(stopped.value.code or 0)
