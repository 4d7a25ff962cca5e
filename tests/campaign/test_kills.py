"""Commands that are killed and run again: the same bits as undisturbed, no half file and no process left behind."""

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
from bench import Bench, assert_told, contents
from counting import SCALE, Tally, cases
from preloaded import Command, Ended
from serving import encoded

from boxless.methods import PRESETS

OTHERS = ("predict", "evaluate", "report", "data")
COMMANDS = (*(f"train {method}" for method in PRESETS), *OTHERS)


def _killed(ended: Ended) -> str:
    return "killed" if ended.status == -9 else "ended before"


@pytest.mark.parametrize("command", ["train cam", "predict", "data"])
def test_a_command_killed_at_a_file_event_ends_as_undisturbed_when_run_again(command: str, bench: Bench) -> None:
    """In the middle of those that it has."""
    place, number = bench.place(command), bench.undisturbed(command).events // 2
    ended = bench.start(command, place, f"import faults; faults.kill_at({number}, {str(place)!r})").wait()
    assert ended.status == -9
    bench.check(command, place, ended)


@pytest.mark.campaign
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [max(2, round(12 * SCALE))])
def test_a_command_killed_at_random_ends_as_undisturbed_when_run_again(
    command: str, number: int, bench: Bench, tallies: defaultdict[str, Tally]
) -> None:
    random, undisturbed = np.random.default_rng(COMMANDS.index(command)), bench.undisturbed(command)
    for turn in range(number):
        place = bench.place(command)
        if turn % 2:
            event = int(random.integers(1, undisturbed.events + 1))
            ended = bench.start(command, place, f"import faults; faults.kill_at({event}, {str(place)!r})").wait()
        else:
            ended = bench.start(command, place).kill(random.uniform(0, undisturbed.seconds))
        bench.check(command, place, ended)
        tallies[f"kills, {command}"].counts[_killed(ended)] += 1


TWICE = ("train cam", "train seeded", "train student", *OTHERS)


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("train cam", 1),
        *(pytest.param(command, max(1, round(6 * SCALE)), marks=pytest.mark.campaign) for command in TWICE),
    ],
)
def test_two_commands_at_once_on_one_cache_and_one_run(
    command: str, number: int, bench: Bench, tallies: defaultdict[str, Tally]
) -> None:
    """One of them is killed; the other may have been disturbed, and says so in one line."""
    random, undisturbed = np.random.default_rng(0), bench.undisturbed(command)
    for _ in range(number):
        place = bench.place(command)
        first, second = bench.start(command, place), bench.start(command, place)
        killed = first.kill(random.uniform(0, undisturbed.seconds))
        assert_told(second.wait())
        bench.check(command, place, killed)
        tallies[f"two at once, {command}"].counts[_killed(killed)] += 1


@cases(few=1, many=20)
def test_a_server_killed_among_requests_is_started_again_at_the_same_port(
    number: int, bench: Bench, tmp_path: Path, tallies: defaultdict[str, Tally]
) -> None:
    random, run = np.random.default_rng(0), bench.trained()
    before, answers = contents(run), set[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for _ in range(number + 1):
        server = bench.preloaded.start("serve", run, "--port", port, environment={"BOXLESS_CACHE": tmp_path / "cache"})
        url = _ready(server, port)
        answers.add(_predict(url))
        threads = [threading.Thread(target=_ignore_failures(lambda url=url: _predict(url))) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0, 0.2))
        assert server.kill().status == -9
        for thread in threads:
            thread.join(30)
        assert bench.preloaded.orphans() == []
        tallies["kills, serve"].counts["killed"] += 1
    assert len(answers) == 1
    assert contents(run) == before and not (tmp_path / "cache").exists()


def _ready(server: Command, port: int) -> str:
    for _ in range(600):
        try:
            requests.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
            return f"http://127.0.0.1:{port}"
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError(server.output.read_text())


def _predict(url: str) -> bytes:
    answer = requests.post(f"{url}/predict", files={"file": ("x.png", encoded())}, timeout=60)
    answer.raise_for_status()
    return answer.content


def _ignore_failures(work: Callable[[], object]) -> Callable[[], None]:
    def attempt() -> None:
        try:
            work()
        except requests.RequestException:
            return

    return attempt
