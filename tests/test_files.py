import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from boxless.errors import BoxlessError
from boxless.files import check_writable, expand_user, unwritable, write_json, write_text, write_whole


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


WRITE = """
import os, pathlib, signal, sys
from boxless.files import write_whole
with write_whole(pathlib.Path(sys.argv[1])) as file:
    file.write(b"x" * 10**6)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs Linux")
def test_a_killed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", WRITE, path]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs Linux")
def test_a_new_file_gets_its_name_at_once_so_that_no_kill_leaves_it_under_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, names, link = tmp_path / "file", list[Path](), os.link

    def recorded(source: str, name: Path, **options: int) -> None:
        names.append(name)
        link(source, name, **options)

    monkeypatch.setattr(os, "link", recorded)
    write_text(path, "first")
    assert names == [path] and path.read_text() == "first"
    # A link replaces no file.
    write_text(path, "second")
    assert names[1] == path and names[2].name.startswith(".")
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]


def test_files_are_written_as_well_where_all_files_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "one", "old")
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    with pytest.raises(KeyboardInterrupt), write_whole(tmp_path / "one") as file:
        (temporary,) = set(tmp_path.iterdir()) - {tmp_path / "one"}
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [tmp_path / "one"] and not temporary.exists()
    write_text(tmp_path / "one", "new")
    write_text(tmp_path / "two", "new")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"one": "new", "two": "new"}
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "two").stat().st_mode


def test_a_full_disk_is_an_error_that_says_how_to_resume(tmp_path: Path) -> None:
    with pytest.raises(BoxlessError, match="the disk is full; free some space"), write_whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_an_error_that_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match=r"x\.txt: cannot be written"):
        write_text(tmp_path / "file" / "x.txt", "")
    read_only = unwritable(tmp_path, OSError(errno.EROFS, "Read-only file system"))
    assert "Read-only file system" in str(read_only)
    assert "choose another folder" in str(read_only)


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_longest_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("長" * 85)
    write_text(path, "whole")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_two_files_of_a_folder_can_be_written_at_the_same_time(tmp_path: Path) -> None:
    with write_whole(tmp_path / "one") as file:
        file.write(b"first")
        write_text(tmp_path / "other", "second")
    assert (tmp_path / "one").read_text() == "first" and (tmp_path / "other").read_text() == "second"


def test_json_is_readable_text(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"größe": [1, 2.5, None]})
    text = (tmp_path / "new" / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"größe": [1, 2.5, None]}
    assert "größe" in text and text.endswith("}\n")


def test_a_link_stays_and_the_file_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("old")
    for name, target in (("file", "real/a.json"), ("again", "file"), ("new", "real/b.json")):
        (tmp_path / name).symlink_to(target)
    for name in ("file", "again", "new"):
        write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == name
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["a.json", "b.json"]
    with pytest.raises(KeyboardInterrupt), write_whole(tmp_path / "file"):
        raise KeyboardInterrupt
    assert (tmp_path / "real" / "a.json").read_text() == "again"


def test_a_named_pipe_and_a_device_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        read: list[str] = []
        reader = threading.Thread(target=lambda read=read: read.append((tmp_path / "pipe").read_text()))
        reader.start()
        write_text(tmp_path / name, "through")
        reader.join(10)
        assert read == ["through"] and (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    write_text(Path("/dev/null"), "away")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("redirected", [True, False])
def test_standard_output_is_written_to_between_what_is_printed(tmp_path: Path, name: str, redirected: bool) -> None:
    code = f"import pathlib, boxless.files as f; print('a'); f.write_text(pathlib.Path({name!r}), 'b\\n'); print('c')"
    with (tmp_path / "out").open("wb") as file:
        run = subprocess.run(
            [sys.executable, "-c", code],
            stdout=file if redirected else subprocess.PIPE,
            cwd=tmp_path,
            check=True,
        )
    assert ((tmp_path / "out").read_bytes() if redirected else run.stdout) == b"a\nb\nc\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_home_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_text(Path("~/sub/a.txt"), "whole")
    assert (tmp_path / "sub" / "a.txt").read_text() == "whole"
    assert expand_user("~") == tmp_path
    assert expand_user("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")


def test_names_that_are_not_utf_8_are_written_without_loss(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write_text(tmp_path / "a.txt", f"größe {name}")
    assert (tmp_path / "a.txt").read_bytes() == "größe ".encode() + b"caf\xe9.jpg"
    write_text(tmp_path / "b.txt", f"\ud800 {name}")
    assert (tmp_path / "b.txt").read_text() == r"\ud800 caf\udce9.jpg"
    write_json(tmp_path / "a.json", {"größe": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"größe": name}


def test_a_folder_that_may_not_be_entered_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for any user but root."""
    (tmp_path / "closed").mkdir()
    stat, lstat = os.stat, os.lstat

    def refused(call: Any) -> Any:
        def called(path: Any, *words: Any, **named: Any) -> Any:
            if isinstance(path, str | os.PathLike) and Path(path).parent == tmp_path / "closed":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *words, **named)

        return called

    monkeypatch.setattr(os, "stat", refused(stat))
    monkeypatch.setattr(os, "lstat", refused(lstat))
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path / "closed")
    with pytest.raises(BoxlessError, match=r"closed/a\.json: cannot be written \(Permission denied\)"):
        check_writable(tmp_path / "closed" / "a.json")


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/new.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("file", "link", "new/deep/a.json"):
        check_writable(tmp_path / name)
    for path in ("-", "/dev/null", "~/a.json"):
        check_writable(Path(path))
    for name, reason in (("file/a.json", "Not a directory"), ("folder", "Is a directory")):
        with pytest.raises(BoxlessError, match=rf"{name}: cannot be written \({reason}\)"):
            check_writable(tmp_path / name)
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path / "folder")
    check_writable(tmp_path / "a.json")
    for name in ("link", "folder/new.json"):
        with pytest.raises(BoxlessError, match=r"\(Permission denied\)"):
            check_writable(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "old" and list((tmp_path / "folder").iterdir()) == []
