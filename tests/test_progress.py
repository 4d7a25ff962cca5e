import os
import pty
import subprocess
import sys
from functools import cache

import pytest
from rich.console import Console

from boxless.progress import bars_shown, progress_bars, track

SCRIPT = """
import sys
from boxless.logs import log_to_console
from boxless import progress
from boxless.progress import download_bar, progress_bars, track
import logging
log_to_console()
logger = logging.getLogger("boxless.test")
with progress_bars("off" not in sys.argv):
    for transient in (True, False):
        for item in track(range(3), "Steps", 3, transient=transient):
            pass
        logger.info("epoch 1  " + "loss 0.1234  " * 20)
    with download_bar("file.tar", 100, 10) as advance:
        advance(90)
progress.LOG_AFTER = 0
list(track(range(3), "Slow", 3))
list(track(range(3), "Gone", 3, transient=True))
logger.warning("watch out")
"""


def in_terminal(*words: str, **environment: str) -> str:
    """Standard error of the script in a terminal."""
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, *words], stderr=child, env=env) as process:
        os.close(child)
        output = b""
        while True:
            try:
                read = os.read(parent, 1 << 16)
            except OSError:  # Linux reports the end of a terminal so.
                break
            if not read:
                break
            output += read
    os.close(parent)
    assert process.returncode == 0
    return output.decode()


def test_there_is_a_bar_in_a_terminal():
    output = in_terminal()
    assert "Steps" in output and "3/3" in output and "file.tar" in output
    assert "epoch 1" in output and "Warning: watch out" in output


@pytest.mark.parametrize(("words", "environment"), [(["off"], {}), ([], {"BOXLESS_PROGRESS": "0"})])
def test_bars_are_turned_off_by_the_context_and_the_environment(words: list[str], environment: dict[str, str]):
    output = in_terminal(*words, **environment)
    assert "Steps" not in output and "file.tar" not in output
    assert "epoch 1" in output and "Warning: watch out" in output


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}])
def test_a_log_file_has_neither_bars_nor_blank_nor_wrapped_lines(environment: dict[str, str]):
    env = {**os.environ, "COLUMNS": "80", **environment}
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env, check=True)
    epoch = "epoch 1  " + "loss 0.1234  " * 20
    warning = "\x1b[33mWarning: watch out\x1b[0m" if environment else "Warning: watch out"
    # What takes long is a line, and its end another one; a bar that would disappear again is none.
    slow = [f"Slow: {number} of 3 done" for number in (0, 3)]
    assert run.stderr.splitlines() == [epoch, epoch, *slow, warning]
    assert run.stdout == ""


def test_what_takes_long_is_told_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    clock = iter([0.0, 1, 2, 50, 62])
    monkeypatch.setattr("boxless.progress.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("boxless.progress.bars_shown", lambda: False)
    caplog.set_level("INFO", "boxless")
    assert list(track(range(4), "Slow", 4)) == [0, 1, 2, 3]
    # After 2 seconds, and again a minute later.
    assert caplog.messages == ["Slow: 1 of 4 done", "Slow: 3 of 4 done", "Slow: 4 of 4 done"]


def test_inner_contexts_cannot_turn_bars_on_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setenv("TERM", "xterm")
    # One of its own, as rich keeps the colours of the terminal that a console began with.
    monkeypatch.setattr("boxless.progress.console", cache(lambda: Console(stderr=True)))
    assert bars_shown()
    with progress_bars(False):
        with progress_bars(True):
            assert not bars_shown()
        assert not bars_shown()
    assert bars_shown()


def test_items_pass_through_and_memory_is_released(monkeypatch: pytest.MonkeyPatch):
    released: list[int] = []
    monkeypatch.setattr("boxless.progress.release_memory", lambda: released.append(1))
    items = iter(track(range(45), "Test", 45))
    assert [next(items) for _ in range(21)] == list(range(21)) and len(released) == 1
    assert list(items) == list(range(21, 45))
    assert len(released) == 3
    assert list(track([], "Test", 0)) == [] and len(released) == 3
