import shutil

import numpy as np
import pytest

from boxless.datasets import load_dataset, split_names
from boxless.doctor import examine
from boxless.errors import BoxlessError
from boxless.export import FORMATS
from boxless.files import write_json
from boxless.result_record import record_results
from boxless.results import OVERLAYS, OVERVIEW
from boxless.structures import Detections


def test_folders_are_classes(tmp_path, image):
    for name in ("katze süß/1.jpg", "dog/a b.PNG", "dog/deep/1.jpg", "dog/.ipynb_checkpoints/1.jpg", ".git/1.jpg"):
        image(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.classes) == (tmp_path.name, ("dog", "katze süß"))
    assert [(s.id, s.tags) for s in dataset.samples] == [
        ("dog/a b.PNG", {0}),
        ("dog/deep/1.jpg", {0}),
        ("katze süß/1.jpg", {1}),
    ]
    assert dataset.samples[0].path == tmp_path / "dog" / "a b.PNG"
    assert not dataset.has_boxes
    assert dataset.warnings == ("folders without an image that is read, no classes: 1 (empty)",)
    with pytest.raises(BoxlessError, match="has no splits, so 'train' cannot be chosen"):
        load_dataset(tmp_path, "train")


def test_splits_above_the_classes(tmp_path, image):
    for name in ("train/dog/1.jpg", "train/cat/1.jpg", "val/dog/2.jpg", "train/stray.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.classes) == (f"{tmp_path.name} train", ("cat", "dog"))
    assert [(s.id, s.tags) for s in dataset.samples] == [("train/cat/1.jpg", {0}), ("train/dog/1.jpg", {1})]
    assert dataset.warnings == ("images outside the class folders, left out: 1 (train/stray.jpg)",)
    assert load_dataset(tmp_path, "val").classes == ("dog",)
    with pytest.raises(BoxlessError, match="no split 'test'; it has: train, val"):
        load_dataset(tmp_path, "test")


def test_splits_may_have_any_name_if_no_image_is_directly_in_them(tmp_path, image):
    for name in ("2023/dog/1.jpg", "2024/dog/1.jpg"):
        image(tmp_path / name)
    assert [sample.id for sample in load_dataset(tmp_path, "2024").samples] == ["2024/dog/1.jpg"]


def test_a_copy_of_the_splits_in_a_folder_beside_them_is_no_split(tmp_path, image):
    for split in ("train", "test", "val"):
        for name in ("cat", "dog"):
            image(tmp_path / split / name / "1.jpg")
            image(tmp_path / "copy" / split / name / "1.jpg")
    assert split_names(tmp_path) == ("test", "train", "val")
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["train/cat/1.jpg", "train/dog/1.jpg"]
    warning = "folders that hold splits of their own, left out; give their path to read them: 1 (copy)"
    assert dataset.warnings == (warning,)
    for split in ("train", "test", "val"):
        shutil.rmtree(tmp_path / split)
    with pytest.raises(BoxlessError, match=r"the splits are in a folder of it; give the path of .*/copy$"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path / "copy").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "classes", [("bus", "train"), ("bullet_train", "drug_test"), ("control", "test"), ("invalid", "valid")]
)
def test_a_class_may_be_called_like_a_split(tmp_path, image, classes):
    for name in classes:
        image(tmp_path / name / "1.jpg")
    assert load_dataset(tmp_path).classes == classes


@pytest.mark.parametrize(
    ("train", "others", "warning"),
    [
        ("training", ["testing/1.jpg"], ()),
        ("Train", ["Validation/cat/1.jpg", "Test/cat/1.jpg"], ()),
        ("train2017", ["train2017/0.jpg", "val2017/cat/1.jpg"], ["train2017/0.jpg"]),
        ("train", ["train/0.jpg", "val/cat/1.jpg", "train_aug/cat/1.jpg"], ["train/0.jpg"]),
        ("train", ["val/cat/1.jpg", "unlabeled/1.jpg"], ()),
        ("Training", ["Test/cat/1.jpg", "several_fruits/1.jpg"], ["several_fruits/1.jpg"]),
        ("training_set/training_set", ["test_set/test_set/cat/1.jpg"], ()),
    ],
)
def test_names_of_splits_in_their_usual_spellings_are_no_classes(tmp_path, image, train, others, warning):
    for name in (f"{train}/cat/1.jpg", f"{train}/dog/1.jpg", *others):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path, "train")
    assert dataset.samples == load_dataset(tmp_path).samples
    assert dataset.classes == ("cat", "dog")
    assert [sample.id for sample in dataset.samples] == [f"{train}/cat/1.jpg", f"{train}/dog/1.jpg"]
    left_out = f"images outside the class folders, left out: 1 ({''.join(warning)})"
    assert dataset.warnings == ((left_out,) if warning else ())


