"""What the columns of a table are, where their names and their cells say different things."""

from pathlib import Path

import pytest

from boxless.datasets import load_dataset, split_names


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    for number in range(1, 5):
        (file.parent / f"{number}.jpg").touch()
    return file


def tags(file: Path) -> dict[str, set[str]]:
    """The names of the tags of every image."""
    dataset = load_dataset(file)
    return {sample.id: {dataset.classes[tag] for tag in sample.tags} for sample in dataset.samples}


FLIPPED = {"3.jpg": {"cat"}, "4.jpg": {"dog"}, "1.jpg": {"dog"}, "2.jpg": {"cat"}}


@pytest.mark.parametrize("header", ["id,photo,label", "image,path,label", "image_id,,label", "label,photo,id"])
def test_names_of_files_precede_the_names_of_columns(tmp_path, header):
    names = ["3.jpg", "4.jpg", "1.jpg", "2.jpg"]
    rows = list(zip(range(1, 5), names, ["cat", "dog", "dog", "cat"], strict=True))
    order = [2, 1, 0] if header.startswith("label") else [0, 1, 2]
    lines = [header, *(",".join(str(row[number]) for number in order) for row in rows)]
    file = write(tmp_path / "t.csv", "\n".join(lines))
    assert tags(file) == FLIPPED
    taken = [line for line in load_dataset(file).warnings if line.startswith("columns of names of image files")]
    assert len(taken) == (not header.startswith("label"))


def test_the_first_column_that_is_not_of_tags_or_splits_is_that_of_the_images(tmp_path):
    file = write(tmp_path / "t.csv", "label,split,id\ncat,train,1\ndog,train,2\n")
    assert tags(file) == {"1.jpg": {"cat"}, "2.jpg": {"dog"}}
    write(file, "label,filepaths\ncat,1.jpg\ndog,2.jpg\n")
    assert tags(file) == {"1.jpg": {"cat"}, "2.jpg": {"dog"}}


@pytest.mark.parametrize("other", ["mask", "source_url", "label"])
def test_names_of_masks_and_of_files_elsewhere_are_not_those_of_the_images(tmp_path, other):
    rows = "".join(f"{number},{5 - number}.jpg,cat\n" for number in (1, 2))
    file = write(tmp_path / "t.csv", f"image_id,{other},tags\n{rows}")
    assert list(tags(file)) == ["1.jpg", "2.jpg"]


def test_a_column_called_as_images_are_precedes_others_of_files_unless_it_holds_numbers(tmp_path):
    file = write(tmp_path / "t.csv", "image,preview,tags\n./1,small/1.jpg,cat\n./2,small/2.jpg,dog\n")
    assert tags(file) == {"1.jpg": {"cat"}, "2.jpg": {"dog"}}


@pytest.mark.parametrize("name", ["label", "tag", "class", "category"])
def test_a_class_may_be_called_as_a_column_of_tags(tmp_path, name):
    rows = "1.jpg,1,0,1\n2.jpg,1,0,0\n3.jpg,0,0,1\n4.jpg,0,,\n"
    file = write(tmp_path / "t.csv", f"filename,bottle,cap,{name}\n{rows}")
    assert tags(file) == {"1.jpg": {"bottle", name}, "2.jpg": {"bottle"}, "3.jpg": {name}, "4.jpg": set()}
    warning = f"columns called as those of tags, classes as they hold 0 and 1 as others do: 1 ({name})"
    assert warning in load_dataset(file).warnings


def test_a_split_of_0_and_1_beside_classes_stays_a_split(tmp_path):
    file = write(tmp_path / "t.csv", "image,split,cat,dog\n1.jpg,0,1,0\n2.jpg,1,0,1\n")
    assert split_names(file) == ("0", "1") and load_dataset(file, "1").classes == ("cat", "dog")


def test_several_classes_may_be_called_so_and_the_others_be_absent(tmp_path):
    file = write(tmp_path / "t.csv", "image,class,label,bottle,cap\n1.jpg,1,1,0,0\n2.jpg,0,1,0,0\n")
    assert tags(file) == {"1.jpg": {"class", "label"}, "2.jpg": {"label"}}


