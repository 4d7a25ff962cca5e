import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxless.datasets import load_dataset
from boxless.datasets.voc import load_voc
from boxless.errors import BoxlessError


def thing(name: str, box: tuple[object, ...] | None = (11, 21, 30, 40), difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False)
    bndbox = "<bndbox>" + "".join(f"<{side}>{value}</{side}>" for side, value in sides) + "</bndbox>" if box else ""
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{bndbox}</object>"


def write_year(year: Path, annotations: dict[str, str], split: str = "train", size: str = "") -> Path:
    """A year folder with an image file for every annotation; `annotations` maps ids to the inside of the XML."""
    size = size or "<size><width>100</width><height>80</height></size>"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True, exist_ok=True)
    for id_, inside in annotations.items():
        (year / "JPEGImages" / f"{id_}.jpg").touch()
        text = f"<annotation>{size}{inside}</annotation>"
        (year / "Annotations" / f"{id_}.xml").write_text(text, encoding="utf-8")
    write_split(year, split, annotations)
    return year


def write_split(year: Path, split: str, lines: object) -> None:
    text = "".join(f"{line}\n" for line in lines)  # type: ignore[attr-defined]
    (year / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")


def test_boxes_tags_and_unsure_of_a_year(tmp_path):
    objects = thing("dog", (11, 21, 30, 40)) + thing("dog", (1, 1, 100, 80), difficult=1) + thing("cat", difficult=1)
    year = write_year(tmp_path / "VOC2007", {"000001": objects, "000002": ""})
    dataset = load_dataset(year, "train")
    assert (dataset.name, dataset.classes) == ("VOC2007 train", ("cat", "dog"))
    first, second = dataset.samples
    assert (first.id, first.path) == ("000001", year / "JPEGImages" / "000001.jpg")
    assert (first.tags, first.unsure) == ({1}, {0})
    assert first.annotations.boxes.dtype == np.float32
    assert first.annotations.boxes.tolist() == [[10, 20, 30, 40], [0, 0, 100, 80], [10, 20, 30, 40]]
    assert first.annotations.labels.tolist() == [1, 1, 0]
    assert first.annotations.ignore.tolist() == [False, True, True]
    assert (second.tags, second.unsure, second.annotations.boxes.shape) == (set(), set(), (0, 4))
    assert dataset.warnings == (
        "images without a tag, kept as negatives: 1 (000002)",
        "classes that no image is tagged with: 1 (cat)",
    )


def test_parts_of_an_object_are_not_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    inside = thing("person", (1, 1, 9, 9)).replace("<name>", f"{part}<name>")
    dataset = load_dataset(write_year(tmp_path / "y", {"a": inside}))
    assert dataset.classes == ("person",)
    assert dataset.samples[0].annotations.boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("box", "kept", "warning"),
    [
        ((0, -5, 120, 90), [[0, 0, 100, 80]], "boxes that reach outside the image, clipped: 1 (a)"),
        ((1, 1, 1, 1), [[0, 0, 1, 1]], None),
        ((45.7, 21, 60.2, 40), [[44.7, 20, 60.2, 40]], None),
        ((30, 21, 11, 40), None, "boxes without area inside the image, dropped (their tags stay): 1 (a)"),
        ((200, 200, 300, 300), None, "boxes without area inside the image, dropped (their tags stay): 1 (a)"),
        (("nan", 1, 5, 5), None, "boxes without numbers, dropped (their tags stay): 1 (a)"),
        ((1, 1, "inf", 5), None, "boxes without numbers, dropped (their tags stay): 1 (a)"),
        (("left", 1, 5, 5), None, "boxes without numbers, dropped (their tags stay): 1 (a)"),
        ((1, 1, 5), None, "boxes without numbers, dropped (their tags stay): 1 (a)"),
        (None, None, "boxes without numbers, dropped (their tags stay): 1 (a)"),
    ],
)
def test_a_bad_box_is_clipped_or_dropped_and_its_tag_stays(tmp_path, box, kept, warning):
    dataset = load_dataset(write_year(tmp_path / "y", {"a": thing("dog", box), "b": thing("cat")}))
    sample = dataset.samples[0]
    assert sample.tags == {dataset.classes.index("dog")}
    if kept is None:
        assert sample.annotations is None
    else:
        np.testing.assert_allclose(sample.annotations.boxes, kept, rtol=1e-6)
    assert dataset.warnings == ((warning,) if warning else ())