def test_a_folder_that_repeats_its_split_is_no_class(tmp_path, image):
    for name in ("seg_train/seg_train/sea/1.jpg", "seg_test/seg_test/sea/1.jpg", "seg_pred/seg_pred/1.jpg"):
        image(tmp_path / name)
    assert load_dataset(tmp_path, "seg_train").classes == load_dataset(tmp_path / "seg_train").classes == ("sea",)
    with pytest.raises(BoxlessError, match="choose a split; it has: seg_pred, seg_test, seg_train"):
        load_dataset(tmp_path)


def test_class_folders_that_may_be_none_are_named(tmp_path, image):
    for number in range(3):
        for folder in ("images of cats", "cat_masks", "thermal", "videos/one", "videos/two"):
            image(tmp_path / folder / f"{number}{folder[:2] if folder.startswith('videos') else ''}.png")
    for folder in ("@eaDir", "$RECYCLE.BIN", "__MACOSX"):
        image(tmp_path / folder / "1.jpg")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cat_masks", "images of cats", "thermal", "videos")
    assert dataset.warnings == (
        "class folders that hold only folders, all of which are taken as the class: 1 (videos)",
        "class folders whose images have the same names, as masks and images of another camera have: 1 (cat_masks and "
        "images of cats and thermal)",
    )


def test_class_folders_without_an_image_that_is_read_are_named(tmp_path, image):
    image(tmp_path / "cat" / "1.jpg")
    image(tmp_path / "dog" / "1.jpg").rename(tmp_path / "dog" / "1")
    (tmp_path / "dog" / "README").write_text("dogs")
    image(tmp_path / "cow" / "1.jpg").rename(tmp_path / "cow" / "1.pjpeg")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cat", "cow")
    assert dataset.warnings == (
        "image files left out, files without a suffix; name them as what they are, such as .jpg: 1 (dog/1)",
        "folders without an image that is read, no classes: 1 (dog)",
    )


@pytest.mark.parametrize(
    "names",
    [
        ["train/1.jpg", "val/1.jpg"],
        ["images/train/1.jpg"],
        ["images/1.jpg"],
        ["1.jpg"],
        ["photos/1.jpg"],
        ["train2017/1.jpg", "val2017/1.jpg"],
        ["train/images/1.jpg", "val/images/1.jpg"],
        ["obj_train_data/1.jpg"],
        ["train/photos/1.jpg"],
        ["image/1.jpg", "mask/1.png"],
        ["imgs/1.jpg", "ground_truth/1.png"],
        ["overlays/1.jpg", "heatmaps/1.png"],
        ["image_2/1.png", "image_3/1.png"],
        ["train/img1/1.jpg"],
        ["photos/1.jpg", "testing/1.jpg"],
    ],
)
def test_folders_that_cannot_be_classes_are_not_recognised(tmp_path, image, names):
    for name in names:
        image(tmp_path / name)
    with pytest.raises(BoxlessError, match=r"not a recognised dataset layout \(found: "):
        load_dataset(tmp_path)