def test_columns_of_0_and_1_called_as_the_sides_of_a_box_are_classes(tmp_path):
    file = write(tmp_path / "t.csv", "filename,left,right,top,bottom\n1.jpg,1,0,1,0\n2.jpg,0,1,0,1\n")
    assert tags(file) == {"1.jpg": {"left", "top"}, "2.jpg": {"right", "bottom"}}


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n1.jpg,1\n2.jpg,0\n",
        "image,label,fold,is_valid\n1.jpg,1,0,0\n2.jpg,0,1,1\n",
        "image,label,same\n1.jpg,1,1\n2.jpg,0,1\n",
        "image,label,occluded\n1.jpg,1,1\n2.jpg,0,0\n",
    ],
)
def test_a_lone_column_of_0_and_1_is_one_of_tags_and_named(tmp_path, text):
    file = write(tmp_path / "t.csv", text)
    assert tags(file) == {"1.jpg": {"1"}, "2.jpg": {"0"}}
    warning = "columns of the tags 0 and 1, two classes; if 0 means absent, call the column as the class: 1 (label)"
    assert load_dataset(file).warnings[0] == warning


def test_numbers_of_classes_beside_boxes_and_splits_beside_tags_stay_so(tmp_path, image):
    image(tmp_path / "1.jpg")
    file = tmp_path / "t.csv"
    file.write_text("image,class,xmin,ymin,xmax,ymax,hidden\n1.jpg,1,1,2,3,4,0\n1.jpg,0,5,6,7,8,1\n")
    assert load_dataset(file).samples[0].annotations.labels.tolist() == [1, 0]
    write(file, "image,label,split,blurred\n1.jpg,cat,0,0\n2.jpg,dog,1,1\n")
    assert split_names(file) == ("0", "1")


@pytest.mark.parametrize("name", ["set", "Subset", "partition", "phase", "usage", "data set"])
@pytest.mark.parametrize("rows", ["label,{}\n1.jpg,a,{}\n2.jpg,b,{}\n", "a,b,{}\n1.jpg,1,0,{}\n2.jpg,0,1,{}\n"])
def test_a_column_of_names_of_splits_is_that_of_the_split(tmp_path, name, rows):
    file = write(tmp_path / "t.csv", "image," + rows.format(name, "Train", "valid"))
    assert split_names(file) == ("Train", "valid")
    assert tags(file) == {"1.jpg": {"a"}}
    warning = f"columns read as `split`, as all their cells are names of splits: 1 ({name})"
    assert warning in load_dataset(file).warnings
    write(file, "image," + rows.format(name, "train", "other"))
    assert split_names(file) == ()


def test_columns_that_may_say_the_split_are_named_beside_tags_too(tmp_path):
    file = write(tmp_path / "t.csv", "image,label,is_valid\n1.jpg,a,False\n2.jpg,b,True\n")
    warning = "columns that may say the split, not used; a column `split` would be: 1 (is_valid)"
    assert load_dataset(file).warnings[0] == warning


def test_the_size_of_the_image_is_called_so_where_boxes_have_one_too(tmp_path, image):
    image(tmp_path / "1.jpg")
    header = "filename,width,height,image_width,image_height,class,xmin,ymin,xmax,ymax"
    (tmp_path / "t.csv").write_text(f"{header}\n1.jpg,20,40,200,160,dent,20,40,40,80\n")
    # The file has 100 x 80 pixels.
    assert load_dataset(tmp_path / "t.csv").samples[0].annotations.boxes.tolist() == [[10, 20, 20, 40]]


def test_a_class_whose_name_ends_as_that_of_a_split_stays_a_class(tmp_path):
    file = write(tmp_path / "t.csv", "image,is_toy_train,is_car\n1.jpg,1,0\n2.jpg,0,1\n")
    assert load_dataset(file).classes == ("is_toy_train", "is_car")
