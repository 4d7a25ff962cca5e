import logging
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import zstandard

from boxless.cache import digest, entry, find_arrays, load_array, open_store, save_array
from boxless.errors import BoxlessError


def test_settings_name_the_folder(cache: Path) -> None:
    first, again = open_store("maps", {"a": 1, "b": 2}), open_store("maps", {"b": 2, "a": 1})
    assert first == again == cache / "maps" / digest({"a": 1, "b": 2})
    assert open_store("maps", {"a": 2, "b": 2}) != first
    assert '"a": 1' in (first / "settings.json").read_text()


def test_digests_are_stable() -> None:
    # BLAKE2b (64 bits) of the text {"a": 1}, computed by b2sum -l 64: another digest would orphan every cache.
    assert digest({"a": 1}) == "165b44bb3d3e0923"


ARRAY = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float16)


def test_arrays_are_loaded_bit_for_bit(tmp_path: Path) -> None:
    path = entry(tmp_path, "abcd")
    save_array(path, ARRAY)
    assert path == tmp_path / "ab" / "abcd.npy.zst"
    assert find_arrays([path, entry(tmp_path, "ef01")]) == {path}
    loaded = load_array(path)
    assert loaded.dtype == np.float16 and loaded.flags.writeable
    np.testing.assert_array_equal(loaded, ARRAY)
    # As other programs read it.
    np.testing.assert_array_equal(np.load(BytesIO(zstandard.decompress(path.read_bytes()))), ARRAY)


def test_entries_are_frames_of_zstandard(tmp_path: Path) -> None:
    zeros = np.zeros((64, 32, 32), np.float16)
    save_array(tmp_path / "x.npy.zst", zeros)
    content = (tmp_path / "x.npy.zst").read_bytes()
    # RFC 8878, 3.1.1: the magic number, then a descriptor whose third bit says that a checksum follows.
    assert content[:4] == bytes.fromhex("28b52ffd") and content[4] & 0b100
    assert len(content) < zeros.nbytes / 100


def test_an_entry_with_any_bit_flipped_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_array(tmp_path / "x.npy.zst", ARRAY)
    whole = (tmp_path / "x.npy.zst").read_bytes()
    paths = [tmp_path / f"{bit}.npy.zst" for bit in range(8 * len(whole))]
    for bit, path in enumerate(paths):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
    # On a slow machine the progress is logged too, at level INFO.
    with caplog.at_level(logging.WARNING, "boxless"):
        used = find_arrays(paths)
    # A bit of the descriptor means nothing (RFC 8878, 3.1.1.1.1.3).
    assert used == {paths[8 * 4 + 4]}
    np.testing.assert_array_equal(load_array(*used), ARRAY)
    assert len(caplog.messages) == len(paths) - 1
    assert all(".npy.zst: damaged cache entry (" in message for message in caplog.messages)


def test_an_entry_cut_off_or_longer_is_not_used(tmp_path: Path) -> None:
    save_array(tmp_path / "x.npy.zst", ARRAY)
    whole = (tmp_path / "x.npy.zst").read_bytes()
    paths = [tmp_path / f"{length}.npy.zst" for length in range(len(whole) + 2) if length != len(whole)]
    for path in paths:
        path.write_bytes((whole + b"\0")[: int(path.name.partition(".")[0])])
    assert find_arrays(paths) == set()
    for path in [*paths, tmp_path / "none.npy.zst"]:
        with pytest.raises(BoxlessError, match=r"lost or damaged cache entry.*run the same command again"):
            load_array(path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    content, path = BytesIO(), tmp_path / "x.npy.zst"
    np.save(content, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    path.write_bytes(zstandard.compress(content.getvalue()))
    assert find_arrays([path]) == set()
    with pytest.raises(BoxlessError, match="damaged"):
        load_array(path)


def test_an_error_names_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match=r"file.*cannot be written"):
        save_array(tmp_path / "file" / "x.npy.zst", np.zeros(1))


def test_the_root_may_be_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BOXLESS_CACHE", "~/cache")
    assert open_store("maps", {}).is_relative_to(tmp_path / "cache")