def test_images_beside_the_class_folders_are_counted(tmp_path, image):
    for name in ("1.jpg", "cat/2.jpg", "dog/3.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["cat/2.jpg", "dog/3.jpg"]
    assert dataset.warnings == ("images outside the class folders, left out: 1 (1.jpg)",)


def test_a_class_may_be_called_photos_beside_others(tmp_path, image):
    for name in ("photos/1.jpg", "drawings/1.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert (dataset.classes, dataset.summary) == (("drawings", "photos"), "class folders, 2 images, 2 classes")


LABELME = '{"version": "5", "shapes": [{"label": "cat"}], "imagePath": "1.jpg"}'
JSON_MIN = '[{"image": "1.jpg", "label": [{"original_width": 9, "rectanglelabels": ["cat"]}], "annotator": 1}]'
VIA = '{"1.jpg1": {"filename": "1.jpg", "regions": [{"shape_attributes": {}}]}}'
CREATE_ML = '[{"image": "1.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]'
SUPERVISELY = '{"objects": [{"points": {"exterior": [[1, 2]]}}]}'
VOC = "<annotation><object><name>cat</name></object></annotation>"


@pytest.mark.parametrize(
    ("photo", "file", "text", "message"),
    [
        ("shots/1.jpg", "shots/1.json", LABELME, r"annotations of LabelMe such as shots/1.json.*convert them to COCO"),
        ("1.jpg", "1.json", LABELME, r"annotations of LabelMe such as 1.json"),
        ("images/1.jpg", "labels/1.json", LABELME, r"annotations of LabelMe such as labels/1.json"),
        ("images/1.jpg", "annotations/1.json", LABELME, r"annotations of LabelMe such as annotations/1.json"),
        ("images/1.jpg", "min.json", JSON_MIN, r"annotations of Label Studio's JSON-MIN such as min.json"),
        ("cats/1.jpg", "cats/via.json", VIA, r"annotations of VGG Image Annotator such as cats/via.json"),
        ("train/1.jpg", "train/_annotations.createml.json", CREATE_ML, r"annotations of Create ML such as train/_ann"),
        ("ds/img/1.jpg", "ds/ann/1.jpg.json", SUPERVISELY, r"annotations of Supervisely such as ds/ann/1.jpg.json"),
        ("images/1.jpg", "annotations.xml", "<annotations><image/></annotations>", r"annotations of CVAT such as anno"),
        ("cats/1.jpg", "cats/1.txt", "0 0.5 0.5 1 1", r"label files of YOLO such as cats/1.txt, but nothing names"),
        (
            "images/1.jpg",
            "labels/1.txt",
            "0 0.5 0.5 1 1",
            r"label files of YOLO such as labels/1.txt.*write a data.yaml",
        ),
        ("a/b/c/1.jpg", "a/b/c/1.xml", VOC, r"annotations of PASCAL VOC such as a/b/c/1.xml.*nearer to them, such as"),
    ],
)
def test_annotations_that_are_not_read_are_an_error_with_the_way_out(tmp_path, image, photo, file, text, message):
    image(tmp_path / photo)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(BoxlessError, match=message):
        load_dataset(tmp_path)


BOX = "[1, 2, 3, 4]"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tags.csv", "image,tags\n01.jpg,scratch\n12.jpg,dent\n"),
        ("meta.csv", "id,dx\nIMG_01,nv\nIMG_12,mel\n"),
        ("found.csv", "id,what\nIMG_01,nv\nIMG_12,mel\nIMG_12.jpg,nv\n01.jpg,mel\n02.jpg,nv\n12.jpg,nv\n"),
        ("tags.txt", "image,tags\na/01.jpg,scratch\n"),
        ("list_attr.txt", "2\nOld Young\n01.jpg  1 -1\n12.jpg -1  1\n02.jpg -1  1\n"),
        ("a/_annotations.csv", "filename,width,class,xmin\n01.jpg,640,cat,10\n"),
        ("a/metadata.jsonl", '{"file_name": "01.jpg", "label": "cat"}\n'),
        ("Annotations/train.json", '{"images": [{"width": 9, "height": 8, "file_name": "a/01.jpg"}]}'),
        ("labels.JSON", f'{{"annotations": [{{"bbox": {BOX}, "name": "01"}}]}}'),
        ("instances.json", '{"images": [{"id": 1, "file_name": "a/01.jp", "x": 1}, {"file_name": "01.jpg", "wid'),
        ("export.ndjson", '{"data_row": {"external_id": "01.jpg"}, "labels": [{"name": "cat"}]}\n'),
        ("via.json", '{"01.jpg9": {"filename": "01.jpg", "file_attributes": {"class": "cat"}}}'),
        ("a/x-asset.json", '{"asset": {"name": "01.jpg", "format": "jpg"}, "regions": []}'),
        ("a/01.json", f'{{"annotations": [{{"name": "cat", "bounding_box": {{"x": {BOX}}}}}]}}'),
        ("xml/a.xml", '<sequence name="a"><frame><box left="1" top="2"/></frame></sequence>'),
        ("a/01.xml", "<Annotation><object><name>cat</name></object></Annotation>"),
        ("a/01.txt", "cat 0.5 0.5 0.2 0.2\n"),
        ("a/01.txt", "0,0.5,0.5,0.2,0.2\n"),
        ("a/01.txt", "0 0.5 0.5 0.2 0.2 traffic light\n"),
        ("label_2/01.txt", "Car 0.00 0 -1.58 587 173 614 200 1.65 1.67 3.64 -0.65 1.71 46.7 -1.59\n"),
        ("a/01.txt", "imagesource:GoogleEarth\ngsd:0.1\n9 9 19 9 19 19 9 19 plane 0\n"),
        ("a/gt/gt.txt", "1,1,912,484,97,109,0,7,1\n"),
        ("a/groundtruth.txt", "347,443,429,272\n"),
    ],
)
def test_folders_are_no_classes_if_a_file_says_something_else_of_their_images(tmp_path, image, file, text):
    for name in ("a/01.jpg", "a/02.jpg", "b/12.jpg", "a/IMG_01.jpg", "b/IMG_12.jpg"):
        image(tmp_path / name)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(BoxlessError, match=rf"{file} has boxes or other tags of the images"):
        load_dataset(tmp_path)


