import errno
from pathlib import Path

import numpy as np
import pytest

from boxless.cache import entry, load_array, open_store, save_array, unwritable, write_text, write_whole
from boxless.errors import BoxlessError


def test_settings_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path))
    first, again = open_store("maps", {"a": 1, "b": 2}), open_store("maps", {"b": 2, "a": 1})
    assert first == again
    assert open_store("maps", {"a": 2, "b": 2}) != first
    assert '"a": 1' in (first / "settings.json").read_text()


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    path = entry(tmp_path, "abcd")
    save_array(path, array)
    assert path == tmp_path / "ab" / "abcd.npy"
    np.testing.assert_array_equal(load_array(path), array)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
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


def test_a_full_disk_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(BoxlessError, match="the disk is full; free some room"), write_whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match="cannot be written"):
        save_array(tmp_path / "file" / "x.npy", np.zeros(1))
    read_only = unwritable(tmp_path, OSError(errno.EROFS, "Read-only file system"))
    assert "Read-only file system" in str(read_only)
    assert "choose another folder" in str(read_only)


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("長" * 85)
    write_text(path, "whole")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_while_another_beside_it_is(tmp_path: Path) -> None:
    with write_whole(tmp_path / "one") as file:
        file.write(b"first")
        write_text(tmp_path / "other", "second")
    assert (tmp_path / "one").read_text() == "first" and (tmp_path / "other").read_text() == "second"
