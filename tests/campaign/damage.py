"""Damages a file many times over, and checks what becomes of it."""

import signal
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from counting import Tally
from mutations import damaged, distorted, with_checksums
from victims import Victim

from boxless.errors import BoxlessError

SECONDS, MEGABYTES = 10, 1000
"""No file may take more."""
HANGS = 300
"""Seconds, on a machine that does other work too, after which it has hung."""
TREES = ("JSON", "JSON lines", "YAML")


def damage_often(victim: Victim, number: int, folder: Path, tally: Tally) -> None:
    """Read so many damaged copies of a file: each is refused in one line, or skipped and counted, or read.

    Args:
        victim: the file.
        number: of copies.
        folder: takes it.
        tally: receives the outcomes.
    """
    file = victim.make(folder)
    content, whole = file.read_bytes(), victim.read(folder)
    failures = []
    for case in range(number):
        random = np.random.default_rng((zlib.crc32(victim.name.encode()), case))
        if victim.form in TREES and case % 2:
            copy = distorted(content, random, victim.form)
        else:
            copy = damaged(content, random, victim.words)
        if victim.form == "PNG" and case % 2:
            copy = with_checksums(copy)
        file.write_bytes(copy)
        try:
            with bounded(tally):
                outcome = _attempt(victim, folder, whole)
        except Exception:
            failures.append(f"case {case}: {copy[:2000]!r}\n{traceback.format_exc(limit=-5)}")
        else:
            tally.counts[outcome] += 1
    assert not failures, f"{len(failures)} of {number}:\n\n" + "\n".join(failures[:10])


def _attempt(victim: Victim, folder: Path, whole: Any) -> str:
    """What becomes of a damaged file: it is refused, something is reported, or it is read without a word."""
    try:
        told = victim.read(folder)
    except BoxlessError as error:
        first, *rest = str(error).splitlines()
        # Lines that follow are a list of details.
        assert first.strip() and all(line.startswith("  ") for line in rest), str(error)
        assert len(str(error)) < 5000
        return "refused"
    return "read" if told == whole else "reported"


@contextmanager
def bounded(tally: Tally) -> Iterator[None]:
    """Fail if the block takes too much time of the processor, or too much memory, or hangs."""

    def stop(*_: object) -> None:
        raise AssertionError(f"it has not ended after {HANGS} s")

    before = signal.signal(signal.SIGALRM, stop)
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew, see proc(5).
    resident, start = _status("VmRSS"), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seconds, megabytes = time.process_time() - start, (_status("VmHWM") - resident) / 1000
    tally.see("s", seconds)
    tally.see("MB", megabytes)
    assert seconds < SECONDS and megabytes < MEGABYTES


def _status(key: str) -> int:
    """A row of /proc/self/status in kB."""
    rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows[key].split()[0])