def test_a_few_files_that_say_nothing_do_not_hide_others(tmp_path, image):
    for number in range(5):
        image(tmp_path / "a" / f"{number}.jpg")
        (tmp_path / "a" / f"{number}.txt").write_text("" if number < 4 else "0 0.5 0.5 0.2 0.2")
        (tmp_path / "a" / f"{number}.json").write_text("{}" if number < 4 else LABELME)
    with pytest.raises(BoxlessError, match=r"annotations of LabelMe such as a/4.json"):
        load_dataset(tmp_path)
    (tmp_path / "a" / "4.json").unlink()
    with pytest.raises(BoxlessError, match=r"label files of YOLO such as a/4.txt"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tags.csv", "image;tags\nhall/01.jpg;L\udcfccke\n", r"tags.csv: cannot be read as a table \(not UTF-8"),
        ("tags.csv", "image,tags,tags\nhall/01.jpg,dent,old\n", r"tags.csv: two columns are called tags"),
        ("tags.csv", "hall/01.jpg,dent\nyard/01.jpg,scratch\n", r"tags.csv: the first row must name the columns"),
        ("my.yaml", "train: images\nnames: [cat, dog\n", r"my.yaml: cannot be read as YAML"),
        ("my.yaml", "train: images\nclasses: [cat, dog]\n", r"my.yaml: a YOLO data file needs `names`"),
    ],
)
def test_what_is_wrong_with_a_damaged_file_beside_the_folders_is_said(tmp_path, image, file, text, message):
    for name in ("hall/01.jpg", "yard/01.jpg"):
        image(tmp_path / name)
    (tmp_path / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BoxlessError, match=message):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.txt", "cat/0001.jpg\ndog/0002.jpg\n"),
        ("train.txt", "cat/0001.jpg 0\ndog/0002.jpg 1\ndog/0003.jpg 1\n"),
        ("md5.txt", "d41d8cd98f00b204e9800998ecf8427e  ./cat/0001.jpg\n"),
        ("meta/train.json", '{"cat": ["cat/0001"], "dog": ["dog/0002"]}'),
        ("index.json", '{"0": ["n01", "cat"], "1": ["n02", "dog"]}'),
        ("list.csv", "cat/0001.jpg,0\ndog/0002.jpg,1\n"),
        ("labels.csv", "id,label,age\n0001,Cat,3\n0002,Dog,4\n"),
        ("metadata.jsonl", '{"file_name": "0001.jpg", "label": 0}\n{"file_name": "0002.jpg", "label": 1}\n'),
        ("cat/0001.txt", "a photo of 1 cat, 4 k, 8 bit, 3 times\n"),
        ("cat/0001.jpg.json", '{"title": "0001.jpg", "imageViews": "3", "geoData": {"latitude": 1.0}}'),
        ("cat/0001.jpg.aux.xml", "<PAMDataset><MDI>1 2 3 4 5</MDI></PAMDataset>"),
        ("README.txt", "A set of cats.\nOf these cat/0001.jpg is one.\nMade in 2020.\n"),
        ("LICENSE.txt", "dog/0003.jpg CC-BY Jane Doe\ncat/0001.jpg CC-BY John Doe\n"),
        ("sources.txt", "dog/0003.jpg CC-BY by Jane Doe - https://example.org/1\n"),
        ("results.txt", "precision recall f1 support\ncat 0.9 0.8 0.85 100\n"),
        ("mean.txt", "0.485 0.456 0.406 0.229 0.224 0.225\n"),
        ("config.yaml", "train:\n  lr: 0.1\nclasses: 2\n"),
    ],
)
def test_files_that_agree_with_the_folders_or_are_no_annotations_leave_them_classes(tmp_path, image, file, text):
    for name in ("cat/0001.jpg", "dog/0002.jpg", "dog/0003.jpg"):
        image(tmp_path / name)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    dataset = load_dataset(tmp_path)
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 3)
    assert dataset.summary.startswith("class folders")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sizes.csv", "image,width,height\n0001.jpg,64,48\n0002.jpg,64,48\n0003.jpg,64,47\n"),
        ("sizes.csv", "image,width,height\ncat/0001.jpg,64,48\ndog/0002.jpg,64,48\ndog/0003.jpg,64,47\n"),
        (
            "credits.csv",
            "filename,author,license,url\n" + "".join(f"000{n}.jpg,Jane Doe,CC-BY,x/{n}\n" for n in (1, 2, 3)),
        ),
        ("train_test_split.txt", "cat/0001.jpg 0\ndog/0002.jpg 1\ndog/0003.jpg 0\n"),
        ("images.txt", "1 cat/0001.jpg\n2 dog/0002.jpg\n3 dog/0003.jpg\n"),
        ("sample_submission.csv", "id,label\n0001.jpg,0.5\n0002.jpg,0.5\n"),
        ("predictions.json", '{"0001.jpg": 0.93, "0002.jpg": 0.2}'),
        ("metadata.jsonl", '{"file_name": "cat/0001.jpg", "text": "photo of an animal"}\n'),
        ("notes.csv", "image,note\n0001.jpg,blurry\n"),
    ],
)
def test_files_with_other_things_than_tags_are_named(tmp_path, image, file, text):
    for name in ("cat/0001.jpg", "dog/0002.jpg", "dog/0003.jpg"):
        image(tmp_path / name)
    (tmp_path / file).write_text(text)
    dataset = load_dataset(tmp_path)
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 3)
    assert dataset.warnings == (f"files that describe the images, not read: 1 ({file})",)


