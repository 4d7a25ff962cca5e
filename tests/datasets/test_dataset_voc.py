import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxless.datasets import load_dataset, split_names
from boxless.datasets.voc import load_voc
from boxless.errors import BoxlessError


def object_xml(name: str, box: tuple[object, ...] | None = (11, 21, 30, 40), difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False)
    bndbox = "<bndbox>" + "".join(f"<{side}>{value}</{side}>" for side, value in sides) + "</bndbox>" if box else ""
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{bndbox}</object>"


def write_year(year: Path, annotations: dict[str, str], split: str = "train", size: str = "") -> Path:
    """A year folder with an image file for every annotation; `annotations` maps ids to the inside of the XML."""
    size = size or "<size><width>100</width><height>80</height></size>"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True, exist_ok=True)
    for id_, inside in annotations.items():
        for folder in ("JPEGImages", "Annotations"):
            (year / folder / id_).parent.mkdir(parents=True, exist_ok=True)
        (year / "JPEGImages" / f"{id_}.jpg").touch()
        text = f"<annotation>{size}{inside}</annotation>"
        (year / "Annotations" / f"{id_}.xml").write_text(text, encoding="utf-8")
    write_split(year, split, annotations)
    return year


def write_split(year: Path, split: str, lines: object) -> None:
    text = "".join(f"{line}\n" for line in lines)  # type: ignore[attr-defined]
    (year / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")


def test_boxes_tags_and_unsure_of_a_year(tmp_path):
    objects = (
        object_xml("dog", (11, 21, 30, 40))
        + object_xml("dog", (1, 1, 100, 80), difficult=1)
        + object_xml("cat", difficult=1)
    )
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
    assert dataset.warnings == ("classes that no image is tagged with: 1 (cat)",)


@pytest.mark.parametrize(
    ("text", "is_difficult"), [("1", True), ("True", True), ("0", False), ("false", False), ("Unspecified", False)]
)
def test_difficult_may_be_a_word(tmp_path, text, is_difficult):
    inside = object_xml("dog").replace("<difficult>0<", f"<difficult>{text}<")
    (sample,) = load_dataset(write_year(tmp_path / "y", {"a": inside})).samples
    assert (sample.annotations.ignore.tolist(), sample.unsure) == ([is_difficult], {0} if is_difficult else set())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tags_may_be_in_capitals_and_files_in_utf_16(tmp_path, encoding):
    year = write_year(tmp_path / "y", {"a": object_xml("Dog"), "b": object_xml("Cat")})
    text = f'<?xml version="1.0" encoding="{encoding}"?><annotation>{object_xml("Dog")}</annotation>'
    for word in ("object", "name", "bndbox"):
        text = text.replace(f"<{word}>", f"<{word.title()}>").replace(f"</{word}>", f"</{word.title()}>")
    (year / "Annotations" / "a.xml").write_text(text, encoding=encoding)
    for root in (year, year / "Annotations"):
        for file in ("a.jpg", "b.jpg"):
            (root / file).touch()
        first, second = load_dataset(root).samples
        assert (first.tags, second.tags) == ({1}, {0}) and first.annotations.boxes.tolist() == [[10, 20, 30, 40]]
    (year / "Annotations" / "b.xml").unlink()
    (year / "Annotations" / "b.jpg").unlink()
    assert load_dataset(year / "Annotations").classes == ("Dog",)


def test_deleted_objects_are_left_out(tmp_path):
    deleted, kept = (object_xml("cat").replace("<difficult>", f"<deleted>{n}</deleted><difficult>") for n in (1, 0))
    dataset = load_dataset(write_year(tmp_path / "y", {"a": object_xml("dog") + deleted, "b": kept}))
    assert [sample.tags for sample in dataset.samples] == [{1}, {0}]
    assert dataset.warnings == ("objects marked as deleted, left out: 1 (a.xml)",)


def test_parts_of_an_object_are_not_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    inside = object_xml("person", (1, 1, 9, 9)).replace("<name>", f"{part}<name>")
    dataset = load_dataset(write_year(tmp_path / "y", {"a": inside}))
    assert dataset.classes == ("person",)
    assert dataset.samples[0].annotations.boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("box", "kept", "warning"),
    [
        ((1, -5, 120, 90), [[0, 0, 100, 80]], "boxes that reach outside the image, clipped: 1 (a)"),
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
    dataset = load_dataset(write_year(tmp_path / "y", {"a": object_xml("dog", box), "b": object_xml("cat")}))
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
    annotations = {"a": object_xml("dog", (-3, 1, 900, 5)), "b": object_xml("dog", (1, 1, "1e300", 5))}
    year = write_year(tmp_path / "y", annotations, size=size)
    boxes = [sample.annotations.boxes.tolist() for sample in load_dataset(year).samples]
    assert boxes == [[[0, 0, 900, 5]], [[0, 0, 1e6, 5]]]


texts = st.text("0123456789.eE-+ nainfx", max_size=8)
numbers = st.one_of(st.none(), st.floats(), st.integers(-(10**400), 10**400), texts)
objects = st.tuples(st.sampled_from(["cat", "dog", "Pferd äöü"]), st.integers(0, 1), st.tuples(*[numbers] * 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, min_size=1, max_size=4))
def test_tags_depend_on_names_not_on_boxes(generated):
    garbage = "".join(
        object_xml(name, tuple("" if n is None else n for n in box), difficult) for name, difficult, box in generated
    )
    sound = "".join(object_xml(name, difficult=difficult) for name, difficult, _ in generated)
    with tempfile.TemporaryDirectory() as folder:
        bad = load_voc(write_year(Path(folder, "bad"), {"a": garbage}), None)
        good = load_voc(write_year(Path(folder, "good"), {"a": sound}), None)
    assert bad.classes == good.classes
    assert (bad.samples[0].tags, bad.samples[0].unsure) == (good.samples[0].tags, good.samples[0].unsure)
    kept = bad.samples[0].annotations
    assert kept is None or np.isfinite(kept.boxes).all()


def test_broken_files_are_counted_and_the_rest_is_loaded(tmp_path):
    broken = dict.fromkeys(("torn", "html", "bomb", "bare", "gone"), "")
    year = write_year(tmp_path / "y", {"good": object_xml("dog")} | broken)
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
        "annotation files without an image: 1 (gone.xml)",
    )
    assert dataset.summary == (
        "PASCAL VOC, 1 image, 1 class, 2 ids without an image in JPEGImages, 1 image without an annotation, "
        "1 annotation file without an image"
    )


def test_an_object_without_a_name_is_left_out(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog") + object_xml(" ") + "<object/>"})
    dataset = load_dataset(year)
    assert dataset.classes == ("dog",)
    assert dataset.warnings == ("objects without a name, left out: 2 (a.xml)",)


def test_an_error_gives_the_reasons_if_nothing_is_usable(tmp_path):
    year = write_year(tmp_path / "y", {"a": "", "b": ""})
    for file in (year / "Annotations").iterdir():
        file.write_text("torn")
    with pytest.raises(
        BoxlessError, match=r"none of the 0 usable images(.*)has a tag(.|\n)*not valid VOC XML.*: 2 \(a.xml, b.xml\)"
    ):
        load_dataset(year)


def test_images_with_annotations_that_no_list_has_are_counted(tmp_path):
    year = write_year(tmp_path, {"1": object_xml("dog"), "2 b": object_xml("cat"), "3": object_xml("cat")})
    write_split(year, "train", ["1"])
    warning = "images with annotations that no list in ImageSets has, not used: {}"
    assert load_dataset(year, "train").warnings == (warning.format("2 (2 b, 3)"),)
    # Lists of classes are lists, too.
    write_split(year, "dog_val", ["2 b -1", "3  1"])
    assert load_dataset(year, "train").warnings == ()


def test_lists_of_splits_may_lie_in_imagesets_itself(tmp_path):
    year = write_year(tmp_path, {"1": object_xml("dog"), "2": object_xml("cat"), "3": object_xml("cat")}, "val")
    (year / "ImageSets" / "Main" / "val.txt").unlink()
    (year / "ImageSets" / "classes.txt").write_text("dog\ncat\n")
    (year / "ImageSets" / "train.txt").write_text("1\n")
    (year / "ImageSets" / "val.txt").write_text("2\n")
    assert split_names(year) == ("train", "val")
    assert [load_dataset(year, split).classes for split in ("train", "val")] == [("dog",), ("cat",)]
    warning = "images with annotations that no list in ImageSets has, not used: 1 (3)"
    assert load_dataset(year).warnings == (warning,)
    # Those in Main precede them.
    write_split(year, "trainval", ["3"])
    assert split_names(year) == ("trainval",)


def test_a_few_ids_and_files_without_counterpart_are_counted_and_most_are_an_error(tmp_path):
    year = write_year(tmp_path / "y", {name: object_xml("dog") for name in "abcdef"})
    for name in "abc":
        (year / "Annotations" / f"{name}.xml").rename(year / "Annotations" / f"new{name}.xml")
    dataset = load_dataset(year)
    assert [sample.id for sample in dataset.samples] == ["d", "e", "f"]
    assert dataset.warnings == (
        "images without an annotation, left out as their tags are unknown: 3 (a.xml, b.xml, c.xml)",
        "annotation files without an image: 3 (newa.xml, newb.xml, newc.xml)",
    )
    assert dataset.summary == (
        "PASCAL VOC, 3 images, 1 class, 3 images without an annotation, 3 annotation files without an image"
    )
    (year / "Annotations" / "d.xml").rename(year / "Annotations" / "newd.xml")
    with pytest.raises(BoxlessError, match=r"4 of 6 images without an annotation \(a.xml, b.xml, c.xml, d.xml\); add"):
        load_dataset(year)
    write_split(year, "train", ["a", "e", "x", "y", "z"])
    with pytest.raises(BoxlessError, match=r"3 of 5 ids without an image in JPEGImages \(x, y, z\); give the images"):
        load_dataset(year)


def test_names_that_are_spelled_otherwise_are_matched(tmp_path):
    names = ["caf\u00e9", "a b", "plain", "IMG_1"]
    year = write_year(tmp_path / "y", {name: object_xml("dog") for name in names})
    (year / "Annotations" / "caf\u00e9.xml").rename(year / "Annotations" / "cafe\u0301.xml")
    (year / "Annotations" / "a b.xml").rename(year / "Annotations" / "a%20b.XML")
    write_split(year, "train", ["cafe\u0301", "a%20b", "plain.jpg", "img_1"])
    dataset = load_dataset(year)
    assert [sample.path.stem for sample in dataset.samples] == names
    (warning,) = dataset.warnings
    assert warning.startswith(
        "names spelled differently from their files (case, accents, %20, suffix, folder), matched: "
    )


def test_of_two_images_with_one_id_the_first_is_taken(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog")})
    (year / "JPEGImages" / "a.png").touch()
    dataset = load_dataset(year)
    assert [sample.path.name for sample in dataset.samples] == ["a.jpg"]
    assert dataset.warnings == ("images with the name of another but for the suffix, left out: 1 (a.png)",)


def test_an_id_that_fits_two_files_is_not_matched(tmp_path):
    year = write_year(tmp_path / "y", {name: object_xml("dog") for name in ("a", "Bb", "bB")})
    write_split(year, "train", ["a", "bb"])
    assert load_dataset(year).warnings == (
        "ids without an image in JPEGImages, left out: 1 (bb)",
        "images with annotations that no list in ImageSets has, not used: 2 (Bb, bB)",
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Two boxes begin at 0 and none at 1; one ends at the last pixel of 100, or at 100 itself, or at neither.
        ((0, 0, 99, 50), (5, 5, 10, 10), [[0, 0, 100, 51], [5, 5, 11, 11]]),
        ((0, 0, 100, 50), (5, 5, 10, 10), [[0, 0, 100, 50], [5, 5, 10, 10]]),
        ((0, 0, 90, 50), (5, 5, 10, 10), [[0, 0, 90, 50], [5, 5, 10, 10]]),
        # One begins at 0, but two at 1.
        ((1, 0, 90, 50), (1, 5, 10, 10), [[0, 0, 90, 50], [0, 4, 10, 10]]),
    ],
)
def test_a_set_that_counts_from_0_is_recognised(tmp_path, first, second, expected):
    year = write_year(tmp_path / "y", {"a": object_xml("dog", first), "b": object_xml("dog", second)})
    dataset = load_dataset(year)
    assert [sample.annotations.boxes[0].tolist() for sample in dataset.samples] == expected
    kind = "images with boxes that begin at pixel 0, so all are read as counted from 0, not from 1: 1 (a)"
    one = "boxes that reach outside the image, clipped: 1 (a)"
    assert dataset.warnings == (one if first[0] else kind,)


def test_an_annotation_that_is_not_utf_8_is_read_as_latin_1(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog")})
    text = f'<?xml version="1.0" encoding="utf-8"?><annotation>{object_xml("grün")}</annotation>'
    (year / "Annotations" / "a.xml").write_bytes(text.encode("latin-1"))
    dataset = load_dataset(year)
    assert dataset.classes == ("grün",)
    assert dataset.warnings == ("annotation files that are not UTF-8, read as Latin-1: 1 (a.xml)",)


def test_splits(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog")}, split="val")
    assert load_dataset(year).name == "y val"
    write_split(year, "test", ["a"])
    with pytest.raises(BoxlessError, match="choose a split; it has: test, val"):
        load_dataset(year)
    write_split(year, "train", ["a"])
    assert load_dataset(year).name == "y train"
    write_split(year, "trainval", ["a"])
    write_split(year, "dog_train", ["a  1"])
    assert load_dataset(year).name == "y trainval"
    with pytest.raises(BoxlessError, match=r"no split 'tset'; it has: test, train, trainval, val$"):
        load_dataset(year, "tset")


def test_a_split_whose_name_looks_like_a_class_list_can_be_requested(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog"), "b": object_xml("cat")})
    write_split(year, "small_train", ["b"])
    assert [sample.id for sample in load_dataset(year, "small_train").samples] == ["b"]


def test_a_year_without_lists_has_all_images_and_no_splits(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog"), "sub/b": object_xml("cat")})
    (year / "ImageSets" / "Main" / "train.txt").unlink()
    dataset = load_dataset(year)
    assert [(sample.id, sample.tags) for sample in dataset.samples] == [("a", {1}), ("sub/b", {0})]
    assert (dataset.name, dataset.warnings) == ("y", ())
    with pytest.raises(BoxlessError, match="has no splits"):
        load_dataset(year, "train")


def test_the_year_is_found_below(tmp_path):
    write_year(tmp_path / "VOCdevkit" / "VOC2007", {"a": object_xml("dog")})
    assert load_dataset(tmp_path).name == load_dataset(tmp_path / "VOCdevkit").name == "VOC2007 train"
    write_year(tmp_path / "VOCdevkit" / "VOC2012", {"a": object_xml("dog")})
    with pytest.raises(BoxlessError, match=r"several VOC years.*VOC2007, .*VOC2012$"):
        load_dataset(tmp_path)


def test_names_with_spaces_and_other_scripts_and_suffixes(tmp_path):
    annotations = {"photo 1": object_xml("großer Hund"), "子猫 (2)": object_xml("猫"), "x.y": object_xml("猫")}
    year = write_year(tmp_path / "my set", annotations)
    (year / "JPEGImages" / "子猫 (2).jpg").rename(year / "JPEGImages" / "子猫 (2).PNG")
    dataset = load_dataset(year)
    assert dataset.classes == ("großer Hund", "猫")
    assert [sample.path.name for sample in dataset.samples] == ["photo 1.jpg", "子猫 (2).PNG", "x.y.jpg"]


def test_lists_with_windows_line_ends_and_byte_order_mark(tmp_path):
    year = write_year(tmp_path / "y", {"a": object_xml("dog"), "b": object_xml("dog")})
    (year / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\nb\r\n")
    assert [sample.id for sample in load_dataset(year).samples] == ["a", "b"]


def test_tags_are_read_from_class_lists_without_annotations(tmp_path):
    year = tmp_path / "VOC2012"
    (year / "JPEGImages").mkdir(parents=True)
    (year / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("a", "b c", "d"):
        (year / "JPEGImages" / f"{name}.jpg").touch()
    write_split(year, "train", ["a", "b c", "d"])
    write_split(year, "dog_train", ["a  1", "b c -1", "d  0", "gone  1", "nonsense"])
    write_split(year, "traffic_light_train", ["a -1", "b c  1", "d -1"])
    write_split(year, "dog_val", ["a  1"])
    # As macOS writes it beside the other.
    (year / "ImageSets" / "Main" / "._dog_train.txt").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        \0\2")
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
