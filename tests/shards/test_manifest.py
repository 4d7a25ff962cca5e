import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from boxless.errors import BoxlessError
from boxless.image_files import find_images
from boxless.shards import manifest as module
from boxless.shards import write_manifest
from boxless.shards.manifest import ImageRow, count_rows, read_rows


def test_a_manifest_lists_what_predict_finds(photos: Path, manifest: str):
    expected = [ImageRow(file.relative_to(photos).as_posix(), str(file)) for file in find_images(photos)]
    assert len(expected) == 21
    assert read_rows(manifest, 0, 100) == expected
    assert count_rows(manifest) == 21


def test_hidden_files_and_formats_that_are_not_read_are_left_out(tmp_path: Path):
    folder = tmp_path / "photos"
    for name in ("b.JPG", "a/c.png", ".a.jpg", ".hidden/d.jpg", "notes.txt", "raw.cr2", "e/scan.dcm"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / os.fsdecode(b"\xff.jpg")).touch()
    listing = write_manifest(folder, tmp_path / "m.parquet")
    assert (listing.images, listing.left_out) == (2, 3)
    assert "scan.dcm" in listing.reason and "which is not read" in listing.reason
    assert [row.id for row in read_rows(str(tmp_path / "m.parquet"), 0, 9)] == ["a/c.png", "b.JPG"]


def test_rows_are_held_a_group_at_a_time(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS_PER_GROUP", 4)
    path = str(tmp_path / "m.parquet")
    write_manifest(str(photos), path)
    sizes = [parquet.ParquetFile(path).metadata.row_group(group).num_rows for group in range(6)]
    assert sizes == [4, 4, 4, 4, 4, 1]
    rows = read_rows(path, 0, 21)
    for first in range(21):
        for count in (1, 3, 4, 9):
            assert read_rows(path, first, count) == rows[first : first + count]


def test_the_same_folder_gives_the_same_bytes(photos: Path, manifest: str, tmp_path: Path):
    write_manifest(str(photos), str(tmp_path / "again.parquet"))
    assert (tmp_path / "again.parquet").read_bytes() == Path(manifest).read_bytes()


@pytest.mark.parametrize(("source", "message"), [("none", "does not exist"), ("empty", "there is no image")])
def test_a_folder_without_images_leaves_no_manifest(tmp_path: Path, source: str, message: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BoxlessError, match=message):
        write_manifest(str(tmp_path / source), str(tmp_path / "m.parquet"))
    assert not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "url": ["/a.jpg"]}, "it has no column 'uri' of text .found: id, url."),
        ({"id": [1], "uri": ["/a.jpg"]}, "it has no column 'id' of text"),
        ({"id": pa.array([], pa.string()), "uri": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_tables_of_others_are_checked(tmp_path: Path, columns: dict[str, list[str]], message: str):
    path = str(tmp_path / "m.parquet")
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(BoxlessError, match=message):
        count_rows(path)


@pytest.mark.parametrize("uri", ["photos/a.jpg", "", None])
def test_a_row_without_an_absolute_uri_is_named(tmp_path: Path, uri: str | None):
    path = str(tmp_path / "m.parquet")
    parquet.write_table(pa.table({"id": ["a", "b"], "uri": pa.array(["/a.jpg", uri], pa.string())}), path)
    with pytest.raises(BoxlessError, match=r"row 1 has the id 'b' and the URI .*each needs an id, and an absolute"):
        read_rows(path, 1, 1)


def test_what_is_no_parquet_file_is_named(tmp_path: Path):
    (tmp_path / "m.parquet").write_text("id,uri\n")
    with pytest.raises(BoxlessError, match=r"m\.parquet: cannot be read as Parquet"):
        count_rows(str(tmp_path / "m.parquet"))
    with pytest.raises(BoxlessError, match=r"none\.parquet: cannot be read"):
        count_rows(str(tmp_path / "none.parquet"))
