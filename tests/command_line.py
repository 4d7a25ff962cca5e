"""The command line in this process; a module of its own, as not every test needs what `running` imports."""

import pytest

from boxless.cli import main


def boxless(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line in this process; returns its exit status."""
    monkeypatch.setattr("sys.argv", ["boxless", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)
