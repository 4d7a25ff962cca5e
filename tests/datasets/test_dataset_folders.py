import pytest

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError


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
    assert dataset.warnings == ()
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


def test_a_class_may_be_called_train(tmp_path, image):
    for name in ("train/1.jpg", "bus/1.jpg"):
        image(tmp_path / name)
    assert load_dataset(tmp_path).classes == ("bus", "train")


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
