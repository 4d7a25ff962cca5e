from pathlib import Path

import pytest
from PIL import Image

from boxless.image_files import Found, find_images, scan_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def without_heif(monkeypatch):
    from boxless import image_files

    monkeypatch.setattr(image_files, "find_heif", lambda: None)
    for function in (image_files.suffixes, image_files.unread_formats):
        function.cache_clear()
    yield
    for function in (image_files.suffixes, image_files.unread_formats):
        function.cache_clear()


def test_images_are_found_at_any_depth_sorted_without_hidden_ones(tmp_path):
    names = ["b.JPG", "a b.jpeg", "sub/ü.webp", "sub/._ü.webp", ".cache/c.jpg", "sub/.ipynb_checkpoints/d.jpg", "e.txt"]
    touch(tmp_path, *names)
    (tmp_path / "folder.jpg").mkdir()
    assert find_images(tmp_path) == [tmp_path / name for name in ("a b.jpeg", "b.JPG", "sub/ü.webp")]
    assert find_images(tmp_path / "e.txt") == [tmp_path / "e.txt"]
    assert find_images(Path(tmp_path / ".cache")) == [tmp_path / ".cache" / "c.jpg"]
    assert find_images(tmp_path / "gone") == []


def test_other_suffixes_of_jpeg_are_read(tmp_path):
    names = ["a.jpe", "b.JFIF", "c.jpg", "d.jfi", "e.jif", "f.pjpeg", "g.pjp", "h.mpo", "i.apng", "j.dib"]
    touch(tmp_path, *names)
    assert [file.name for file in find_images(tmp_path)] == names


@pytest.mark.parametrize(("format_", "is_image"), [("JPEG", True), ("PNG", True), ("WEBP", True), (None, False)])
def test_images_without_a_suffix_are_given_with_the_reason(tmp_path, format_, is_image):
    (tmp_path / "0").write_bytes(b"RIFF, a text\n")
    if format_:
        Image.new("RGB", (8, 8)).save(tmp_path / "0", format_)
    reason = "files without a suffix; name them as what they are, such as .jpg"
    assert scan_images(tmp_path) == Found([], {tmp_path / "0": reason} if is_image else {})


def test_folders_of_disks_and_systems_are_hidden(tmp_path):
    touch(tmp_path, "@eaDir/a.jpg", "$RECYCLE.BIN/b.jpg", "__MACOSX/c.jpg", "System Volume Information/d.jpg", "e.jpg")
    assert find_images(tmp_path) == [tmp_path / "e.jpg"]


def test_images_in_formats_that_are_not_read_are_given_with_the_reason(tmp_path, without_heif):
    touch(tmp_path, "a.jpg", "b.HEIC", "sub/c.nef", "d.svg", "e.txt")
    assert scan_images(tmp_path) == Found(
        [tmp_path / "a.jpg"],
        {
            tmp_path / "b.HEIC": "the format HEIC; pip install pillow-heif, or convert it to JPEG",
            tmp_path / "d.svg": "the format SVG, which is not read; convert it to JPEG or PNG",
            tmp_path / "sub/c.nef": "a raw file of a camera, which is not read; convert it to JPEG or PNG",
        },
    )


def test_links_to_folders_and_files_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/deep/a.jpg", "elsewhere/b.jpg", "set/c.jpg")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set" / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set" / "file.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    names = ["again/b.jpg", "again/deep/a.jpg", "c.jpg", "file.jpg", "link/b.jpg", "link/deep/a.jpg"]
    assert scan_images(tmp_path / "set") == Found([tmp_path / "set" / name for name in names], {})


def test_loops_of_links_end(tmp_path):
    touch(tmp_path, "set/a.jpg", "set/one/b.jpg", "set/two/c.jpg")
    for link, target in (("one/up", "set"), ("one/other", "set/two"), ("two/other", "set/one")):
        (tmp_path / "set" / link).symlink_to(tmp_path / target, target_is_directory=True)
    (tmp_path / "set" / "self").symlink_to("self")
    names = ["a.jpg", "one/b.jpg", "one/other/c.jpg", "two/c.jpg", "two/other/b.jpg"]
    assert scan_images(tmp_path / "set") == Found([tmp_path / "set" / name for name in names], {})


def test_a_link_to_nothing_and_a_folder_that_cannot_be_opened_are_given_with_the_reason(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "shut/b.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    from os import scandir

    def refuse(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    assert scan_images(tmp_path) == Found(
        [tmp_path / "a.jpg"],
        {
            tmp_path / "gone.jpg": "a link to nothing",
            tmp_path / "shut": "a folder that cannot be opened (Permission denied)",
        },
    )
