"""What the cache holds, and removing what was not used for longest."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from command_line import boxless

from boxless.cache import entry, open_store, save_array
from boxless.cache_use import cache_contents, record_use, shrink_cache
from boxless.commands.cache import parse_size
from boxless.errors import BoxlessError

KEYS = [f"{number:032x}"[::-1] for number in range(8)]
# Noise is not compressed: an array takes its 430 bytes and the headers.
ARRAY = np.random.default_rng(0).integers(0, 256, 430).astype(np.uint8)


def size() -> int:
    """Bytes that the array takes in the cache."""
    with TemporaryDirectory() as folder:
        save_array(Path(folder) / "array", ARRAY)
        return (Path(folder) / "array").stat().st_size


SIZE = size()


def fill(keys: list[str], scale: int = 512) -> Path:
    """A store with arrays of these keys."""
    store = open_store("features", {"backbone": {"name": "small"}, "scale": scale, "flipped": False})
    for key in keys:
        save_array(entry(store, key), ARRAY)
        os.utime(entry(store, key), (1000, 1000))
    return store


def record(store: Path, keys: list[str], folder: str, time: int) -> Path:
    """A record as another process that has ended left it."""
    name = f"{len(keys):x}{time:x}".rjust(16, "0")
    file = store.parents[1] / "used" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    folders = [store.relative_to(store.parents[1]).as_posix()]
    file.write_text(json.dumps({"images": folder, "keys": keys, "folders": folders}))
    os.utime(file, (time, time))
    return file


def left(store: Path) -> list[str]:
    return [key for key in KEYS if entry(store, key).exists()]


def test_what_was_not_used_for_longest_goes_first(cache: Path):
    store = fill(KEYS)
    old, new = record(store, KEYS[:4], "data/old", 2000), record(store, KEYS[2:6], "data/new", 3000)
    found = [(one.images, one.arrays, one.size, one.time, one.in_use) for one in cache_contents()]
    assert found == [
        ("", 2, 2 * SIZE, 1000, False),
        ("data/old", 2, 2 * SIZE, 2000, False),
        ("data/new", 4, 4 * SIZE, 3000, False),
    ]
    assert {(one.kind, one.made_with) for one in cache_contents()} == {("features", "small, 512 px")}
    assert shrink_cache(9 * SIZE) == (0, 8 * SIZE) and left(store) == KEYS
    assert shrink_cache(6 * SIZE) == (2 * SIZE, 6 * SIZE) and left(store) == KEYS[:6]
    assert shrink_cache(5 * SIZE) == (SIZE, 5 * SIZE) and set(left(store)) > set(KEYS[2:6])
    assert shrink_cache(4 * SIZE)[1] == 4 * SIZE and left(store) == KEYS[2:6]
    assert old.exists() and new.exists()
    assert shrink_cache(0) == (4 * SIZE, 0)
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["locks"]
    assert cache_contents() == []


USE = """
import sys
from pathlib import Path
from boxless.cache import cache_root
from boxless.cache_use import record_use
record_use([cache_root() / sys.argv[1]], {key: Path(f"/data/photos/{key}.jpg") for key in sys.argv[2:]})
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_running_process_uses_stays(cache: Path):
    store = fill(KEYS)
    words = [sys.executable, "-c", USE, store.relative_to(cache).as_posix(), *KEYS[:3]]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert [(one.images, one.arrays, one.in_use) for one in cache_contents()] == [
        ("", 5, False),
        ("data/photos", 3, True),
    ]
    assert shrink_cache(0) == (5 * SIZE, 3 * SIZE) and left(store) == KEYS[:3]
    assert (store / "settings.json").exists()
    # However it ends.
    process.kill()
    process.communicate()
    assert shrink_cache(0) == (3 * SIZE, 0) and left(store) == []


def test_what_this_process_uses_stays_and_is_recorded_once(cache: Path, tmp_path: Path):
    store = fill(KEYS)
    for _ in range(2):
        record_use([store], {key: tmp_path / "photos" / key for key in KEYS[:2]})
        (file,) = (cache / "used").glob("*.json")
        os.utime(file, (1, 1))
    record_use([store], {key: tmp_path / "photos" / key for key in KEYS[:2]})
    assert file.stat().st_mtime > 10**9
    assert shrink_cache(0)[1] == 2 * SIZE and left(store) == KEYS[:2]
    (content,) = cache_contents()
    assert (content.images, content.in_use) == (f"{tmp_path.name}/photos", True)


def test_a_cache_that_can_only_be_read_is_used_all_the_same(cache: Path, monkeypatch: pytest.MonkeyPatch):
    store = fill(KEYS[:1])

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("boxless.cache_use.os.open", denied)
    record_use([store], {KEYS[0]: Path("/data/a.jpg")})
    assert [path.name for path in (cache / "used").iterdir()] == []


def test_another_cache_within_a_process_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch):
    store = fill(KEYS[:2])
    monkeypatch.setenv("BOXLESS_CACHE", str(cache.with_name("another")))
    record_use([store], {KEYS[0]: cache / "a.jpg"})
    assert not (cache / "used").exists()


def test_a_damaged_record_is_as_none(cache: Path):
    store = fill(KEYS)
    record(store, KEYS, "data/old", 2000).write_text("{")
    (cache / "used" / "notes.json").write_text("{}")
    assert [(one.images, one.arrays) for one in cache_contents()] == [("", 8)]
    assert shrink_cache(0) == (8 * SIZE, 0)
    assert {path.name for path in (cache / "used").iterdir()} == {"locks", "notes.json"}


def test_the_command_shows_and_removes(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    assert boxless(monkeypatch, "cache") == 0
    assert "empty" in capsys.readouterr().out
    store = fill(KEYS)
    record(store, KEYS[:4], "data/old", 2000)
    assert boxless(monkeypatch, "cache") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "features" in printed and "data/old" in printed and "not known" in printed
    assert f"{4 * SIZE / 1000:.1f} KB" in printed
    assert boxless(monkeypatch, "cache", "--limit", "3KB") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"removed {3 * SIZE / 1000:.1f} KB, kept {5 * SIZE / 1000:.1f} KB" in told
    assert len(left(store)) == 5
    assert boxless(monkeypatch, "cache", "--limit", "3KB", "--clear") == 1
    assert boxless(monkeypatch, "cache", "--clear") == 0
    assert left(store) == []


def test_sizes():
    sizes = {"20GB": 20 * 10**9, "1.5 tb": 15 * 10**11, "500": 500, "2KB": 2000}
    assert {text: parse_size(text) for text in sizes} == sizes
    for text in ("", "20 GiB", "-1", "1e9", "GB"):
        with pytest.raises(BoxlessError, match="takes a size such as"):
            parse_size(text)