def test_a_column_that_stands_for_the_folder_agrees(tmp_path, image):
    for number in range(8):
        image(tmp_path / ("cats", "dogs")[number % 2] / f"{number:05}.jpg")
    rows = "".join(f"{number:05}.jpg,{('feline', 'canine')[number % 2]}\n" for number in range(8))
    (tmp_path / "labels.csv").write_text(f"id,label\n{rows}")
    assert (load_dataset(tmp_path).classes, load_dataset(tmp_path).warnings) == (("cats", "dogs"), ())


def test_the_report_of_the_doctor_beside_class_folders_is_no_annotation(tmp_path, image):
    for name in ("cat/1.jpg", "dog/2.jpg", "dog/3.jpg"):
        image(tmp_path / name)
    (tmp_path / "dog" / "copy.jpg").write_bytes((tmp_path / "cat" / "1.jpg").read_bytes())
    write_json(tmp_path / "health.json", examine(tmp_path))
    assert "cat/1.jpg" in (tmp_path / "health.json").read_text()
    assert load_dataset(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "head", "row"),
    [
        ("list.tsv", "name\tclass, or tag", "{image}\t{tag}"),
        ("list.csv", "\nname;class", "{image};{tag}"),
        ("list.tsv", "labels of images", "{image}\t{tag}"),
        ("list.csv", "image,label", '"{image},{tag}"'),
    ],
)
def test_tables_that_are_not_well_formed_disagree_too(tmp_path, image, name, head, row):
    for number in range(8):
        image(tmp_path / ("site a", "site b")[number % 2] / f"{number:05}.jpg")
    rows = (row.format(image=f"{number:05}.jpg", tag=("scratch", "dent")[number // 4]) for number in range(8))
    (tmp_path / "site a" / name).write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(BoxlessError, match=rf"{name} has boxes or other tags"):
        load_dataset(tmp_path)


def test_tags_with_a_comma_in_quotation_marks_are_tags(tmp_path, image):
    for number in range(8):
        image(tmp_path / ("site a", "site b")[number % 2] / f"{number:05}.jpg")
    rows = "".join(f'{number:05}.jpg,"scratch, deep {number // 4}"\n' for number in range(8))
    (tmp_path / "list.csv").write_text(f"image,label\n{rows}")
    with pytest.raises(BoxlessError, match=r"list\.csv has boxes or other tags of the images"):
        load_dataset(tmp_path)


def test_other_files_beside_the_images_are_no_annotations(tmp_path, image):
    for name in ("cat/1.jpg", "dog/1.jpg"):
        image(tmp_path / name)
    for name, text in (("cat/1.txt", "a cat"), ("cat/1.json", '{"seed": 1}'), ("pom.xml", "<x/>"), ("dog/1.txt", "")):
        (tmp_path / name).write_text(text)
    assert load_dataset(tmp_path).classes == ("cat", "dog")


def test_linked_folders_are_classes_and_unread_images_are_counted(tmp_path, image):
    image(tmp_path / "elsewhere" / "1.jpg")
    image(tmp_path / "set" / "dog" / "1.jpg")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set" / "dog" / "up").symlink_to(tmp_path / "set", target_is_directory=True)
    for name in ("2.nef", "3.CR2", "4.psd"):
        (tmp_path / "set" / "dog" / name).touch()
    dataset = load_dataset(tmp_path / "set")
    assert [(sample.id, sample.tags) for sample in dataset.samples] == [("cat/1.jpg", {0}), ("dog/1.jpg", {1})]
    assert dataset.warnings == (
        "image files left out, a raw file of a camera, which is not read; convert it to JPEG or PNG: 2 (dog/2.nef, "
        "dog/3.CR2)",
        "image files left out, the format PSD, which is not read; convert it to JPEG or PNG: 1 (dog/4.psd)",
    )


def test_names_of_classes_that_are_not_utf_8_are_read_as_latin_1(tmp_path, image):
    image(tmp_path / "gr\udcfcn" / "caf\udce9.jpg")
    image(tmp_path / "red" / "1.jpg")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("grün", "red")
    assert dataset.samples[0].id == "gr\udcfcn/caf\udce9.jpg"
    assert dataset.warnings == ("class folders whose names are not UTF-8, read as Latin-1: 1 (grün)",)


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "csv", "label-studio"])
def test_what_boxless_wrote_there_is_no_data(tmp_path, image, format):
    cat, dog = image(tmp_path / "data" / "cat" / "1.jpg"), image(tmp_path / "data" / "dog" / "2.jpg")
    found = tmp_path / "data" / "found"
    record_results(found, [OVERLAYS, OVERVIEW, *FORMATS[format].files])
    box, one = np.array([[1, 2, 30, 40]], np.float32), np.ones(1, np.float32)
    detections = Detections(box, one, np.zeros(1, np.int64), ("cat",), (100, 80), one)
    FORMATS.find(format).write(found, [(cat, detections), (dog, detections)], ("cat",), "run")
    for name in ("overlays/1.jpg", "overlays/2.jpg", "overview.jpg"):
        image(found / name)
    (tmp_path / "data" / "labels.jsonl").write_text('{"image": "cat/1.jpg", "tags": ["dog"]}\n')
    dataset = load_dataset(tmp_path / "data")
    assert [(sample.id, sample.tags) for sample in dataset.samples] == [("cat/1.jpg", {0}), ("dog/2.jpg", {1})]
    assert dataset.classes == ("cat", "dog")
