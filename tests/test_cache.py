from pathlib import Path

import numpy as np
import pytest

from boxless.cache import checksum, digest, entry, find_arrays, load_array, open_store, save_array
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
    assert path == tmp_path / "ab" / "abcd.npy"
    assert find_arrays([path, entry(tmp_path, "ef01")]) == {path}
    loaded = load_array(path)
    assert loaded.dtype == np.float16 and loaded.flags.writeable
    np.testing.assert_array_equal(loaded, ARRAY)
    np.testing.assert_array_equal(np.load(path), ARRAY)


def test_entries_end_with_their_crc_32(tmp_path: Path) -> None:
    # The CRC-32 of the nine bytes 123456789 is cbf43926, the check value in catalogues of CRCs.
    assert checksum(memoryview(b"123456789")) == bytes.fromhex("2639f4cb")
    save_array(tmp_path / "x.npy", ARRAY)
    content = (tmp_path / "x.npy").read_bytes()
    assert content[-4:] == checksum(memoryview(content)[:-4])


def test_an_entry_with_any_bit_flipped_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_array(tmp_path / "x.npy", ARRAY)
    whole = (tmp_path / "x.npy").read_bytes()
    paths = [tmp_path / f"{bit}.npy" for bit in range(8 * len(whole))]
    for bit, path in enumerate(paths):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
    assert find_arrays([tmp_path / "x.npy", *paths]) == {tmp_path / "x.npy"}
    assert len(caplog.messages) == len(paths)
    assert all(".npy: damaged cache entry (" in message for message in caplog.messages)


def test_an_entry_cut_off_anywhere_is_not_used(tmp_path: Path) -> None:
    save_array(tmp_path / "x.npy", ARRAY)
    whole = (tmp_path / "x.npy").read_bytes()
    paths = [tmp_path / f"{length}.npy" for length in range(len(whole))]
    for length, path in enumerate(paths):
        path.write_bytes(whole[:length])
    # What ends right behind the array was written before there were checksums.
    (old,) = find_arrays(paths)
    assert old.name == f"{len(whole) - 4}.npy"
    np.testing.assert_array_equal(load_array(old), ARRAY)
    for path in [*paths[: len(whole) - 4], tmp_path / "none.npy"]:
        with pytest.raises(BoxlessError, match=r"lost or damaged cache entry.*run the same command again"):
            load_array(path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert find_arrays([path]) == set()
    with pytest.raises(BoxlessError, match="damaged"):
        load_array(path)


def test_an_error_names_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match=r"file.*cannot be written"):
        save_array(tmp_path / "file" / "x.npy", np.zeros(1))


def test_the_root_may_be_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BOXLESS_CACHE", "~/cache")
    assert open_store("maps", {}).is_relative_to(tmp_path / "cache")
