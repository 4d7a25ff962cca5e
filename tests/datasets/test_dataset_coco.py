import json
from pathlib import Path

import pytest
from PIL import Image

from boxless.datasets import load_dataset, split_names
from boxless.errors import BoxlessError

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "zebra"}]


def write_coco(file: Path, names: list[str], annotations: list[object], categories: object = CATEGORIES) -> Path:
    """Images 1, 2, ... of 100x80 with these file names."""
    images = [{"id": n, "file_name": name, "width": 100, "height": 80} for n, name in enumerate(names, 1)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def box(image: int, category: int, bbox: object, **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


def test_an_image_listed_twice_is_one_with_all_its_annotations(tmp_path):
    annotations = [box(1, 7, [10, 20, 30, 40]), box(2, 2, [1, 2, 3, 4])]
    file = write_coco(tmp_path / "set.json", ["a.jpg", "a.jpg"], annotations)
    touch(tmp_path / "a.jpg")
    dataset = load_dataset(file)
    assert [(sample.id, sample.tags) for sample in dataset.samples] == [("1", {0, 1})]
    assert dataset.warnings == ("images listed under several ids, their annotations joined: 1 (2)",)


def test_boxes_tags_and_crowds(tmp_path):
    annotations = [
        box(1, 7, [10, 20, 30, 40]),
        box(1, 2, [0, 0, 5.5, 5], iscrowd=1),
        box(2, 2, [1, 2, 3, 4], iscrowd=0),
    ]
    file = write_coco(tmp_path / "set" / "instances_val.json", ["a.jpg", "sub/b c.jpg", "none.jpg"], annotations)
    touch(*(file.parent / name for name in ("a.jpg", "sub/b c.jpg", "none.jpg")))
    dataset = load_dataset(file)
    assert (dataset.name, dataset.classes) == ("set val", ("zebra", "dog"))
    first, second, third = dataset.samples
    assert (first.id, first.tags, first.unsure) == ("1", {1}, {0})
    assert first.annotations.boxes.tolist() == [[10, 20, 40, 60], [0, 0, 5.5, 5]]
    assert first.annotations.labels.tolist() == [1, 0]
    assert first.annotations.ignore.tolist() == [False, True]
    assert (second.path, second.tags) == (file.parent / "sub" / "b c.jpg", {0})
    assert third.annotations.boxes.shape == (0, 4)
    assert dataset.warnings == () and dataset.summary.endswith("; 1 image without a tag, kept as a negative")


@pytest.mark.parametrize("folder", ["", "annotations", "images/train2017", "train2017", "images"])
def test_where_images_are_searched(tmp_path, folder):
    write_coco(tmp_path / "annotations" / "instances_train2017.json", ["ä 1.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / folder / "ä 1.jpg")
    assert load_dataset(tmp_path, "train2017").samples[0].path == tmp_path / folder / "ä 1.jpg"


def test_roboflow(tmp_path):
    for split in ("train", "valid"):
        write_coco(tmp_path / split / "_annotations.coco.json", ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
        touch(tmp_path / split / "a.jpg")
    assert load_dataset(tmp_path).samples[0].path == tmp_path / "train" / "a.jpg"
    assert load_dataset(tmp_path, "valid").samples[0].path == tmp_path / "valid" / "a.jpg"
    assert load_dataset(tmp_path / "valid").samples[0].path == tmp_path / "valid" / "a.jpg"
    with pytest.raises(BoxlessError, match="no split 'test'; it has: train, valid"):
        load_dataset(tmp_path, "test")


def test_instances_files_precede_other_annotation_files(tmp_path):
    for name in ("instances_train", "instances_val", "captions_train"):
        write_coco(tmp_path / "annotations" / f"{name}.json", ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / "a.jpg")
    with pytest.raises(BoxlessError, match=r"it has: train, val$"):
        load_dataset(tmp_path, "captions_train")


@pytest.mark.parametrize("damaged", ["", "{", '{"images": [{"id": 1, "file_na'])
def test_a_damaged_split_is_an_error_and_another_is_not_taken_instead(tmp_path, damaged):
    write_coco(tmp_path / "annotations" / "val.json", ["a.jpg"], [box(1, 1, [0, 0, 9, 9])])
    (tmp_path / "annotations" / "train.json").write_text(damaged)
    (tmp_path / "annotations" / "captions.json").write_text('{"images": [], "annotations": []}')
    touch(tmp_path / "images" / "a.jpg")
    assert split_names(tmp_path) == ("train", "val")
    with pytest.raises(BoxlessError, match=r"train\.json"):
        load_dataset(tmp_path)


def test_broken_entries_are_counted_and_the_rest_is_loaded(tmp_path):
    annotations = [
        box(1, 7, [1, 1, 2, 2]),
        box(1, 7, [90, 70, 20, 20]),
        box(1, 2, [1, 1, -5, 2]),
        box(1, 7, [1, 1, float("nan"), 2]),
        box(1, 7, ["1", None, 2, 2]),
        box(1, 7, []),
        {"image_id": 1, "category_id": 7},
        box(1, 99, [1, 1, 2, 2]),
        box(55, 7, [1, 1, 2, 2]),
        "nonsense",
        box(2, 2, [1, 1, 10**400, 2]),
    ]
    file = write_coco(tmp_path / "a.json", ["a.jpg", "b.jpg", "gone.jpg", "x" * 300], annotations)
    content = json.loads(file.read_text())
    content["images"] += [{"id": 1, "file_name": "again.jpg"}, {"id": 9}, 5]
    file.write_text(json.dumps(content))
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    dataset = load_dataset(file)
    first, second = dataset.samples
    assert first.tags == {0, 1}
    assert first.annotations.boxes.tolist() == [[1, 1, 3, 3], [90, 70, 100, 80]]
    assert (second.tags, second.annotations) == ({0}, None)
    warnings = "\n".join(dataset.warnings)
    for line in (
        f"images whose file is missing, left out: 2 (gone.jpg, {'x' * 300})",
        "image ids given more than once, the first is taken: 1 (1)",
        "images without `id` or `file_name`, left out: 2 ({'id': 9}, 5)",
        "annotations of a category that is not listed, left out: 1 (image 1)",
        "annotations of an image that is not listed, left out: 2 (image 55, image ?)",
        "boxes that reach outside the image, clipped: 1 (1)",
        "boxes without area inside the image, dropped (their tags stay): 1 (1)",
        "boxes without numbers, dropped (their tags stay): 5 (1, 2)",
    ):
        assert line in warnings
    assert len(dataset.warnings) == 8


def test_tags_depend_on_categories_not_on_boxes(tmp_path):
    touch(tmp_path / "a.jpg")
    tags = []
    for number, bbox in enumerate(([1, 1, 2, 2], None, "box", [1], [-9, -9, 1, 1], [float("inf")] * 4)):
        file = write_coco(tmp_path / f"{number}.json", ["a.jpg"], [box(1, 7, bbox), box(1, 2, bbox, iscrowd=1)])
        tags.append((load_dataset(file).samples[0].tags, load_dataset(file).samples[0].unsure))
    assert tags == [({1}, {0})] * 6


def test_without_any_valid_box_the_dataset_has_tags_only(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    file = write_coco(tmp_path / "a.json", ["a.jpg", "b.jpg"], [{"image_id": 1, "category_id": 7}])
    assert not load_dataset(file).has_boxes


def test_two_categories_with_the_same_name_are_one_class(tmp_path):
    touch(tmp_path / "a.jpg")
    categories = [{"id": 3, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "ant"}]
    file = write_coco(tmp_path / "a.json", ["a.jpg"], [box(1, 3, [1, 1, 2, 2]), box(1, 1, [1, 1, 2, 2])], categories)
    dataset = load_dataset(file)
    assert dataset.classes == ("cat", "ant")
    assert dataset.samples[0].annotations.labels.tolist() == [0, 0]


def test_a_category_id_of_two_names_is_an_error(tmp_path):
    touch(tmp_path / "a.jpg")
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "ant"}, {"id": 1, "name": "dog"}]
    file = write_coco(tmp_path / "a.json", ["a.jpg"], [box(1, 1, [1, 1, 2, 2])], categories)
    with pytest.raises(BoxlessError, match=r"a.json: category 1 is both 'cat' and 'dog'; give each category its own"):
        load_dataset(file)
    # The same category twice is one.
    write_coco(file, ["a.jpg"], [box(1, 1, [1, 1, 2, 2])], [*categories[:2], {"id": 1.0, "name": "cat"}])
    assert load_dataset(file).classes == ("cat", "ant")


@pytest.mark.parametrize(
    ("ids", "annotated"), [((1.0, 2.0), (1, 2)), ((1, 2), (1.0, "2")), (("1", "2.0"), (1, 2)), (("01", "02"), (1, 2))]
)
def test_ids_of_images_may_be_numbers_or_text(tmp_path, ids, annotated):
    annotations = [box(annotated[0], 7, [1, 1, 2, 2]), box(annotated[1], 2.0, [1, 1, 2, 2], iscrowd="1")]
    file = write_coco(tmp_path / "a.json", ["a.jpg", "b.jpg"], annotations)
    content = json.loads(file.read_text())
    for image, id_ in zip(content["images"], ids, strict=True):
        image["id"] = id_
    file.write_text(json.dumps(content))
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    first, second = load_dataset(file).samples
    assert (first.tags, second.tags, second.unsure) == ({1}, set(), {0})
    assert second.annotations.ignore.tolist() == [True]


def test_an_image_id_that_could_be_two_is_not_matched(tmp_path):
    file = write_coco(tmp_path / "a.json", ["a.jpg", "b.jpg"], [box("1", 7, [1, 1, 2, 2]), box("001", 2, [1, 1, 2, 2])])
    file.write_text(file.read_text().replace('"id": 2, "file', '"id": "01", "file'))
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    dataset = load_dataset(file)
    assert [sample.tags for sample in dataset.samples] == [{1}, set()]
    assert "annotations of an image that is not listed, left out: 1 (image 001)" in dataset.warnings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1, 2]", "needs the lists images, annotations and categories"),
        ('{"images": []}', "needs the lists images, annotations and categories"),
        ('{"images": [], "annotations": [], "categories": [{"name": "dog"}]}', "integer `id` and a `name`"),
        ('{"images": [], "annotations": [], "categories": [4]}', "integer `id` and a `name`"),
    ],
)
def test_a_file_that_is_not_coco_is_an_error_that_names_it(tmp_path, text, message):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(BoxlessError, match=f"a.json.*{message}"):
        load_dataset(file)


@pytest.mark.parametrize(
    ("file", "folder", "split"),
    [
        ("instances_train2017.json", "train2017", "train2017"),
        ("annotations_train.json", "train", "annotations_train"),
        ("labels.json", "data", "labels"),
        ("result.json", "images", "result"),
        ("train/labels.json", "train", "train"),
    ],
)
def test_a_folder_with_a_coco_file_beside_or_among_its_images_is_recognised(tmp_path, file, folder, split):
    root = tmp_path / "set"
    write_coco(root / file, ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(root / folder / "a.jpg")
    (root / "package.json").write_text('{"name": "something else"}')
    assert split_names(root) == (split,)
    dataset = load_dataset(root)
    assert (dataset.classes, dataset.samples[0].path) == (("zebra", "dog"), root / folder / "a.jpg")
    assert dataset.summary == "COCO, 1 image, 2 classes"


def test_images_and_files_without_counterpart_are_counted_both_ways(tmp_path):
    file = write_coco(tmp_path / "instances_train.json", ["a.jpg", "b.jpg", "gone.jpg"], [box(1, 7, [1, 1, 2, 2])])
    write_coco(tmp_path / "instances_val.json", ["v.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(*(tmp_path / name for name in ("a.jpg", "b.jpg", "new.jpg", "v.jpg")))
    dataset = load_dataset(file)
    assert "images whose file is missing, left out: 1 (gone.jpg)" in dataset.warnings
    # v.jpg is listed in the other split.
    assert "image files that no COCO file lists, not used: 1 (new.jpg)" in dataset.warnings
    assert dataset.summary == (
        "COCO, 2 images, 2 classes, 1 image whose file is missing, 1 image file that no COCO file lists"
        "; 1 image without a tag, kept as a negative"
    )
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(BoxlessError, match=r"2 of 3 images whose file is missing \(b.jpg, gone.jpg\); put them beside"):
        load_dataset(file)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (r"sub\a.jpg", "sub/a.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("A.JPG", "a.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("a", "a.jpg"),
        ("a.png", "a.jpg"),
        (r"D:\data\images\a.jpg", "a.jpg"),
        ("/home/me/data/sub/a.jpg", "sub/a.jpg"),
        ("https://example.com/data/a%20b.jpg?download=1", "a b.jpg"),
        ("/data/upload/3/0a1b2c3d-a.jpg", "a.jpg"),
        ("/data/local-files/?d=photos/sub/a%20b.jpg", "sub/a b.jpg"),
        ("../../media/upload/1/a.jpg", "a.jpg"),
        ("caf\u00e9.jpg", "caf\udce9.jpg"),
    ],
)
def test_file_names_of_other_systems_are_matched_and_counted(tmp_path, name, path):
    file = write_coco(tmp_path / "all.json", [name], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / path, tmp_path / "other.jpg", tmp_path / "sub" / "other.jpg")
    dataset = load_dataset(file)
    assert [sample.path for sample in dataset.samples] == [tmp_path / path]
    assert dataset.warnings[0].startswith(
        "names spelled differently from their files (case, accents, %20, suffix, folder)"
    )


@pytest.mark.parametrize(
    ("names", "path", "kept"),
    [
        # Which image the file is cannot be told.
        (("/a/train/x.jpg", "/a/val/x.jpg"), "x.jpg", ""),
        (("A.JPG", "a.JPG"), "a.jpg", ""),
        # It is that of one of them.
        (("/a/train/x.jpg", "/a/val/x.jpg"), "val/x.jpg", "2"),
        (("A.JPG", "a.jpg"), "a.jpg", "2"),
        (("x.jpg", "/a/train/x.jpg", "/a/val/x.jpg"), "x.jpg", "1"),
        (("a.jpg", "a.png"), "a.jpg", "1"),
        # All mean the same.
        (("x.jpg", "/a/train/x.jpg", r".\x.jpg"), "x.jpg", "123"),
    ],
)
def test_images_of_several_names_are_not_joined_in_one_file(tmp_path, names, path, kept):
    root = tmp_path / "set"
    file = write_coco(root / "val.json", ["y.jpg", "z.jpg", "w.jpg"], [])
    content = json.loads(file.read_text())
    content["images"] += [{"id": f"n{number}", "file_name": name} for number, name in enumerate(names, 1)]
    content["categories"] = [{"id": number, "name": str(number)} for number in range(1, 5)]
    content["annotations"] = [box(f"n{number}", number, [1, 1, 2, 2]) for number in range(1, len(names) + 1)]
    content["annotations"].append(box(1, 4, [1, 1, 2, 2]))
    file.write_text(json.dumps(content))
    touch(*(root / name for name in ("y.jpg", "z.jpg", "w.jpg", path)))
    dataset = load_dataset(file)
    tags = [dataset.classes[tag] for sample in dataset.samples for tag in sorted(sample.tags) if sample.id[0] == "n"]
    assert "".join(tags) == kept
    left = [name for number, name in enumerate(names, 1) if str(number) not in kept]
    missing = [line for line in dataset.warnings if line.startswith("images whose file is missing, left out: ")]
    assert missing == ([f"images whose file is missing, left out: {len(left)} ({', '.join(left)})"] if left else [])


def test_a_folder_of_several_annotators_is_one(tmp_path):
    names = [f"/home/{name}/{number}.jpg" for name in ("ann/set", "bob/data") for number in (1, 2)]
    file = write_coco(tmp_path / "all.json", names, [box(1, 7, [1, 1, 2, 2]), box(3, 2, [1, 1, 2, 2])])
    touch(tmp_path / "1.jpg", tmp_path / "2.jpg")
    dataset = load_dataset(file)
    assert [len(sample.tags) for sample in dataset.samples] == [2, 0]
    assert not any("missing" in warning for warning in dataset.warnings)


def test_an_image_listed_again_with_another_size_is_left_out_the_second_time(tmp_path):
    file = write_coco(tmp_path / "a.json", ["a.jpg", "a.jpg"], [box(1, 7, [1, 1, 2, 2]), box(2, 2, [1, 1, 2, 2])])
    touch(tmp_path / "a.jpg")
    content = json.loads(file.read_text())
    content["images"][1]["width"] = 200
    file.write_text(json.dumps(content))
    dataset = load_dataset(file)
    assert [sample.tags for sample in dataset.samples] == [{1}]
    assert "images listed again with another size, their annotations left out: 1 (2)" in dataset.warnings


def test_a_relative_name_is_not_taken_from_another_folder(tmp_path):
    file = write_coco(tmp_path / "all.json", ["a.jpg", "val/b.jpg", "c.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg")
    assert [sample.path.name for sample in load_dataset(file).samples] == ["a.jpg", "c.jpg"]


def test_the_empty_root_category_of_roboflow_is_left_out(tmp_path):
    touch(tmp_path / "a.jpg")
    categories = [
        {"id": 0, "name": "cards", "supercategory": "none"},
        {"id": 1, "name": "king", "supercategory": "cards"},
        {"id": 2, "name": "ace", "supercategory": "cards"},
    ]
    file = write_coco(tmp_path / "a.json", ["a.jpg"], [box(1, 1, [1, 1, 2, 2]), box(1, 2, [1, 1, 2, 2])], categories)
    dataset = load_dataset(file)
    assert (dataset.classes, dataset.samples[0].tags) == (("king", "ace"), {0, 1})
    assert dataset.samples[0].annotations.labels.tolist() == [0, 1]
    assert dataset.warnings == ("empty root categories of Roboflow, left out of the classes: 1 (cards)",)
    # It is a class if it is used, or above nothing.
    write_coco(file, ["a.jpg"], [box(1, 1, [1, 1, 2, 2]), box(1, 0, [1, 1, 2, 2])], categories)
    assert load_dataset(file).classes == ("cards", "king", "ace")
    write_coco(file, ["a.jpg"], [box(1, 1, [1, 1, 2, 2])], [{**one, "supercategory": "none"} for one in categories])
    assert load_dataset(file).classes == ("cards", "king", "ace")


def test_a_folder_of_images_in_another_layout_is_named(tmp_path):
    write_coco(tmp_path / "train" / "_annotations.coco.json", ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / "train" / "a.jpg", tmp_path / "test" / "images" / "b.jpg", tmp_path / "test" / "labels" / "b.txt")
    dataset = load_dataset(tmp_path)
    warning = "folders of images without a COCO file, not read; give their path to read them: 1 (test)"
    assert warning in dataset.warnings
    assert dataset.summary == "COCO, 1 image, 2 classes, 1 folder of images without a COCO file"


@pytest.mark.parametrize("odd", [[7], {}, None, "x"])
def test_categories_and_numbers_of_odd_kinds_are_no_traceback(tmp_path, odd):
    categories = [{"id": 2, "name": "zebra", "supercategory": odd}, {"id": 7, "name": "dog", "supercategory": "none"}]
    annotations = [box(1, 7, [10, 20, 30, 40]), box(1, odd, [10, 20, 30, 40])]
    file = write_coco(tmp_path / "val.json", ["a.jpg"], annotations, categories)
    touch(tmp_path / "a.jpg")
    dataset = load_dataset(file)
    assert dataset.classes == ("zebra", "dog") and dataset.samples[0].tags == {1}
    assert "annotations of a category that is not listed, left out: 1 (image 1)" in dataset.warnings


def test_images_of_unlisted_categories_alone_are_counted(tmp_path):
    annotations = [box(1, 7, [1, 1, 2, 2]), box(1, 9, [1, 1, 2, 2]), box(2, 9, [1, 1, 2, 2]), box(2, 9, [1, 1, 2, 2])]
    file = write_coco(tmp_path / "val.json", ["a.jpg", "b.jpg", "c.jpg"], annotations)
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg")
    dataset = load_dataset(file)
    assert [sample.tags for sample in dataset.samples] == [{1}, set(), set()]
    assert dataset.warnings[:2] == (
        "annotations of a category that is not listed, left out: 3 (image 1, image 2)",
        "images whose annotations are all of categories that are not listed, kept as negatives: 1 (2)",
    )
    assert dataset.summary.endswith("; 2 images without a tag, kept as negatives")


def test_files_that_macos_writes_beside_others_are_none(tmp_path):
    write_coco(tmp_path / "annotations" / "all.json", ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / "images" / "a.jpg")
    for file in (tmp_path / "annotations" / "._all.json", tmp_path / "images" / "._a.jpg"):
        file.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        \0\2")
    assert split_names(tmp_path) == ("all",)
    for path in (tmp_path, tmp_path / "annotations" / "all.json"):
        assert not [line for line in load_dataset(path).warnings if "._" in line]


def test_coco_files_that_are_not_read_are_named(tmp_path):
    for folder in (".", "train", "valid"):
        write_coco(tmp_path / folder / "_annotations.coco.json", ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
        touch(tmp_path / folder / "a.jpg")
    dataset = load_dataset(tmp_path)
    warning = "other COCO files, not read; give their path to read them"
    assert f"{warning}: 2 (train/_annotations.coco.json, valid/_annotations.coco.json)" in dataset.warnings
    assert dataset.summary == "COCO, 1 image, 2 classes, 2 other COCO files"
    # The file in the folder itself is not one of the splits.
    (tmp_path / "_annotations.coco.json").rename(tmp_path / "train.json")
    assert f"{warning}: 1 (train.json)" in load_dataset(tmp_path, "valid").warnings
    write_coco(tmp_path / "annotations" / "instances_val.json", ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
    assert f"{warning}: 3 (train.json, train/" in "".join(load_dataset(tmp_path).warnings)


def test_of_two_files_of_one_split_the_other_is_named(tmp_path):
    for name in ("instances_train.json", "train.json"):
        write_coco(tmp_path / name, ["a.jpg"], [box(1, 7, [1, 1, 2, 2])])
    touch(tmp_path / "a.jpg")
    warning = "other COCO files, not read; give their path to read them: 1 (instances_train.json)"
    assert warning in load_dataset(tmp_path, "train").warnings


def test_splits_of_roboflow_that_are_links_keep_their_names(tmp_path):
    for split, classes in (("train", ("cat",)), ("valid", ("cat", "dog"))):
        folder = tmp_path / f"store-{split}" / "imgs"
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(folder / "a.jpg")
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 30, 40]}],
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
        }
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / split).symlink_to(folder)
    assert load_dataset(tmp_path / "set").classes == ("cat",)
    assert load_dataset(tmp_path / "set", "valid").classes == ("cat", "dog")
