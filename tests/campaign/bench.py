"""Commands in folders of their own, compared with what they do where nothing happens."""

import itertools
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from archive_server import Server
from preloaded import Command, Ended, Preloaded
from running import small_settings

VOLATILE = rb'"seconds": ?(\{[^}]*\}|[-\d.e]+)|"command": ?"(\\.|[^"])*"'
"""What may differ from run to run in a file."""


@dataclass(frozen=True)
class Undisturbed:
    """What a command does where nothing happens.

    Args:
        contents: of the files that it leaves, by their paths.
        seconds: that it takes.
        events: number of its file events, see `faults.EVENTS`.
    """

    contents: dict[str, bytes]
    seconds: float
    events: int


class Bench:
    """Runs commands, each in a folder of its own, in which the cache is too.

    Args:
        preloaded: runs them.
        data: the demo set.
        folder: takes the folders.
        server: has the archives of the command `data`.
    """

    def __init__(self, preloaded: Preloaded, data: Path, folder: Path, server: Server) -> None:
        self.preloaded, self.data, self._folder = preloaded, data, folder
        self._numbers = itertools.count()
        self._archives = [server.archive("a.tar", trainval=["1", "2", "3"]), server.archive("b.tar", test=["4"])]
        self._undisturbed: dict[str, Undisturbed] = {}
        self._trained: Path | None = None

    def place(self, command: str, place: Path | None = None) -> Path:
        """A folder, a new one if none is given, with what a command needs."""
        if place is None:
            place = self._folder / f"{next(self._numbers)}"
            place.mkdir()
        if command in ("predict", "evaluate", "report"):
            shutil.copytree(self.trained(), place / "run")
        return place

    def trained(self) -> Path:
        """A finished run, with which nothing has been done."""
        if self._trained is None:
            place = self.place("train cam")
            assert self.start("train cam", place).wait().status == 0
            self._trained = place / "run"
        return self._trained

    def start(self, command: str, place: Path, first: str = "", **more: object) -> Command:
        """Start a command in its folder, with `more` in its environment; `first` see `Preloaded.start`."""
        run, data = place / "run", self.data
        verb, _, method = command.partition(" ")
        own = ["--split", "train", "--seed", 1, "--out", run, "--method", method]
        words: dict[str, list[object]] = {
            "train": ["train", data, *own, *(small_settings(method) if method else ())],
            "predict": ["predict", run, data / "JPEGImages", "--out", place / "out"],
            "evaluate": ["evaluate", run, data, "--split", "val", "--json", place / "scores.json"],
            "report": ["report", run, data, "--split", "val", "--out", place / "report.html"],
            "data": ["data", "voc2007", "--root", place / "data"],
        }
        if verb == "data":
            first += f"\nfrom boxless.datasets.download import *\nARCHIVES['2007'] = {self._archives!r}"
        environment = {"BOXLESS_CACHE": place / "cache", "NO_PROXY": "127.0.0.1", **more}
        return self.preloaded.start(*words[verb], environment=environment, first=first)

    def undisturbed(self, command: str) -> Undisturbed:
        """What a command does where nothing happens; measured once."""
        if command not in self._undisturbed:
            place = self.place(command)
            count = place / "events"
            first = f"import faults; faults.count_file_events({str(place)!r}, {str(count)!r})"
            ended = self.start(command, place, first).wait()
            assert ended.status == 0, ended.output
            events = int(count.read_text())
            count.unlink()
            self._undisturbed[command] = Undisturbed(contents(place), ended.seconds, events)
        return self._undisturbed[command]

    def check(self, command: str, place: Path, ended: Ended) -> None:
        """Check what a killed command has left, run it again, and compare with what it does undisturbed."""
        assert_told(ended)
        again = self.start(command, place).wait()
        assert again.status == 0, (ended.output, again.output)
        found, expected = contents(place), self.undisturbed(command).contents
        assert found.keys() == expected.keys()
        assert [path for path, content in found.items() if content != expected[path]] == []
        assert self.preloaded.orphans() == []


def assert_told(ended: Ended) -> None:
    """Check that a command has succeeded, was killed, or says in one line why not."""
    assert "Traceback" not in ended.output, ended.output
    assert ended.status in (0, -9) or (ended.status == 1 and "Error: " in ended.output), ended.output


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder by their paths, hidden ones too, without what may differ from run to run."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            if file.suffix in (".json", ".jsonl", ".html"):
                content = re.sub(VOLATILE, b"", content)
            found[file.relative_to(folder).as_posix()] = content
    return found
