from pathlib import Path

import pytest

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError


def write(file: Path, text: str, *images: str) -> Path:
    file.write_text(text, encoding="utf-8")
    for name in images:
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / name).touch()
    return file


def test_a_column_of_tags(tmp_path):
    text = '\ufefftags,image\r\ndog; cat,a.jpg\r\n"dog","sub/b, ü.jpg"\r\n\r\n,c.jpg\r\n'
    dataset = load_dataset(write(tmp_path / "tags.csv", text, "a.jpg", "sub/b, ü.jpg", "c.jpg"))
    assert (dataset.name, dataset.classes) == ("tags", ("cat", "dog"))
    assert [(s.id, s.tags) for s in dataset.samples] == [("a.jpg", {0, 1}), ("sub/b, ü.jpg", {1}), ("c.jpg", set())]
    assert dataset.samples[1].path == tmp_path / "sub" / "b, ü.jpg"
    assert not dataset.has_boxes
    assert dataset.warnings == () and dataset.summary.endswith("; 1 image without a tag, kept as a negative")


def test_a_column_per_class_in_the_order_of_the_columns(tmp_path):
    text = "dog\tFile\tcat\tant\n1\ta.jpg\t0\t-1\n\tb.jpg\t1.0\tTrue\n"
    dataset = load_dataset(write(tmp_path / "t.tsv", text, "a.jpg", "b.jpg"))
    assert dataset.classes == ("dog", "cat", "ant")
    assert [(s.id, s.tags, s.unsure) for s in dataset.samples] == [("a.jpg", {0}, {2}), ("b.jpg", {1, 2}, set())]


def test_the_first_column_is_the_image_if_no_header_says_so(tmp_path):
    dataset = load_dataset(write(tmp_path / "t.csv", "id,dog\na.jpg,1\n", "a.jpg"))
    assert (dataset.classes, dataset.samples[0].id) == (("dog",), "a.jpg")


def test_a_column_without_a_name_is_an_index(tmp_path):
    dataset = load_dataset(write(tmp_path / "t.csv", ",path,dog\n0,a.jpg,1\n1,b.jpg,0\n", "a.jpg", "b.jpg"))
    assert (dataset.classes, [s.tags for s in dataset.samples]) == (("dog",), [{0}, set()])


def test_splits(tmp_path):
    text = "image,split,dog,cat\na.jpg,train,1,0\nb.jpg,val,1,0\nc.jpg,val,0,1\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg")
    assert (load_dataset(file).name, [s.id for s in load_dataset(file).samples]) == ("t train", ["a.jpg"])
    assert load_dataset(file).classes == ("dog", "cat")
    assert [s.id for s in load_dataset(file, "val").samples] == ["b.jpg", "c.jpg"]
    with pytest.raises(BoxlessError, match="no split 'test'; it has: train, val"):
        load_dataset(file, "test")


def test_a_split_of_a_table_without_any_is_an_error(tmp_path):
    with pytest.raises(BoxlessError, match="has no splits"):
        load_dataset(write(tmp_path / "t.csv", "image,dog\na.jpg,1\n", "a.jpg"), "train")


def test_broken_rows_are_counted_and_the_rest_is_loaded(tmp_path):
    rows = ["a.jpg,1,0,640", "./a.jpg,0,1,640", "gone.jpg,1,1,640", ",1,0,640", "b.jpg,x,1,640,7", "c.jpg,1"]
    text = "image,dog,cat,width\n" + "\n".join(rows)
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg"))
    assert dataset.classes == ("dog", "cat")
    assert [(s.id, s.tags, s.unsure) for s in dataset.samples] == [
        ("a.jpg", {0, 1}, set()),
        ("b.jpg", {1}, {0}),
        ("c.jpg", {0}, set()),
    ]
    assert dataset.warnings == (
        "rows with more cells than columns, the extra cells ignored: 1 (row 6)",
        "columns that are not mostly 0 and 1, not taken as classes: 1 (width)",
        "cells that are not 1, 0, -1 or empty, taken as unsure: 1 (b.jpg dog=x)",
        "images in more than one row, their tags merged: 1 (a.jpg)",
        "rows whose image is missing, left out: 1 (gone.jpg)",
        "rows that name no image, left out: 1 (dog)",
    )


def test_in_merged_rows_present_outweighs_unsure_and_unsure_outweighs_absent(tmp_path):
    text = "image,ant,bee,cow\na.jpg,-1,0,0\na.jpg,1,-1,0\n"
    sample = load_dataset(write(tmp_path / "t.csv", text, "a.jpg")).samples[0]
    assert (sample.tags, sample.unsure) == ({0}, {1})


def test_one_row_per_tag(tmp_path):
    dataset = load_dataset(write(tmp_path / "t.csv", "filename,label\na.jpg,dog\na.jpg,cat\n", "a.jpg"))
    assert [s.tags for s in dataset.samples] == [{0, 1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a row of column names"),
        ("image,dog\n", "needs a row of column names"),
        ("image\na.jpg\n", "names no class"),
        ("image,tags\na.jpg,\n", "names no class"),
        ("image,size\na.jpg,640\n", "names no class: add a column `tags`.*its columns are 'image', 'size'"),
        ("image,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n", "has boxes, but no column `class`"),
        ("image,dog,dog\na.jpg,1,0\n", "two columns are called dog"),
        ("a.jpg,dog\nb.jpg,cat\n", "first row must name the columns"),
        ("image,dog\ngone.jpg,1\n", r"1 of 1 row whose image is missing \(gone.jpg\); give their paths relative"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_that_names_it(tmp_path, text, message):
    with pytest.raises(BoxlessError, match=f"t.csv(.|\n)*{message}"):
        load_dataset(write(tmp_path / "t.csv", text, "a.jpg"))


@pytest.mark.parametrize("content", [b"image,tags\na.jpg,gr\xfcn\n", b"image,tags\na.jpg,\x00\n\xff"])
def test_a_table_in_another_encoding_is_an_error_that_says_so(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BoxlessError, match="save it as CSV in UTF-8"):
        load_dataset(tmp_path / "t.csv")
