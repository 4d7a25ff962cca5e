import hashlib
import re
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from archive_server import Server, archive_server, pack

from boxless.datasets import load_dataset
from boxless.datasets.download import ARCHIVES, download_voc
from boxless.errors import BoxlessError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with archive_server() as state:
        yield state


def part_of(root: Path, name: str) -> Path:
    return root / ".VOC2007.download" / f"{name}.part"


def test_both_archives_are_extracted_into_one_year_and_deleted(server, tmp_path):
    archives = [server.archive("a.tar", trainval=["1", "2", "3"]), server.archive("b.tar", test=["4"])]
    root = tmp_path / "new" / "data"
    year = download_voc("2007", root, archives)
    assert year == root / "VOCdevkit" / "VOC2007"
    assert [sample.id for sample in load_dataset(root, "trainval").samples] == ["1", "2", "3"]
    assert [sample.id for sample in load_dataset(root, "test").samples] == ["4"]
    assert [entry.name for entry in root.iterdir()] == ["VOCdevkit"]
    assert server.requests == [("a.tar", 0), ("b.tar", 0)]


def test_a_second_call_requests_nothing(server, tmp_path):
    archives = [server.archive("a.tar", trainval=["1"])]
    first = download_voc("2007", tmp_path, archives)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert download_voc("2007", tmp_path, archives) == first
    assert len(server.requests) == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_a_broken_connection_is_an_error_and_the_next_call_resumes(server, tmp_path):
    archive = server.archive("a.tar", trainval=["1", "2", "3"])
    server.cut = 200_000
    with pytest.raises(BoxlessError, match=r"a\.tar: the download failed.*to\s+resume"):
        download_voc("2007", tmp_path, [archive])
    received = part_of(tmp_path, "a.tar").stat().st_size
    assert 100_000 < received <= 200_000
    server.cut = None
    assert load_dataset(download_voc("2007", tmp_path, [archive])).classes == ("dog",)
    assert server.requests == [("a.tar", 0), ("a.tar", received)]


def test_a_downloaded_archive_is_not_requested_again(server, tmp_path):
    archives = [server.archive("a.tar", trainval=["1"]), server.archive("b.tar", test=["2"])]
    kept = server.files.pop("b.tar")
    with pytest.raises(BoxlessError, match=r"b\.tar.*404"):
        download_voc("2007", tmp_path, archives)
    server.files["b.tar"] = kept
    download_voc("2007", tmp_path, archives)
    assert [name for name, _ in server.requests] == ["a.tar", "b.tar", "b.tar"]


@pytest.mark.parametrize("whole", [True, False], ids=["complete", "of another file"])
def test_a_part_as_long_as_the_archive_or_longer(server, tmp_path, whole):
    archive = server.archive("a.tar", trainval=["1"])
    part = part_of(tmp_path, "a.tar")
    part.parent.mkdir()
    part.write_bytes(server.files["a.tar"] if whole else b"x" * 500_000)
    size = part.stat().st_size
    download_voc("2007", tmp_path, [archive])
    assert server.requests == [("a.tar", size)] + [("a.tar", 0)] * (not whole)


def test_a_server_that_ignores_ranges_starts_over(server, tmp_path):
    archive = server.archive("a.tar", trainval=["1"])
    server.ranges = False
    part = part_of(tmp_path, "a.tar")
    part.parent.mkdir()
    part.write_bytes(server.files["a.tar"][:1000])
    assert load_dataset(download_voc("2007", tmp_path, [archive])).classes == ("dog",)
    assert server.requests == [("a.tar", 1000)]


def test_a_wrong_checksum_deletes_the_file_and_the_next_call_starts_over(server, tmp_path):
    archive = server.archive("a.tar", trainval=["1"])
    part = part_of(tmp_path, "a.tar")
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    with pytest.raises(BoxlessError, match=r"wrong checksum .* deleted; run the same command again"):
        download_voc("2007", tmp_path, [archive])
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    download_voc("2007", tmp_path, [archive])
    assert server.requests == [("a.tar", 1000), ("a.tar", 0)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("../../../../evil.txt", "outside the destination"), ("{root}/evil.txt", "incomplete: split trainval has 0 of 1")],
    ids=["refused", "put inside"],
)
def test_a_member_that_leads_outside_is_not_written_there(server, tmp_path, name, message):
    archive = server.archive("a.tar", trainval=["1"])
    content = pack({name.format(root=tmp_path): b"evil"})
    server.files["a.tar"] = content
    root = tmp_path / "a" / "b"
    archive = replace(archive, md5=hashlib.md5(content).hexdigest())
    with pytest.raises(BoxlessError, match=message):
        download_voc("2007", root, [archive])
    assert not (tmp_path / "evil.txt").exists()
    assert not (root / "VOCdevkit").exists()


