import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.demo import data as demo
from boxless.demo.data import CLASSES, draw_scene, make_demo
from boxless.demo.run import run_demo
from boxless.errors import BoxlessError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("made"), seed=3, train=12, val=6)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def objects_of(file: Path) -> list[tuple[str, int, list[int]]]:
    return [
        (
            node.findtext("name", ""),
            int(node.findtext("difficult", "")),
            [int(node.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")],
        )
        for node in ET.parse(file).getroot().iter("object")
    ]


def test_the_layout_is_complete_voc(made: Path) -> None:
    splits = {name: (made / f"ImageSets/Main/{name}.txt").read_text().split() for name in ("train", "val")}
    assert [len(ids) for ids in splits.values()] == [12, 6]
    ids = sorted(splits["train"] + splits["val"])
    assert len(set(ids)) == 18
    assert sorted(file.stem for file in (made / "JPEGImages").iterdir()) == ids
    assert sorted(file.stem for file in (made / "Annotations").iterdir()) == ids
    assert [file.name for file in made.parent.iterdir()] == ["VOC-demo"]


def test_boxes_are_within_the_image_and_every_class_is_in_each_split(made: Path) -> None:
    for split in ("train", "val"):
        found = set()
        for name in (made / f"ImageSets/Main/{split}.txt").read_text().split():
            with Image.open(made / f"JPEGImages/{name}.jpg") as image:
                width, height = image.size
            root = ET.parse(made / f"Annotations/{name}.xml").getroot()
            assert (root.findtext("size/width"), root.findtext("size/height")) == (str(width), str(height))
            objects = objects_of(made / f"Annotations/{name}.xml")
            assert objects
            for label, _, (xmin, ymin, xmax, ymax) in objects:
                assert 1 <= xmin < xmax <= width
                assert 1 <= ymin < ymax <= height
                found.add(label)
        assert found == set(CLASSES)


def test_the_same_seed_gives_the_same_files_and_another_seed_other_images(made: Path, tmp_path: Path) -> None:
    assert contents(make_demo(tmp_path / "again", seed=3, train=12, val=6)) == contents(made)
    other = make_demo(tmp_path / "other", seed=4, train=1, val=1)
    assert (other / "JPEGImages/000001.jpg").read_bytes() != (made / "JPEGImages/000001.jpg").read_bytes()


def test_written_boxes_are_one_based_and_inclusive(made: Path) -> None:
    for index in range(12):
        _, objects = draw_scene(3, index)
        written = objects_of(made / f"Annotations/{index + 1:06d}.xml")
        for item, (name, _, (xmin, ymin, xmax, ymax)) in zip(objects, written, strict=True):
            rows, columns = np.nonzero(item.visible >= 0.5)
            assert name == item.name
            assert [xmin, ymin, xmax, ymax] == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]


def test_a_painted_ball_is_a_disc_and_visible_where_it_covers() -> None:
    ball = demo._paint(demo.KINDS["ball"], np.random.default_rng(0), 100, np.array([0, 0, 1], np.float32))
    cover = ball[..., 3]
    assert cover.sum() == pytest.approx(np.pi * (0.98 * 50) ** 2, rel=0.01)
    xmin, ymin, xmax, ymax = demo._extent(cover)
    assert (xmax - xmin, ymax - ymin) == (98, 98)
    scene = np.zeros((200, 300, 3), np.float32)
    colour, placed = demo._shifted(ball, scene.shape, np.random.default_rng(5), crop=False)
    demo._composite(scene, colour, placed, np.array([0, 0, 1], np.float32))
    assert ((scene.max(2) > 0.2) == (placed > 0.3)).mean() > 0.99


def test_occluded_and_truncated_objects_are_difficult(tmp_path: Path) -> None:
    cover = np.zeros((40, 60), np.float32)
    cover[10:20, 0:30] = 1
    image = np.zeros((40, 60, 3), np.uint8)
    items = [demo._Object("ball", cover, area) for area in (300.0, 500.0, 1000.0)]
    demo._write_xml(tmp_path / "a.xml", "a", image, items)
    flags = [
        (node.findtext("truncated"), node.findtext("difficult")) for node in ET.parse(tmp_path / "a.xml").iter("object")
    ]
    assert flags == [("0", "0"), ("1", "0"), ("1", "1")]
    assert objects_of(tmp_path / "a.xml")[0][2] == [1, 11, 30, 20]


def test_few_objects_are_difficult_and_none_is_invisible() -> None:
    fractions = [float(o.visible.sum()) / o.area for index in range(60) for o in draw_scene(0, index)[1]]
    difficult = np.mean(np.array(fractions) < 0.4)
    assert 0 < difficult < 0.15
    assert min(fractions) > 0.1


def test_a_second_call_draws_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "draw_scene", lambda **_: pytest.fail("drawn again"))
    assert make_demo(made.parent, seed=3, train=12, val=6) == made


def test_a_folder_of_other_content_is_an_error_and_kept(made: Path, tmp_path: Path) -> None:
    before = contents(made)
    with pytest.raises(BoxlessError, match=r"VOC-demo.*delete it"):
        make_demo(made.parent, seed=3, train=12, val=7)
    assert contents(made) == before
    (tmp_path / "VOC-demo").mkdir()
    (tmp_path / "VOC-demo/mine.txt").write_text("keep")
    with pytest.raises(BoxlessError, match="contains something else"):
        make_demo(tmp_path, train=1, val=1)
    assert contents(tmp_path) == {"VOC-demo/mine.txt": b"keep"}


def test_an_interrupted_call_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = demo.draw_scene

    def interrupted(seed: int, index: int):  # type: ignore[no-untyped-def]
        if index == 2:
            assert not (tmp_path / "VOC-demo").exists()
            raise KeyboardInterrupt
        return real(seed, index)

    monkeypatch.setattr(demo, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, train=3, val=1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert json.loads((make_demo(tmp_path, train=3, val=1) / "demo.json").read_text())["train"] == 3


def test_unwritable_folders_and_empty_splits_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match="cannot be written"):
        make_demo(tmp_path / "file", train=1, val=1)
    with pytest.raises(BoxlessError, match="each split needs an image"):
        make_demo(tmp_path, train=0)


def test_home_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(out: Path, seed: int) -> Path:
        raise BoxlessError(f"drawn in {out}")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("boxless.demo.run.make_demo", stop)
    with pytest.raises(BoxlessError, match=f"drawn in {tmp_path}/images"):
        run_demo(Path("~/images"), 0)
