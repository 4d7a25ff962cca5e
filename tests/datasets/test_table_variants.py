"""Tables as spreadsheets, data frames, Label Studio, Roboflow and others write them."""

import json
from pathlib import Path

import numpy as np
import pytest

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
    ],
    ids=str,
)
def test_tags_in_one_column_are_parted(tmp_path, cells):
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


def test_empty_cells_of_a_data_frame_are_counted(tmp_path):
    file = write(tmp_path / "t.csv", "image,tags\na.jpg,dent\nb.jpg,nan\nc.jpg,NaN\n", "a.jpg", "b.jpg", "c.jpg")
    assert "cells `nan`, `none` or the like, taken as no tag: 2 (nan, NaN)" in load_dataset(file).warnings


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_columns_may_be_parted_otherwise(tmp_path, delimiter):
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
