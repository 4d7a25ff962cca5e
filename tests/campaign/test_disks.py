"""Disks that are full, read-only, pulled out or defective, damaged caches, and clocks that jump."""

import errno
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zstandard
from bench import Bench, assert_told, contents
from counting import Tally, cases
from running import boxless

from boxless.cache import SUFFIX
from boxless.cli import main


@contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own in a folder, of this size."""
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


def size_of(found: dict[str, bytes]) -> int:
    """Kilobytes of files, in whole pages."""
    return sum(-(-len(content) // 4096) * 4 for content in found.values())


@pytest.mark.parametrize(
    ("command", "share"),
    [
        ("data", 0.5),
        *(
            pytest.param(command, share, marks=pytest.mark.campaign)
            for command in ("train cam", "train oicr", "predict", "report", "data")
            for share in (0.05, 0.3, 0.7, 0.95)
        ),
    ],
)
def test_a_full_disk_is_one_line_and_with_more_room_the_command_goes_on(
    command: str, share: float, bench: Bench, tmp_path: Path, tallies: defaultdict[str, Tally]
) -> None:
    needed, given = size_of(bench.undisturbed(command).contents), size_of(contents(bench.place(command)))
    with mounted(tmp_path / "disk", given + round(share * (needed - given))) as disk:
        ended = bench.start(command, bench.place(command, disk)).wait()
        assert ended.status == 1 and "the disk is full; free some space" in ended.output, ended.output
        assert [path for path in contents(disk) if Path(path).name.startswith(".") and len(Path(path).name) == 33] == []
        _mount("-o", f"remount,size={10 * needed}k", disk)
        bench.check(command, disk, ended)
    tallies["disks, full"].counts["one line"] += 1


def test_a_read_only_disk_is_one_line_or_where_only_a_copy_is_lost_a_warning(
    bench: Bench, tmp_path: Path, tallies: defaultdict[str, Tally]
) -> None:
    with mounted(tmp_path / "disk", 10**5) as disk:
        bench.place("evaluate", disk)
        _mount("-o", "remount,ro", disk)
        before = contents(disk)
        for command in ("predict", "report", "data"):
            ended = bench.start(command, disk).wait()
            assert ended.status == 1 and "cannot be written (" in ended.output, ended.output
            assert_told(ended)
            tallies["disks, read-only"].counts["one line"] += 1
        scores = tmp_path / "scores.json"
        words = ("evaluate", disk / "run", bench.data, "--split", "val", "--json", scores)
        ended = bench.preloaded.run(*words, environment={"BOXLESS_CACHE": tmp_path / "cache"})
        assert ended.status == 0 and scores.exists() and "Warning: " in ended.output, ended.output
        tallies["disks, read-only"].counts["result written, copy lost with a warning"] += 1
        assert contents(disk) == before


def test_a_disk_that_fails_anywhere_is_one_line_and_what_may_be_a_defect_of_the_code_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("boxless.cli.app", fail)
    number = errno.EIO
    assert boxless(monkeypatch) == 1
    assert capsys.readouterr().err == (
        "Error: some/file: Input/output error; run the same command again once the disk works\n"
    )
    number = errno.ENOENT
    with pytest.raises(FileNotFoundError):
        main()


def _spread(number: int, bench: Bench) -> list[int]:
    """So many file events of a training, spread evenly; one is in its middle."""
    events = bench.undisturbed("train cam").events
    return [round(events * (turn + 0.5) / number) for turn in range(number)]


def _train_with(fault: Callable[[int, Path], str], number: int, bench: Bench, tally: Tally) -> None:
    """Train so many times with a fault, a call of `faults`, at one of the file events."""
    for event in _spread(number, bench):
        place = bench.place("train cam")
        ended = bench.start("train cam", place, f"import faults; {fault(event, place)}").wait()
        bench.check("train cam", place, ended)
        tally.counts["one line" if ended.status else "not noticed"] += 1


@cases(few=0, many=24)
def test_caches_that_vanish_are_one_line_or_not_noticed(
    number: int, bench: Bench, tallies: defaultdict[str, Tally]
) -> None:
    def fault(event: int, place: Path) -> str:
        return f"faults.vanish_at({event}, {str(place)!r}, {str(place / 'cache')!r})"

    _train_with(fault, number, bench, tallies["disks, cache vanishes"])


@cases(few=0, many=40)
def test_files_that_cannot_be_opened_are_one_line_or_not_needed(
    number: int, bench: Bench, tallies: defaultdict[str, Tally]
) -> None:
    def fault(event: int, place: Path) -> str:
        return f"faults.fail_at({event}, {str(place)!r})"

    _train_with(fault, number, bench, tallies["disks, EIO when opened"])


@pytest.mark.campaign
@pytest.mark.parametrize("command", ["train cam", "predict", "evaluate", "report"])
def test_short_reads_change_nothing(
    command: str, bench: Bench, reads: Path | None, tallies: defaultdict[str, Tally]
) -> None:
    if reads is None:
        pytest.skip("needs a C compiler")
    place = bench.place(command)
    ended = bench.start(command, place, FAULT_FOLDER=place.parent).wait()
    assert ended.status == 0, ended.output
    assert contents(place) == bench.undisturbed(command).contents
    tallies["disks, short reads"].counts["not noticed"] += 1


@cases(few=0, many=20)
def test_reads_that_fail_are_one_line_or_computed_anew(
    number: int, bench: Bench, reads: Path | None, tallies: defaultdict[str, Tally]
) -> None:
    if reads is None:
        pytest.skip("needs a C compiler")
    for turn in range(number):
        place = bench.place("train cam")
        ended = bench.start("train cam", place, FAULT_FOLDER=place, FAULT_EVERY=5 + 7 * turn).wait()
        bench.check("train cam", place, ended)
        tallies["disks, EIO when read"].counts["one line" if ended.status else "computed anew"] += 1


@cases(few=1, many=20)
def test_flipped_bits_in_the_cache_are_computed_anew(
    number: int, bench: Bench, tallies: defaultdict[str, Tally]
) -> None:
    random, undisturbed = np.random.default_rng(0), bench.undisturbed("train cam")
    for _ in range(number):
        place = bench.place("train cam")
        for path, content in undisturbed.contents.items():
            if path.endswith(SUFFIX):
                damaged = bytearray(content)
                damaged[int(random.integers(len(damaged)))] ^= 1 << int(random.integers(8))
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).write_bytes(damaged)
                tallies["disks, flipped bits"].counts["computed anew"] += 1
        ended = bench.start("train cam", place).wait()
        assert ended.status == 0 and "damaged cache entry (" in ended.output
        assert unpacked(contents(place)) == unpacked(undisturbed.contents)


def unpacked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same with what compressed arrays hold: bits of their files that mean nothing may stay flipped."""
    return {path: zstandard.decompress(file) if path.endswith(SUFFIX) else file for path, file in files.items()}


@pytest.mark.campaign
@pytest.mark.parametrize("command", ["train cam", "predict", "evaluate", "report"])
@pytest.mark.parametrize("moment", [2**32, 0])
def test_clocks_that_jump_and_files_of_other_times_change_nothing(
    command: str, moment: int, bench: Bench, tallies: defaultdict[str, Tally]
) -> None:
    """Files are of 2106, or of 1970; the clock of the day jumps by years whenever it is read."""
    place = bench.place(command)
    for path in (place, *place.rglob("*")):
        os.utime(path, (moment, moment))
    ended = bench.start(command, place, "import faults; faults.jump_clock()").wait()
    assert ended.status == 0, ended.output
    assert contents(place) == bench.undisturbed(command).contents
    tallies["disks, clocks that jump"].counts["not noticed"] += 1