def test_a_file_with_the_right_checksum_that_is_no_archive(server, tmp_path):
    archive = server.archive("a.tar", trainval=["1"])
    server.files["a.tar"] = b"no tar"
    with pytest.raises(BoxlessError, match=r"a\.tar: cannot be extracted"):
        download_voc("2007", tmp_path, [replace(archive, md5=hashlib.md5(b"no tar").hexdigest())])


def test_an_archive_with_a_wrong_number_of_images_is_not_moved_into_place(server, tmp_path):
    archive = replace(server.archive("a.tar", trainval=["1"]), splits={"trainval": 2, "test": 1})
    message = "split trainval has 1 of 2 images; split test has 0 of 1 image"
    with pytest.raises(BoxlessError, match=message):
        download_voc("2007", tmp_path, [archive])
    assert not (tmp_path / "VOCdevkit").exists()


@pytest.mark.parametrize("lost", ["JPEGImages/2.jpg", "Annotations/2.xml"])
def test_an_incomplete_year_is_an_error_and_left_alone(server, tmp_path, lost):
    archive = server.archive("a.tar", trainval=["1", "2"])
    year = download_voc("2007", tmp_path, [archive])
    (year / lost).unlink()
    with pytest.raises(
        BoxlessError, match=rf"VOC2007 is incomplete: 1 file is missing in {lost.split('/')[0]}, such as 2\."
    ):
        download_voc("2007", tmp_path, [archive])
    assert (year / "ImageSets").exists()
    assert len(server.requests) == 1


def test_an_interrupted_extraction_is_discarded(server, tmp_path):
    archive = server.archive("a.tar", trainval=["1"])
    stale = tmp_path / ".VOC2007.download" / "extracted" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    stale.mkdir(parents=True)
    (stale / "stale.jpg").touch()
    year = download_voc("2007", tmp_path, [archive])
    assert [entry.name for entry in (year / "JPEGImages").iterdir()] == ["1.jpg"]


def test_what_a_download_has_left_is_removed_once_the_year_is_there(server, tmp_path):
    archives = [server.archive("a.tar", trainval=["1"])]
    download_voc("2007", tmp_path, archives)
    part = part_of(tmp_path, "a.tar")
    part.parent.mkdir()
    part.write_bytes(b"of a process that was killed")
    download_voc("2007", tmp_path, archives)
    assert [entry.name for entry in tmp_path.iterdir()] == ["VOCdevkit"]


def test_no_network_is_an_error_that_names_the_address_and_the_fix(server, tmp_path):
    archive = replace(server.archive("a.tar", trainval=["1"]), url="http://127.0.0.1:1/a.tar")
    with pytest.raises(BoxlessError, match=r"http://127.0.0.1:1/a.tar: the download failed.*check the network"):
        download_voc("2007", tmp_path, [archive])


def test_a_folder_that_cannot_be_made_is_an_error(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BoxlessError, match=r"file.*cannot be written"):
        download_voc("2007", tmp_path / "file", [server.archive("a.tar", trainval=["1"])])


def test_a_full_disk_is_an_error_and_the_next_call_resumes(server, tmp_path):
    archive = server.archive("a.tar", trainval=["1", "2", "3"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(BoxlessError, match="cannot be written"):
            download_voc("2007", tmp_path, [archive])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    received = part_of(tmp_path, "a.tar").stat().st_size
    assert 0 < received <= 150_000
    download_voc("2007", tmp_path, [archive])
    assert server.requests[-1] == ("a.tar", received)


def test_the_official_archives():
    assert {year: [archive.name for archive in archives] for year, archives in ARCHIVES.items()} == {
        "2007": ["VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"],
        "2012": ["VOCtrainval_11-May-2012.tar"],
    }
    for year, archives in ARCHIVES.items():
        for archive in archives:
            assert archive.url == f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/{archive.name}"
            assert re.fullmatch("[0-9a-f]{32}", archive.md5)
