from pathlib import Path

import numpy as np
import pytest

from boxless.cache import digest, entry, load_array, open_store, save_array
from boxless.errors import BoxlessError


def test_settings_name_the_folder(cache: Path) -> None:
    first, again = open_store("maps", {"a": 1, "b": 2}), open_store("maps", {"b": 2, "a": 1})
    assert first == again == cache / "maps" / digest({"a": 1, "b": 2})
    assert open_store("maps", {"a": 2, "b": 2}) != first
    assert '"a": 1' in (first / "settings.json").read_text()


def test_digests_are_stable() -> None:
    # BLAKE2b (64 bits) of the text {"a": 1}, computed by b2sum -l 64: another digest would orphan every cache.
    assert digest({"a": 1}) == "165b44bb3d3e0923"


def test_arrays_are_loaded_bit_for_bit(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    path = entry(tmp_path, "abcd")
    save_array(path, array)
    assert path == tmp_path / "ab" / "abcd.npy"
    np.testing.assert_array_equal(load_array(path), array)


def test_an_error_names_a_damaged_entry(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    save_array(path, np.zeros((50, 50)))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BoxlessError, match=r"x\.npy: damaged cache entry.*delete it"):
        load_array(path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BoxlessError, match="damaged"):
        load_array(path)


def test_an_error_names_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match=r"file.*cannot be written"):
        save_array(tmp_path / "file" / "x.npy", np.zeros(1))
