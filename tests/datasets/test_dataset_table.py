import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.result_record import record_results
from boxless.results import OVERLAYS, OVERVIEW
from boxless.structures import Detections


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


@pytest.mark.parametrize("format", ["coco", "csv"])
@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("photos/a.jpg", "photos/b.jpg")])
def test_what_boxless_wrote_beside_a_table_is_no_data(tmp_path, format, names):
    rows = f"image,tags\n{names[0]},cat\n{names[1]},dog\n"
    file = write(tmp_path / "tags.csv", rows, "photos/a.jpg", "photos/b.jpg")
    found = tmp_path / "found"
    record_results(found, [OVERLAYS, OVERVIEW, *FORMATS[format].files])
    write(tmp_path / "found" / "overview.jpg", "")
    box, one = np.array([[1, 2, 30, 40]], np.float32), np.ones(1, np.float32)
    detections = Detections(box, one, np.zeros(1, np.int64), ("dog",), (100, 80), one)
    FORMATS.find(format).write(found, [(tmp_path / "photos" / "a.jpg", detections)], ("dog",), "run")
    for path in (file, tmp_path):
        assert [(sample.path.name, sample.tags) for sample in load_dataset(path).samples] == [
            ("a.jpg", {0}),
            ("b.jpg", {1}),
        ]


def test_quotation_marks_may_follow_a_space(tmp_path):
    dataset = load_dataset(
        write(tmp_path / "t.csv", 'image, tags\n"a.jpg", "scratch; dent"\n"b.jpg", "dent"\n', "a.jpg", "b.jpg")
    )
    assert (dataset.classes, [sample.tags for sample in dataset.samples]) == (("dent", "scratch"), [{0, 1}, {0}])


def test_cells_may_be_longer_than_python_takes_by_default(tmp_path):
    limit = csv.field_size_limit()
    text = f"image,tags,mask\na.jpg,cat,{'1 2 ' * limit}\n"
    assert load_dataset(write(tmp_path / "t.csv", text, "a.jpg")).classes == ("cat",)
    assert csv.field_size_limit() == limit


def test_relative_and_absolute_paths_of_an_image_are_one_image(tmp_path, monkeypatch):
    here = tmp_path / "set"
    here.mkdir()
    names = (
        "photos/a.jpg",
        str(here / "photos" / "a.jpg"),
        "photos/../photos/a.jpg",
        "set/photos/a.jpg",
        "photos/b.jpg",
    )
    tags = ("cat", "dog", "ant", "bee", "cat")
    rows = "".join(f"{name},{tag}\n" for name, tag in zip(names, tags, strict=True))
    write(here / "tags.csv", f"image,tags\n{rows}", "photos/a.jpg", "photos/b.jpg")
    monkeypatch.chdir(here)
    for path in (here / "tags.csv", Path("tags.csv")):
        dataset = load_dataset(path)
        found = [(sample.id, sample.tags) for sample in dataset.samples]
        assert found == [("photos/a.jpg", {0, 1, 2, 3}), ("photos/b.jpg", {2})]


def test_the_table_with_classes_is_that_of_the_folder(tmp_path):
    write(tmp_path / "sizes.csv", "image,width,height\na.jpg,64,48\n", "a.jpg")
    write(tmp_path / "tags.csv", "image,tags\na.jpg,cat\n")
    assert load_dataset(tmp_path).classes == ("cat",)


def test_an_image_with_a_box_of_one_class_and_none_of_another_is_named(tmp_path):
    text = "image,tags,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,30,40\na.jpg,dog,,,,\nb.jpg,cat,1,2,30,40\n"
    file = write(tmp_path / "t.csv", text)
    for name in "ab":
        Image.new("RGB", (100, 80)).save(tmp_path / f"{name}.jpg")
    dataset = load_dataset(file)
    assert [sample.annotations is None for sample in dataset.samples] == [True, False]
    warning = "images with a box of one class and none of another, their boxes left out (the tags stay): 1 (a.jpg)"
    assert warning in dataset.warnings


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_an_error_with_the_way_out(tmp_path):
    os.mkfifo(tmp_path / "tags.csv")
    with pytest.raises(BoxlessError, match=r"tags\.csv: a pipe or a device; save its content as a file\."):
        load_dataset(tmp_path / "tags.csv")


def test_a_name_that_leaves_a_linked_folder_stays_as_it_is(tmp_path):
    store = tmp_path / "store"
    (store / "tables").mkdir(parents=True)
    write(store / "tables" / "t.csv", "image,tags\n../photos/a.jpg,cat\n", "../photos/a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "tables").symlink_to(store / "tables")
    (sample,) = load_dataset(tmp_path / "set" / "tables" / "t.csv").samples
    assert sample.path.samefile(store / "photos" / "a.jpg")


@pytest.mark.parametrize(("folders", "expected"), [(("a", "b"), ("a", "b")), (("photos1",), None)])
def test_a_table_without_classes_gives_way_to_several_folders_alone(tmp_path, folders, expected):
    names = [f"{folder}/{number}.jpg" for folder in folders for number in (1, 2)]
    write(tmp_path / "t.csv", "image\n" + "".join(f"{name}\n" for name in names), *names)
    if expected is None:
        with pytest.raises(BoxlessError, match="names no class: add a column `tags`"):
            load_dataset(tmp_path)
    else:
        assert load_dataset(tmp_path).classes == expected


def test_tags_may_begin_far_below(tmp_path):
    names = [f"{folder}/{number}.jpg" for number in range(600) for folder in "ab"]
    rows = "".join(f"{name},\n" for name in names[:-1])
    write(tmp_path / "t.csv", f"image,tags\n{rows}{names[-1]},zebra\n", *names)
    assert load_dataset(tmp_path).classes == ("zebra",)


def test_predictions_beside_a_table_are_not_taken_for_it(tmp_path):
    write(tmp_path / "tags.csv", "image,tags\nphotos/a.jpg,cat\n", "photos/a.jpg")
    write(tmp_path / "predictions.csv", "image,tags\nphotos/a.jpg,dog\n")
    record_results(tmp_path, ["predictions.csv"])
    assert load_dataset(tmp_path).classes == ("cat",)
