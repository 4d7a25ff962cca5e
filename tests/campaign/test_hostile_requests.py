"""A server among hostile requests: it answers the good ones as before, keeps nothing, and writes nothing."""

import random
import socket
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from counting import SCALE, Tally, cases
from hostile import SECRET, connected, hostile, post, raw
from opened_files import Opened
from serving import CLASSES, encoded, known_detector, served

from boxless.server import Limits

LIMITS = Limits(size=250_000, rate=1e6, burst=10**6, waiting=20)


@pytest.fixture
def opened(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Records what is opened; the folder for temporary files is one of this test's own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return opened


def ask(url: str) -> dict[str, Any]:
    """The answer to a good request, which may have to be repeated where the server says so."""
    for _ in range(200):
        try:
            answer = requests.post(f"{url}/predict", files={"file": ("x.png", encoded())}, timeout=60)
        except requests.ConnectionError:
            time.sleep(0.05)
            continue
        if answer.status_code != 503:
            answer.raise_for_status()
            return dict(answer.json())
        time.sleep(0.05)
    raise AssertionError("a good request was refused 200 times")


def used() -> tuple[int, float]:
    """Open files of this process, which is the server's too, and its memory in MB."""
    rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return len(list(Path("/proc/self/fd").iterdir())), int(rows["VmRSS"].split()[0]) / 1000


@cases(few=276, many=20_000)
def test_among_hostile_requests_good_ones_are_answered_and_nothing_is_written(
    number: int, tmp_path: Path, opened: Opened, tallies: defaultdict[str, Tally]
) -> None:
    """For two hostile requests there is a good one."""
    rng, tally = np.random.default_rng(0), tallies["server, hostile requests"]
    kinds = len(hostile(rng))
    assert kinds >= 60
    pairs = [pair for _ in range(-(-number // kinds)) for pair in hostile(rng)][:number]
    random.Random(0).shuffle(pairs)
    ended = threading.Event()
    with served(known_detector(), LIMITS) as url, ThreadPoolExecutor(8) as pool:
        before = ask(url)

        def attack(turn: int) -> int:
            """The status; of a good request 200 where the answer is as before. Answers would take memory themselves."""
            assert not ended.is_set()
            if turn % 3 == 2:
                return 200 if ask(url) == before else 500
            request, allowed = pairs[turn // 3 * 2 + turn % 3]
            return raw(url, request, last=0 in allowed)

        with opened:
            # In six parts, as requests that wait for their turn take memory here.
            outcomes, measured, turns = list[int](), [], range(number * 3 // 2)
            for start in turns[:: number // 4]:
                outcomes += pool.map(attack, turns[start : start + number // 4])
                measured.append(used())
        first, *_, after = measured
        ended.set()
        wrong = []
        for turn, outcome in enumerate(outcomes):
            if turn % 3 == 2:
                assert outcome == 200
                tally.counts["good, answered"] += 1
            else:
                request, allowed = pairs[turn // 3 * 2 + turn % 3]
                tally.counts[f"hostile, {'cut off' if outcome == 0 else outcome}"] += 1
                if outcome not in allowed:
                    wrong.append((outcome, request[:300], allowed))
        assert wrong == []
        assert requests.get(url, timeout=30).status_code == 200
    assert {row["name"] for row in before["detections"]} == set(CLASSES[:2])
    assert opened.for_writing == [] and not [name for name in opened.names if SECRET in name]
    assert list(tmp_path.rglob("*")) == [tmp_path / "temporary"]
    tally.see("MB more at the end than after a sixth", after[1] - first[1])
    assert after[0] <= first[0] + 5 and after[1] < first[1] + 50


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [(24, 2.0), pytest.param(200, max(10.0, 120 * SCALE), marks=pytest.mark.campaign)],
)
def test_many_clients_at_once_slow_silent_and_gone_ones_too(
    clients: int, seconds: float, opened: Opened, tallies: defaultdict[str, Tally]
) -> None:
    """A quarter each sends a byte now and then, sends nothing, hangs up within an upload, and asks well.

    Nobody who asks well waits for a minute, or never gets an answer.
    """
    tally, end = tallies["server, clients at once"], time.monotonic() + seconds
    upload = post(b"x" * 100_000)

    def client(number: int) -> None:
        while time.monotonic() < end:
            kind = ("slow", "silent", "gone", "good")[number % 4]
            try:
                if kind == "good":
                    assert ask(url)["detections"]
                else:
                    with connected(url) as sock:
                        _disturb(sock, kind, upload, end)
            except OSError:
                kind += ", cut off"
            with lock:
                counts[kind] += 1

    lock, counts = threading.Lock(), Counter[str]()
    limits = Limits(size=250_000, rate=1e6, burst=10**6, waiting=20, seconds=min(2, seconds / 2))
    with served(known_detector(), limits) as url:
        before, files = ask(url), used()[0]
        with opened, ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(client, number) for number in range(clients)]
            time.sleep(seconds / 2)
            middle = used()[1]
            for one in running:
                one.result()
        assert ask(url) == before
        deadline = time.monotonic() + 60
        while used()[0] > files + 5 and time.monotonic() < deadline:
            time.sleep(0.1)
        more = used()[1] - middle
        tally.see("MB more at the end than in the middle", more)
        assert used()[0] <= files + 5
        assert counts["good"] >= clients // 4 and not counts["good, cut off"]
        tally.counts += counts
        # Within two seconds memory has not settled.
        assert more < 100 or seconds < 10
    assert opened.for_writing == []


def _disturb(sock: socket.socket, kind: str, upload: bytes, end: float) -> None:
    if kind == "gone":
        sock.sendall(upload[: len(upload) // 2])
    elif kind == "slow":
        for place in range(0, 200):
            if time.monotonic() > end:
                return
            sock.sendall(upload[place : place + 1])
            time.sleep(0.05)
    else:
        sock.settimeout(max(0.1, end - time.monotonic()))
        sock.recv(1)


def test_silent_connections_do_not_lock_others_out(
    monkeypatch: pytest.MonkeyPatch, tallies: defaultdict[str, Tally]
) -> None:
    monkeypatch.setattr("boxless.server.app.MAX_CONNECTIONS", 40)
    limits = Limits(rate=1e6, burst=10**6, seconds=0.5)
    with served(known_detector(), limits) as url:
        # More than are taken at the same time.
        silent = [connected(url) for _ in range(60)]
        try:
            assert ask(url)["detections"]
            tallies["server, silent connections"].counts["and then a good request, answered"] += len(silent)
        finally:
            for sock in silent:
                sock.close()