@pytest.mark.parametrize(
    "size",
    [
        "<size><width>0</width><height>0</height></size>",
        "<size><width>1e30</width><height>1e300</height></size>",
        "<size><width>a</width></size>",
        "<x/>",
    ],
)
def test_an_unknown_size_clips_left_and_top_only(tmp_path, size):
    annotations = {"a": thing("dog", (-3, 1, 900, 5)), "b": thing("dog", (1, 1, "1e300", 5))}
    year = write_year(tmp_path / "y", annotations, size=size)
    boxes = [sample.annotations.boxes.tolist() for sample in load_dataset(year).samples]
    assert boxes == [[[0, 0, 900, 5]], [[0, 0, 1e6, 5]]]


texts = st.text("0123456789.eE-+ nainfx", max_size=8)
numbers = st.one_of(st.none(), st.floats(), st.integers(-(10**400), 10**400), texts)
objects = st.tuples(st.sampled_from(["cat", "dog", "Pferd äöü"]), st.integers(0, 1), st.tuples(*[numbers] * 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, min_size=1, max_size=4))
def test_tags_follow_from_names_whatever_the_numbers_are(drawn):
    garbage = "".join(
        thing(name, tuple("" if n is None else n for n in box), difficult) for name, difficult, box in drawn
    )
    sound = "".join(thing(name, difficult=difficult) for name, difficult, _ in drawn)
    with tempfile.TemporaryDirectory() as folder:
        bad = load_voc(write_year(Path(folder, "bad"), {"a": garbage}), None)
        good = load_voc(write_year(Path(folder, "good"), {"a": sound}), None)
    assert bad.classes == good.classes
    assert (bad.samples[0].tags, bad.samples[0].unsure) == (good.samples[0].tags, good.samples[0].unsure)
    kept = bad.samples[0].annotations
    assert kept is None or np.isfinite(kept.boxes).all()


def test_broken_files_are_counted_and_the_rest_goes_on(tmp_path):
    broken = dict.fromkeys(("torn", "html", "bomb", "bare", "gone"), "")
    year = write_year(tmp_path / "y", {"good": thing("dog")} | broken)
    xml = year / "Annotations"
    (xml / "torn.xml").write_text("<annotation><object><name>dog</na")
    (xml / "html.xml").write_text("<html><body>404</body></html>")
    (xml / "bomb.xml").write_text(
        '<!DOCTYPE a [<!ENTITY a "dog"><!ENTITY b "&a;&a;&a;">]>'
        "<annotation><object><name>&b;</name></object></annotation>"
    )
    (xml / "bare.xml").unlink()
    (year / "JPEGImages" / "gone.jpg").unlink()
    write_split(year, "train", ["good", "torn", "html", "bomb", "bare", "gone", "good", "never"])
    dataset = load_dataset(year)
    assert [sample.id for sample in dataset.samples] == ["good"]
    assert dataset.warnings == (
        "ids without an image in JPEGImages, left out: 2 (gone, never)",
        "ids listed more than once, taken once: 1 (good)",
        "annotations that are not valid VOC XML, their images left out: 3 (torn.xml, html.xml, bomb.xml)",
        "images without an annotation, left out as their tags are unknown: 1 (bare.xml)",
    )


