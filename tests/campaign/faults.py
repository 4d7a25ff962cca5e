"""What goes wrong in a command: statements for `Preloaded.start`."""

import atexit
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = ("open", "os.link", "os.remove", "os.mkdir", "os.listdir", "os.scandir")
"""Not the instant between `link` and `rename`, after which a whole file under a hidden name would remain."""


def at_file_event(number: int, folder: str, action: Callable[[str], Any]) -> None:
    """Act at the file event of this number, from 1 on, of those in a folder, with the path concerned."""
    left = [number]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and _is_below(args[0], folder):
            left[0] -= 1
            if left[0] == 0:
                action(os.fsdecode(args[0]))

    sys.addaudithook(watch)


def count_file_events(folder: str, into: str) -> None:
    """Write the number of file events in a folder to a file when the command ends."""
    number = [0]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        number[0] += event in EVENTS and _is_below(args[0], folder)

    sys.addaudithook(watch)
    atexit.register(lambda: Path(into).write_text(str(number[0])))


def _is_below(path: object, folder: str) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(folder)


def kill_at(number: int, folder: str) -> None:
    """Kill the process at a file event."""
    at_file_event(number, folder, lambda path: os.kill(os.getpid(), signal.SIGKILL))


def vanish_at(number: int, folder: str, victim: str) -> None:
    """Delete a folder with all in it at a file event in `folder`, as if its disk were pulled out."""
    at_file_event(number, folder, lambda path: shutil.rmtree(victim, ignore_errors=True))


def fail_at(number: int, folder: str) -> None:
    """Let a file event in a folder fail, as a disk does that has defects."""

    def fail(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    at_file_event(number, folder, fail)


def jump_clock() -> None:
    """Let the clock of the day jump by years, back and forth, at every look."""
    jumps, look = iter(range(10**9)), time.time
    time.time = lambda: look() + (-1) ** next(jumps) * 4e8
