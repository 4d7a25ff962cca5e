"""Tables as spreadsheets, data frames, Label Studio, Roboflow and others write them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset, split_names
from boxless.datasets.lookup import RESPELLED
from boxless.errors import BoxlessError


def write(file: Path, text: str, *images: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    for name in images:
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / name).touch()
    return file


def tags(file: Path) -> list[set[str]]:
    """The names of the tags of every image."""
    dataset = load_dataset(file)
    return [{dataset.classes[tag] for tag in sample.tags} for sample in dataset.samples]


@pytest.mark.parametrize(
    "cells",
    [
        ["dent;scratch", "dent", ""],
        ["dent|scratch", "dent", ""],
        ['"dent, scratch"', "dent", ""],
        ["\"['dent', 'scratch']\"", "['dent']", "[]"],
        ["\"['dent' 'scratch']\"", "['dent']", "[]"],
        ['"[""dent"", ""scratch""]"', '"[""dent""]"', "[]"],
        ['"[dent, scratch]"', "[dent]", "[]"],
        ['"{""choices"": [""dent"", ""scratch""]}"', "dent", ""],
        ['"dent\nscratch"', "dent", ""],
        ['"dent, scratch\nscratch"', "dent", ""],
        ["scratch;dent", "dent", "-"],
        ["scratch;dent", "dent", "nan"],
        ["scratch;dent", "dent", "None"],
        ["scratch;dent;nan", "dent;-", "nan;nan"],
        ['"[""dent"", ""scratch"", null]"', '"[""dent"", ""None""]"', "[nan]"],
        ["\"array(['dent', 'scratch'], dtype=object)\"", "array(['dent'])", '"array([], dtype=object)"'],
        ['"[[""dent""], [""scratch""]]"', '"[[""dent""]]"', "[]"],
        ["\"{'choices': ['dent', 'scratch']}\"", "dent", "{}"],
        ["scratch;dent", '"{""choices"": [""dent""]}"', '"{""choices"": []}"'],
    ],
    ids=str,
)
def test_tags_in_one_column_are_separated(tmp_path, cells):
    text = "image,tags\n" + "".join(f"{name}.jpg,{cell}\n" for name, cell in zip("abc", cells, strict=True))
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg")
    assert load_dataset(file).classes == ("dent", "scratch")
    assert tags(file) == [{"dent", "scratch"}, {"dent"}, set()]


def test_a_comma_that_always_stands_between_the_same_words_belongs_to_the_name(tmp_path):
    file = write(tmp_path / "t.csv", 'image,tags\na.jpg,"Kuh, groß"\nb.jpg,Hund\n', "a.jpg", "b.jpg")
    dataset = load_dataset(file)
    assert dataset.classes == ("Hund", "Kuh, groß")
    assert dataset.warnings == (
        "tags with a comma, taken as one name each, as no part of them is in another cell: 1 (Kuh, groß)",
    )
    file = write(tmp_path / "t.csv", 'image,tags\na.jpg,"Kuh, groß;Hund"\nb.jpg,"Kuh, klein"\n')
    assert load_dataset(file).classes == ("Hund", "Kuh, groß", "Kuh, klein")


def test_a_comma_behind_the_last_tag_is_of_no_name(tmp_path):
    file = write(tmp_path / "t.csv", 'image,tags\na.jpg,"dent,"\nb.jpg,"Kuh, groß, "\n', "a.jpg", "b.jpg")
    assert tags(file) == [{"dent"}, {"Kuh, groß"}]
    assert load_dataset(file).warnings[0].endswith("as no part of them is in another cell: 1 (Kuh, groß,)")


def test_empty_cells_of_a_data_frame_are_counted(tmp_path):
    text = "image,tags\na.jpg,Na\nb.jpg,nan\nc.jpg,NaN\nd.jpg,NA\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert tags(file) == [{"Na"}, set(), set(), set()]
    assert "cells `nan`, `none` or the like, taken as no tag: 3 (nan, NaN, NA)" in load_dataset(file).warnings


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_columns_may_have_other_separators(tmp_path, delimiter):
    rows = [["image", "dent", "scratch"], ["a.jpg", "1", "0"], ["b.jpg", "0", "1"]]
    text = "".join(delimiter.join(row) + "\r\n" for row in rows)
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg")
    assert tags(file) == [{"dent"}, {"scratch"}]
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16"))
    assert tags(file) == [{"dent"}, {"scratch"}]


def test_a_line_of_excel_may_say_what_parts_columns(tmp_path):
    file = write(tmp_path / "t.csv", "sep=;\r\nimage;tags\r\na.jpg;dent,scratch\r\nb.jpg;dent\r\n", "a.jpg", "b.jpg")
    assert tags(file) == [{"dent", "scratch"}, {"dent"}]


def test_names_of_a_split_that_differ_in_case_are_one_split(tmp_path):
    text = "image,tags,split\na.jpg,dent,train\nb.jpg,dent,Train\nc.jpg,dent,TRAIN \nd.jpg,dent,test\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert split_names(file) == ("test", "train")
    dataset = load_dataset(file)
    assert [sample.id for sample in dataset.samples] == ["a.jpg", "b.jpg", "c.jpg"]
    assert dataset.warnings == ("names of splits that differ from 'train' in case only, taken as it: 2 (Train, TRAIN)",)


def test_rows_without_a_split_are_counted(tmp_path):
    text = "image,tags,split\na.jpg,dent,train\nb.jpg,dent,\nc.jpg,dent,\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg")
    dataset = load_dataset(file)
    assert [sample.id for sample in dataset.samples] == ["a.jpg"]
    assert dataset.warnings == ("rows without a split, left out: 2 (b.jpg, c.jpg)",)


def test_columns_of_data_frames_and_of_other_numbers_are_no_classes(tmp_path):
    text = "Unnamed: 0,image,dent,id,site_id,width,count\n0,a.jpg,1,1,1,1,1\n1,b.jpg,0,0,0,640,2\n2,c.jpg,1,2,0,640,3\n"
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg"))
    assert (dataset.classes, [sample.tags for sample in dataset.samples]) == (("dent",), [{0}, set(), {0}])
    assert dataset.warnings[0] == (
        "columns that are not mostly 0 and 1, not taken as classes: 5 (Unnamed: 0, id, site_id, width, count)"
    )


def test_columns_beside_the_tags_are_named_as_boxes_may_be_in_them(tmp_path):
    text = 'image_id,width,bbox,class\na,640,"[1, 2, 3, 4]",dent\nb,640,,scratch\n'
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg"))
    assert [sample.annotations for sample in dataset.samples] == [None, None]
    assert "columns that are not used: 2 (width, bbox)" in dataset.warnings


def test_rows_of_confidence_0_say_that_a_class_is_absent(tmp_path):
    """As Open Images writes the tags that people have verified."""
    text = "ImageID,Source,LabelName,Confidence\na,v,dent,1\na,v,scratch,0\nb,v,dent,0.0\nb,v,scratch,0.7\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg")
    assert tags(file) == [{"dent"}, {"scratch"}]
    assert load_dataset(file).warnings[1:3] == (
        "rows whose Confidence is 0, their tags taken as absent: 2 (a, b)",
        "rows whose Confidence is below 1, their tags taken as present: 1 (b)",
    )


def test_the_table_of_vgg_image_annotator_is_refused(tmp_path):
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    text = f'{header}\na.jpg,1,"{{}}",1,0,"{{""x"":1}}","{{""class"":""dent""}}"\n'
    with pytest.raises(BoxlessError, match=r"t\.csv: VGG Image Annotator's own CSV is not read; export COCO there"):
        load_dataset(write(tmp_path / "t.csv", text, "a.jpg"))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (r"photos\a.jpg", "photos/a.jpg"),
        (r"C:\Users\me\photos\a.jpg", "photos/a.jpg"),
        ("0001", "0001.jpg"),
        ("0001", "photos/0001.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("caf\udce9.jpg", "caf\udce9.jpg"),
    ],
)
def test_names_of_other_systems_are_matched(tmp_path, name, path):
    text = f"image,tags\n{name},dent\nb.jpg,dent\n"
    dataset = load_dataset(write(tmp_path / "t.csv", text, path, "b.jpg"))
    assert [(sample.path, sample.id) for sample in dataset.samples] == [
        (tmp_path / path, path),
        (tmp_path / "b.jpg", "b.jpg"),
    ]
    assert [warning.partition(":")[0] for warning in dataset.warnings] == ([RESPELLED] if name != path else [])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["/x/train/a.jpg", "/x/val/a.jpg"], []),
        ([r"C:\x\photos\a.jpg", r"C:\x\others\a.jpg"], [{"1"}]),
        (["a", "photos/a.jpg", r"C:\x\Photos\a.JPG", "./photos/a.jpeg", "/photos/a.jpg"], [{"1", "2", "3", "4", "5"}]),
    ],
)
def test_names_in_several_folders_are_not_one_image(tmp_path, names, expected):
    rows = "".join(f"{name},{number}\n" for number, name in enumerate(names, 1))
    others = [f"photos/{name}.jpg" for name in "bcd"]
    rows += "".join(f"{name},x\n" for name in others)
    file = write(tmp_path / "t.csv", "image,tags\n" + rows, "photos/a.jpg", *others)
    assert tags(file) == [*expected, {"x"}, {"x"}, {"x"}]
    missing = [warning for warning in load_dataset(file).warnings if "missing" in warning]
    assert bool(missing) == (len(names) == 2)


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        ("/kaggle/input/set/photos/", "/content/drive/set/photos/", True),
        ("D:\\set\\photos\\", "/mnt/d/set/photos/", True),
        ("/home/ann/set/", "/home/bob/data/", True),
        ("https://a.example/set/", "https://b.example/files/", True),
        ("/home/ann/train/", "/home/ann/val/", False),
        ("D:/train/", "D:/val/", False),
        ("/train/", "/val/", False),
    ],
)
def test_a_folder_of_several_machines_is_one(tmp_path, one, other, kept):
    names = [f"000{number}.jpg" for number in range(4)]
    rows = "".join(f"{one}{name},cat\n{other}{name},dog\n" for name in names)
    file = write(tmp_path / "t.csv", "image,tags\n" + rows, *(f"photos/{name}" for name in names))
    if kept:
        assert tags(file) == [{"cat", "dog"}] * 4
        assert not any("missing" in warning for warning in load_dataset(file).warnings)
    else:
        with pytest.raises(BoxlessError, match="8 of 8 rows whose image is missing"):
            load_dataset(file)


def test_a_folder_of_several_machines_is_one_where_each_names_some_of_its_images(tmp_path):
    one, other = "/kaggle/input/set/photos", "/content/drive/set/photos"
    rows = (
        f"photos/1.jpg,cow\n{one}/1.jpg,cat\n{one}/2.jpg,cat\n{other}/2.jpg,dog\n{other}/1.jpg,dog\n{other}/3.jpg,x\n"
    )
    file = write(tmp_path / "t.csv", "image,tags\n" + rows, "photos/1.jpg", "photos/2.jpg", "photos/3.jpg")
    assert tags(file) == [{"cow", "cat", "dog"}, {"cat", "dog"}, {"x"}]


def test_folders_of_several_machines_that_hold_other_images_are_not_one(tmp_path):
    rows = "/kaggle/a/1.jpg,cat\n/content/b/1.jpg,dog\n/kaggle/a/2.jpg,cat\n3.jpg,dog\n4.jpg,dog\n"
    file = write(tmp_path / "t.csv", "image,tags\n" + rows, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    assert tags(file) == [{"cat"}, {"dog"}, {"dog"}]
    rows = "photos/1.jpg,cat\nphotos/2.jpg,cat\nphotos/3.jpg,x\n/home/ann/val/1.jpg,dog\n/home/ann/val/2.jpg,dog\n"
    file = write(tmp_path / "u.csv", "image,tags\n" + rows, "photos/1.jpg", "photos/2.jpg", "photos/3.jpg")
    for name in "1234":
        (tmp_path / f"{name}.jpg").unlink()
    assert tags(file) == [{"cat"}, {"cat"}, {"x"}]


def test_images_that_no_row_of_any_split_names_are_counted(tmp_path):
    text = "image,tags,split\nsub/a,dent,train\nsub/b.jpg,dent,val\n"
    file = write(tmp_path / "t.csv", text, "sub/a.jpg", "sub/b.jpg", "sub/c.jpg", "other/d.jpg")
    assert "image files that no row names, not used: 1 (c.jpg)" in load_dataset(file).warnings


def test_most_rows_without_an_image_are_an_error(tmp_path):
    text = "image,tags\na.jpg,dent\nx.jpg,dent\ny.jpg,dent\n"
    with pytest.raises(BoxlessError, match=r"2 of 3 rows whose image is missing \(x.jpg, y.jpg\); give their paths"):
        load_dataset(write(tmp_path / "t.csv", text, "a.jpg"))


def boxes(file: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """The boxes of every image with their classes."""
    dataset = load_dataset(file)
    return {
        sample.id: [
            (dataset.classes[label], box)
            for label, box in zip(sample.annotations.labels, sample.annotations.boxes.tolist(), strict=True)
        ]
        for sample in dataset.samples
    }


TWO = {"a.jpg": [("dent", [10, 20, 30, 50]), ("scratch", [0, 0, 5, 5])], "b.jpg": [("dent", [1, 2, 3, 4])]}


@pytest.mark.parametrize(
    "header",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        "image,image_width,image_height,label,x1,y1,x2,y2",
        "ImageID,width,height,LabelName,XMin,YMin,XMax,YMax",
    ],
)
def test_boxes_of_corners(tmp_path, image, header):
    rows = ["a.jpg,100,80,dent,10,20,30,50", "a.jpg,100,80,scratch,0,0,5,5", "b.jpg,100,80,dent,1,2,3,4"]
    file = write(tmp_path / "t.csv", "\n".join([header, *rows]))
    for name in TWO:
        image(tmp_path / name)
    assert boxes(file) == TWO
    dataset = load_dataset(file)
    assert (dataset.classes, dataset.warnings) == (("dent", "scratch"), ())
    assert dataset.summary == "table of boxes, 2 images, 2 classes"


def test_boxes_of_corners_and_sizes(tmp_path, image):
    header = "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height"
    rows = ["dent,10,20,20,30,a.jpg,100,80", "scratch,0,0,5,5,a.jpg,100,80", "dent,1,2,2,2,b.jpg,100,80"]
    file = write(tmp_path / "t.csv", "\n".join([header, *rows]))
    for name in TWO:
        image(tmp_path / name)
    assert boxes(file) == TWO


def test_boxes_in_fractions(tmp_path, image):
    # Of 100 x 80 pixels, and of 80 x 100 as displayed.
    rows = ["a.jpg,dent,0.1,0.25,0.3,0.625", "b.jpg,dent,0,0,1,1.0005"]
    file = write(tmp_path / "t.csv", "\n".join(["image,class,xmin,ymin,xmax,ymax", *rows]))
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg", orientation=6)
    found = boxes(file)
    np.testing.assert_allclose(found["a.jpg"][0][1], [10, 20, 30, 50], rtol=1e-6)
    assert found["b.jpg"] == [("dent", [0, 0, 80, 100])]


def test_an_image_without_a_box_is_a_negative_and_one_without_numbers_keeps_its_tag(tmp_path, image):
    rows = ["a.jpg,dent,1,2,3,4", "b.jpg,,,,,", "c.jpg,dent,,,,", "d.jpg,dent,x,2,3,4"]
    file = write(tmp_path / "t.csv", "\n".join(["image,class,xmin,ymin,xmax,ymax", *rows]))
    for name in "abcd":
        image(tmp_path / f"{name}.jpg")
    dataset = load_dataset(file)
    assert [sample.tags for sample in dataset.samples] == [{0}, set(), {0}, {0}]
    assert [sample.annotations and len(sample.annotations.boxes) for sample in dataset.samples] == [1, 0, None, None]
    assert "boxes without numbers, dropped (their tags stay): 1 (d.jpg)" in dataset.warnings


def test_boxes_of_an_image_of_another_size_are_scaled(tmp_path, image):
    image(tmp_path / "a.jpg")
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,200,160,dent,20,40,60,100\n"
    assert boxes(write(tmp_path / "t.csv", text)) == {"a.jpg": [("dent", [10, 20, 30, 50])]}


def test_the_size_of_an_image_may_stand_in_any_of_its_rows(tmp_path, image):
    image(tmp_path / "a.jpg")
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,,,dent,20,40,60,100\na.jpg,200,160,dent,0,0,10,10\n"
    expected = {"a.jpg": [("dent", [10, 20, 30, 50]), ("dent", [0, 0, 5, 5])]}
    assert boxes(write(tmp_path / "t.csv", text)) == expected


LABEL_STUDIO = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at"


def test_choices_of_label_studio(tmp_path):
    rows = [
        "1,1,dent,2024-01-01,7,/data/upload/1/0a1b2c3d-a.jpg,2.5,2024-01-01",
        '2,1,"{""choices"": [""dent"", ""scratch""]}",2024-01-01,8,/data/local-files/?d=photos/b.jpg,1.5,2024-01-01',
        "3,1,,2024-01-01,9,/data/upload/1/0a1b2c3d-c.jpg,1.5,2024-01-01",
    ]
    file = write(tmp_path / "t.csv", "\n".join([LABEL_STUDIO, *rows]), "a.jpg", "b.jpg", "c.jpg")
    assert tags(file) == [{"dent"}, {"dent", "scratch"}, set()]
    # The control may have any name.
    write(file, "\n".join([LABEL_STUDIO.replace("choice", "what_is_it"), *rows]))
    assert tags(file) == [{"dent"}, {"dent", "scratch"}, set()]


def test_rectangles_of_label_studio(tmp_path, image):
    image(tmp_path / "a.jpg")
    value = {"x": 10, "y": 25, "width": 20, "height": 37.5, "rotation": 0, "original_width": 100, "original_height": 80}
    cell = json.dumps([{**value, "rectanglelabels": ["dent"]}]).replace('"', '""')
    text = f'annotation_id,annotator,created_at,id,image,label,lead_time\n1,1,x,7,a.jpg,"{cell}",2\n'
    file = write(tmp_path / "t.csv", text)
    assert boxes(file) == {"a.jpg": [("dent", [10, 20, 30, 50])]}
    # They refer to the size that stands beside them.
    image(tmp_path / "a.jpg", (50, 40))
    assert boxes(file) == {"a.jpg": [("dent", [5, 10, 15, 25])]}


def test_the_decimal_separator_of_a_table_of_semicolons_is_the_comma(tmp_path, image):
    image(tmp_path / "a.jpg")
    rows = "filename;class;xmin;ymin;xmax;ymax\r\na.jpg;dent;10,5;10,0;50.5;60,25\r\n"
    assert boxes(write(tmp_path / "t.csv", "\ufeff" + rows)) == {"a.jpg": [("dent", [10.5, 10, 50.5, 60.25])]}
    # That of others is not: this is a thousand.
    write(tmp_path / "t.csv", 'filename,class,xmin,ymin,xmax,ymax\na.jpg,dent,10,10,"1,024",60\n')
    assert load_dataset(tmp_path / "t.csv").samples[0].annotations is None


def test_classes_of_roboflow(tmp_path):
    file = write(tmp_path / "_classes.csv", "filename, dent, scratch\na.jpg, 1, 0\nb.jpg, 0, 1\n", "a.jpg", "b.jpg")
    assert (load_dataset(file).classes, tags(file)) == (("dent", "scratch"), [{"dent"}, {"scratch"}])


def test_a_folder_with_a_table_that_names_its_images(tmp_path):
    text = "image,tags,split\nphotos/a.jpg,dent,train\nphotos/b.jpg,scratch,val\n"
    write(tmp_path / "tags.csv", text, "photos/a.jpg", "photos/b.jpg")
    write(tmp_path / "costs.csv", "item,price\nx,1\n")
    assert split_names(tmp_path) == ("train", "val")
    assert [sample.id for sample in load_dataset(tmp_path, "val").samples] == ["photos/b.jpg"]
    write(tmp_path / "more.csv", text)
    with pytest.raises(BoxlessError, match=r"several tables name images, give the path of one of more\.csv, tags\.csv"):
        load_dataset(tmp_path)


def test_class_folders_beside_another_table_stay_class_folders(tmp_path):
    write(tmp_path / "costs.csv", "item,price\nx,1\n", "dent/a.jpg", "scratch/b.jpg")
    assert load_dataset(tmp_path).classes == ("dent", "scratch")


def test_empty_parts_of_cells_and_lists_in_lists_are_counted(tmp_path):
    text = 'image,tags\na.jpg,dent;nan\nb.jpg,"[[""dent""], [""scratch""]]"\n'
    assert load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg")).warnings == (
        'cells with lists in a list, all their names taken as tags: 1 ([["dent"], ["scratch"]])',
        "cells `nan`, `none` or the like, taken as no tag: 1 (dent;nan)",
    )


@pytest.mark.parametrize("cell", ['"[{""name"": ""dent""}]"', '"{""dent"": 1}"', "{'dent': 0}", "[{'name': 'dent'}]"])
def test_an_image_with_tags_that_cannot_be_read_is_no_negative(tmp_path, cell):
    text = f"image,tags\na.jpg,{cell}\na.jpg,dent\nb.jpg,dent\nc.jpg,scratch\n"
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg"))
    assert [sample.id for sample in dataset.samples] == ["b.jpg", "c.jpg"]
    shown = cell.strip('"').replace('""', '"')
    assert dataset.warnings == (f"rows whose tags cannot be read, their images left out: 1 ({shown})",)
    write(tmp_path / "t.csv", f"image,tags\na.jpg,{cell}\nb.jpg,{cell}\nc.jpg,dent\n")
    with pytest.raises(BoxlessError, match=r"t\.csv: 2 of 3 rows whose tags cannot be read .*; write the names"):
        load_dataset(tmp_path / "t.csv")


def test_an_object_without_a_class_beside_others_is_counted(tmp_path):
    text = 'image,tags\na.jpg,"[{""choices"": [""dent""]}, {""x"": 1}]"\n'
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg"))
    assert dataset.samples[0].tags == {0}
    assert dataset.warnings[0].startswith("cells with an object that has no class that is read; it is not used: 1 (")


@pytest.mark.parametrize("cells", [['"[0, 1, 0]"', '"[1, 0, 0]"'], ["[0 1 0]", "[1. 0. 1.]"], ["1;1", "0;1"]])
def test_tags_of_0_and_1_without_names_are_refused(tmp_path, cells):
    file = write(tmp_path / "t.csv", f"image,tags\na.jpg,{cells[0]}\nb.jpg,{cells[1]}\n", "a.jpg", "b.jpg")
    with pytest.raises(BoxlessError, match=r"t\.csv: the tags are 0 and 1 without the names of their classes; write"):
        load_dataset(file)


def test_tags_may_be_numbers(tmp_path):
    text = 'image,tags\na.jpg,"[0, 1]"\nb.jpg,[1]\nc.jpg,"[0, 0, 1]"\n'
    assert tags(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg")) == [{"0", "1"}, {"1"}, {"0", "1"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,tags,,\na.jpg,dent,scratch,\n",
            "columns without a name beside 'tags' hold 'scratch'; if these",
        ),
        ("image,tags,Unnamed: 2\na.jpg,dent,scratch\n", "columns without a name beside 'tags' hold 'scratch'"),
        ("image,class,,\n,dent,scratch,rust\na.jpg,1,0,0\n", "beside 'class' hold 'scratch', 'rust', '0'"),
        ("image,dent,,\na.jpg,1,,0\nb.jpg,0,,1\n", "a column of 0 and 1 has no name; name its class in the first row"),
    ],
)
def test_tags_in_columns_without_a_name_are_refused(tmp_path, text, message):
    with pytest.raises(BoxlessError, match=f"t.csv: {message}|t.csv: columns without a name {message}"):
        load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg"))


@pytest.mark.parametrize("text", [",,image,tags,,\n0,5,a.jpg,dent,,\n1,6,b.jpg,,,\n", ",image,dent,\n0,a.jpg,1,\n"])
def test_other_columns_without_a_name_are_left_out(tmp_path, text):
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg"))
    assert (dataset.classes, dataset.samples[0].tags) == (("dent",), {0})


@pytest.mark.parametrize("rows", ['a.jpg,"dent\nb.jpg,scratch\n', 'a.jpg,"dent\nb.jpg,scratch\nc.jpg,"dent"\n'])
def test_a_quotation_mark_that_is_not_closed_is_an_error(tmp_path, rows):
    with pytest.raises(BoxlessError, match=r"t\.csv: .*\(a quotation mark is not closed, perhaps in row 2\)"):
        load_dataset(write(tmp_path / "t.csv", f"image,tags\n{rows}", "a.jpg", "b.jpg", "c.jpg"))


def test_lines_may_end_as_on_the_old_macintosh(tmp_path):
    file = write(tmp_path / "t.csv", "image,tags\ra.jpg,dent\rb.jpg,scratch\r", "a.jpg", "b.jpg")
    assert tags(file) == [{"dent"}, {"scratch"}]


def test_a_confidence_may_have_a_decimal_comma_or_be_a_percentage(tmp_path):
    text = "image;tags;score\na.jpg;dent;0,0\nb.jpg;dent;0 %\nc.jpg;dent;97,5%\nd.jpg;dent;1,0\ne.jpg;dent;high\n"
    names = [f"{name}.jpg" for name in "abcde"]
    file = write(tmp_path / "t.csv", text, *names)
    assert tags(file) == [set(), set(), {"dent"}, {"dent"}, {"dent"}]
    assert load_dataset(file).warnings[:3] == (
        "rows whose score is 0, their tags taken as absent: 2 (a.jpg, b.jpg)",
        "rows whose score is below 1, their tags taken as present: 1 (c.jpg)",
        "rows whose score is no number, their tags taken as present: 1 (e.jpg)",
    )


@pytest.mark.parametrize("cell", ["nan", "-", "None"])
def test_an_empty_split_of_a_data_frame_is_none(tmp_path, cell):
    text = f"image,tags,split\na.jpg,dent,train\nb.jpg,dent,{cell}\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg")
    assert split_names(file) == ("train",)
    assert load_dataset(file).warnings == ("rows without a split, left out: 1 (b.jpg)",)


def test_columns_of_folds_and_splits_are_no_classes(tmp_path):
    text = "image,dent,is_valid,fold\na.jpg,1,True,0\nb.jpg,0,False,1\nc.jpg,1,False,2\n"
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg", "c.jpg"))
    assert dataset.classes == ("dent",)
    assert dataset.warnings[0] == (
        "columns that may say the split, not used; a column `split` would be: 2 (is_valid, fold)"
    )
    # A fold is also a defect of cloth.
    write(tmp_path / "t.csv", "image,dent,fold\na.jpg,1,0\nb.jpg,0,1\n")
    assert load_dataset(tmp_path / "t.csv").classes == ("dent", "fold")


def test_minus_1_beside_1_alone_is_named_as_it_may_mean_absent(tmp_path):
    """As CelebA writes its attributes."""
    text = "image_id,Male,Young,Bald\na.jpg,1,-1,0\nb.jpg,-1,1,-1\n"
    dataset = load_dataset(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg"))
    assert [sample.unsure for sample in dataset.samples] == [{1}, {0, 2}]
    hint = "columns of 1 and -1 without 0: -1 is read as unknown, write 0 if it means absent: 2 (Male, Young)"
    assert dataset.warnings[0] == hint


def test_an_image_with_a_box_without_a_class_is_no_negative(tmp_path, image):
    rows = ["a.jpg,dent,1,2,3,4", "b.jpg,,1,2,3,4", "c.jpg,,0,0,0,0"]
    file = write(tmp_path / "t.csv", "\n".join(["image,class,xmin,ymin,xmax,ymax", *rows]))
    for name in "abc":
        image(tmp_path / f"{name}.jpg")
    dataset = load_dataset(file)
    assert [sample.id for sample in dataset.samples] == ["a.jpg", "c.jpg"]
    assert "boxes without a class, their images left out: 1 (b.jpg)" in dataset.warnings


@pytest.mark.parametrize("names", [("1", "2"), ("1.0", "2.0")])
def test_names_that_were_read_as_numbers_are_an_error_with_a_hint(tmp_path, names):
    text = "id,dent\n" + "".join(f"{name},1\n" for name in names)
    with pytest.raises(BoxlessError, match=r"2 of 2 rows whose image is .*0001, or \.0 added: write them as text"):
        load_dataset(write(tmp_path / "t.csv", text, "0001.jpg", "0002.jpg"))


def test_remarks_in_a_column_without_a_name_are_no_tags(tmp_path):
    text = "image,tags,\na.jpg,dent,\nb.jpg,scratch,check this one\n"
    file = write(tmp_path / "t.csv", text, "a.jpg", "b.jpg")
    assert tags(file) == [{"dent"}, {"scratch"}]
    assert load_dataset(file).warnings == ("columns without a name, not used: 1 (check this one)",)
    write(file, text.replace("check this one", "dent"))
    with pytest.raises(BoxlessError, match="columns without a name beside 'tags' hold 'dent'"):
        load_dataset(file)


def test_quotation_marks_in_a_note_are_its_text(tmp_path):
    text = 'image,tags,notes\na.jpg,dent,"two\nlines"\nb.jpg,scratch,"5" pipe"\n'
    assert tags(write(tmp_path / "t.csv", text, "a.jpg", "b.jpg")) == [{"dent"}, {"scratch"}]


@pytest.mark.parametrize("name", ["red, big", "red; big", "A|B", "M3:8", "?odd", "(x)"])
def test_the_class_of_a_box_is_one_name(tmp_path, name):
    rows = "".join(f'a.jpg,"{own}",1,2,30,40\n' for own in (name, "red", "big"))
    # Without a box it is the same class; beside zeros, which are no box, tags are separated.
    rows += f'b.jpg,"{name}",,,,\nc.jpg,red;big,0,0,0,0\n'
    file = write(tmp_path / "t.csv", "image,class,x1,y1,x2,y2\n" + rows)
    for image in "abc":
        Image.new("RGB", (50, 50)).save(tmp_path / f"{image}.jpg")
    dataset = load_dataset(file)
    sample, tagged, both = dataset.samples
    assert {dataset.classes[label] for label in tagged.tags} == {name}
    assert {dataset.classes[label] for label in both.tags} == {"red", "big"}
    assert {dataset.classes[label] for label in sample.annotations.labels} == {name, "red", "big"}
    assert len(sample.annotations.labels) == 3 and not sample.counts and not sample.unsure


def test_an_empty_column_beside_columns_of_0_and_1_is_no_class(tmp_path):
    file = write(tmp_path / "t.csv", "image,dent,comment\na.jpg,1,\nb.jpg,0,\n", "a.jpg", "b.jpg")
    assert load_dataset(file).classes == ("dent",)


def test_blank_lines_may_precede_the_header(tmp_path):
    file = write(tmp_path / "t.csv", "\r\n\r\nimage;tags\r\na.jpg;dent\r\n", "a.jpg")
    assert tags(file) == [{"dent"}]


def test_images_in_a_folder_above_are_found_from_within_the_folder_of_the_table(tmp_path, monkeypatch):
    write(tmp_path / "set" / "t.csv", "image,tags\n..\\photos\\a.jpg,dent\n")
    write(tmp_path / "photos" / "a.jpg", "")
    monkeypatch.chdir(tmp_path / "set")
    (sample,) = load_dataset("t.csv").samples
    assert sample.path.resolve() == tmp_path / "photos" / "a.jpg"