def test_an_object_without_a_name_is_left_out(tmp_path):
    year = write_year(tmp_path / "y", {"a": thing("dog") + thing(" ") + "<object/>"})
    dataset = load_dataset(year)
    assert dataset.classes == ("dog",)
    assert dataset.warnings == ("objects without a name, left out: 2 (a.xml)",)


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    year = write_year(tmp_path / "y", {"a": "", "b": ""})
    for file in (year / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(BoxlessError, match=r"no tag.*0 usable(.|\n)*without an annotation.*: 2 \(a.xml, b.xml\)"):
        load_dataset(year)


def test_splits(tmp_path):
    year = write_year(tmp_path / "y", {"a": thing("dog")}, split="val")
    assert load_dataset(year).name == "y val"
    write_split(year, "test", ["a"])
    with pytest.raises(BoxlessError, match="say which split to load; it has: test, val"):
        load_dataset(year)
    write_split(year, "train", ["a"])
    assert load_dataset(year).name == "y train"
    write_split(year, "trainval", ["a"])
    write_split(year, "dog_train", ["a  1"])
    assert load_dataset(year).name == "y trainval"
    with pytest.raises(BoxlessError, match=r"no split 'tset'; it has: test, train, trainval, val$"):
        load_dataset(year, "tset")


def test_a_split_whose_name_looks_like_a_class_list_can_be_asked_for(tmp_path):
    year = write_year(tmp_path / "y", {"a": thing("dog"), "b": thing("cat")})
    write_split(year, "small_train", ["b"])
    assert [sample.id for sample in load_dataset(year, "small_train").samples] == ["b"]


def test_a_year_without_lists_says_so(tmp_path):
    year = write_year(tmp_path / "y", {"a": thing("dog")})
    (year / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(BoxlessError, match="lists no split"):
        load_dataset(year)


def test_the_year_is_found_below(tmp_path):
    write_year(tmp_path / "VOCdevkit" / "VOC2007", {"a": thing("dog")})
    assert load_dataset(tmp_path).name == load_dataset(tmp_path / "VOCdevkit").name == "VOC2007 train"
    write_year(tmp_path / "VOCdevkit" / "VOC2012", {"a": thing("dog")})
    with pytest.raises(BoxlessError, match=r"several VOC years.*VOC2007, .*VOC2012$"):
        load_dataset(tmp_path)


def test_names_with_spaces_and_other_scripts_and_suffixes(tmp_path):
    annotations = {"photo 1": thing("großer Hund"), "子猫 (2)": thing("猫"), "x.y": thing("猫")}
    year = write_year(tmp_path / "my set", annotations)
    (year / "JPEGImages" / "子猫 (2).jpg").rename(year / "JPEGImages" / "子猫 (2).PNG")
    dataset = load_dataset(year)
    assert dataset.classes == ("großer Hund", "猫")
    assert [sample.path.name for sample in dataset.samples] == ["photo 1.jpg", "子猫 (2).PNG", "x.y.jpg"]


def test_lists_with_windows_line_ends_and_byte_order_mark(tmp_path):
    year = write_year(tmp_path / "y", {"a": thing("dog"), "b": thing("dog")})
    (year / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\nb\r\n")
    assert [sample.id for sample in load_dataset(year).samples] == ["a", "b"]


def test_tags_alone_from_the_lists_of_classes(tmp_path):
    year = tmp_path / "VOC2012"
    (year / "JPEGImages").mkdir(parents=True)
    (year / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("a", "b c", "d"):
        (year / "JPEGImages" / f"{name}.jpg").touch()
    write_split(year, "train", ["a", "b c", "d"])
    write_split(year, "dog_train", ["a  1", "b c -1", "d  0", "gone  1", "nonsense"])
    write_split(year, "traffic_light_train", ["a -1", "b c  1", "d -1"])
    write_split(year, "dog_val", ["a  1"])
    dataset = load_dataset(year, "train")
    assert dataset.classes == ("dog", "traffic_light")
    assert [(s.id, s.tags, s.unsure) for s in dataset.samples] == [
        ("a", {0}, set()),
        ("b c", {1}, set()),
        ("d", set(), {0}),
    ]
    assert not dataset.has_boxes
    assert dataset.warnings == (
        "lines that are not `id 1`, `id -1` or `id 0`, left out: 1 (dog_train.txt)",
        "ids without an image in JPEGImages, left out: 1 (gone)",
    )
    with pytest.raises(BoxlessError, match="no split 'test'; it has: train, val"):
        load_dataset(year, "test")


def test_neither_annotations_nor_class_lists(tmp_path):
    (tmp_path / "y" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(BoxlessError, match="neither Annotations nor tags"):
        load_dataset(tmp_path / "y")
