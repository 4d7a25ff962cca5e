"""Annotations that state another size of their image than its file has."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.images import read_image

BOX = (10, 20, 30, 50)
"""In a frame of 100 x 80."""

SCALED = "images whose annotations state another size than the file has, their boxes scaled to the file"
TURNED = "images annotated without the rotation in their EXIF, their boxes turned with the image"
MISSTATED = "images whose annotations state a wrong size, their boxes fit the file and are taken as they are"
SWAPPED = "images whose annotations swap width and height, for no reason in EXIF, boxes left out (the tags stay)"
OTHER = "images whose annotations state a size of another shape than the file's, boxes left out (the tags stay)"

Row = tuple[tuple[int, int], int, tuple[int, int], tuple[float, ...]]
"""Size of the stored image, its EXIF orientation, the size that the annotation states, and its box."""


def draw(file: Path, size: tuple[int, int], orientation: int, box: tuple[float, ...] = BOX) -> None:
    """A black image of this stored size with a white box."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    x1, y1, x2, y2 = map(int, box)
    pixels[y1:y2, x1:x2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, exif=exif)


def write_voc(root: Path, rows: list[Row]) -> Path:
    for number, (size, orientation, (width, height), (x1, y1, x2, y2)) in enumerate(rows):
        draw(root / "images" / f"{number}.png", size, orientation)
        stated = f"<size><width>{width}</width><height>{height}</height></size>"
        sides = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        object_ = f"<object><name>dog</name><bndbox>{sides}</bndbox></object>"
        (root / "annotations").mkdir(exist_ok=True)
        text = f"<annotation>{stated}{object_}</annotation>"
        (root / "annotations" / f"{number}.xml").write_text(text)
    return root


def write_coco(root: Path, rows: list[Row]) -> Path:
    images, annotations = [], []
    for number, (size, orientation, (width, height), (x1, y1, x2, y2)) in enumerate(rows):
        draw(root / "images" / f"{number}.png", size, orientation)
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        annotations.append({"image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (root / "annotations").mkdir()
    (root / "annotations" / "all.json").write_text(json.dumps(content))
    return root


both = pytest.mark.parametrize("write", [write_voc, write_coco])


def boxes(dataset) -> list[list[float] | None]:
    return [one.annotations.boxes[0].tolist() if one.annotations else None for one in dataset.samples]


@both
@pytest.mark.parametrize(
    ("stated", "box", "expected"),
    [
        ((200, 160), (20, 40, 60, 100), [10, 20, 30, 50]),
        ((50, 40), (10, 20, 30, 40), [20, 40, 60, 80]),
        # 33.3 is rounded: the sides are scaled by 100 / 42 and 80 / 33.
        ((42, 33), (0, 0, 42, 33), [0, 0, 100, 80]),
        # Another height by one pixel.
        ((100, 79), (0, 0, 50, 79), [0, 0, 50, 80]),
    ],
)
def test_boxes_of_an_image_of_another_size_are_scaled(tmp_path, write, stated, box, expected):
    dataset = load_dataset(write(tmp_path / "set", [((100, 80), 1, stated, box), ((100, 80), 1, (100, 80), BOX)]))
    scaled, same = boxes(dataset)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert same == list(BOX)
    assert dataset.warnings == (f"{SCALED}: 1 (0)",)


def test_boxes_in_fractions_of_the_image_become_pixels(tmp_path):
    rows = [((100, 80), 1, (100, 80), (0.1, 0.25, 0.3, 0.625)), ((100, 80), 6, (80, 100), (0, 0.2, 1, 1))]
    dataset = load_dataset(write_coco(tmp_path / "set", rows))
    np.testing.assert_allclose(boxes(dataset), [[10, 20, 30, 50], [0, 20, 80, 100]], rtol=1e-6)
    assert dataset.warnings == ("images whose boxes are fractions of the image, scaled to pixels: 2 (0, 1)",)


@both
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(5, [20, 10, 50, 30]), (6, [30, 10, 60, 30]), (7, [30, 70, 60, 90]), (8, [20, 70, 50, 90])],
)
def test_boxes_from_before_the_rotation_in_exif_are_turned(tmp_path, write, orientation, expected):
    dataset = load_dataset(write(tmp_path / "set", [((100, 80), orientation, (100, 80), BOX)]))
    assert boxes(dataset) == [expected]
    assert dataset.warnings == (f"{TURNED}: 1 (0)",)
    # What was drawn at the box before the rotation is displayed at the turned box.
    rows, columns = np.nonzero(read_image(dataset.samples[0].path)[:, :, 0])
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == expected


@both
def test_boxes_may_be_turned_and_scaled(tmp_path, write):
    # Stored at 100 x 80, annotated at 200 x 160, displayed at 80 x 100.
    dataset = load_dataset(write(tmp_path / "set", [((100, 80), 6, (200, 160), (20, 40, 60, 100))]))
    assert boxes(dataset) == [[30, 10, 60, 30]]


@pytest.mark.parametrize(
    ("orientation", "expected"), [(2, [70, 20, 90, 50]), (3, [70, 30, 90, 60]), (4, [10, 30, 30, 60])]
)
def test_a_half_turn_was_ignored_too_where_all_quarter_turns_were(tmp_path, orientation, expected):
    half, quarter = ((100, 80), orientation, (100, 80), BOX), ((100, 80), 6, (100, 80), BOX)
    dataset = load_dataset(write_voc(tmp_path / "ignored", [half, quarter]))
    assert boxes(dataset) == [expected, [30, 10, 60, 30]]
    assert dataset.warnings == (f"{TURNED}: 2 (0, 1)",)
    rows, columns = np.nonzero(read_image(dataset.samples[0].path)[:, :, 0])
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == expected
    # A quarter turn that was applied shows that EXIF was not ignored; without any there is no reason to think so.
    applied = ((100, 80), 6, (80, 100), BOX)
    for name, rows_ in (("mixed", [half, quarter, applied]), ("alone", [half])):
        assert boxes(load_dataset(write_voc(tmp_path / name, rows_)))[0] == list(BOX)


@both
def test_swapped_sides_without_exif_leave_the_boxes_out(tmp_path, write):
    dataset = load_dataset(write(tmp_path / "set", [((100, 80), 1, (80, 100), BOX), ((100, 80), 1, (100, 80), BOX)]))
    assert boxes(dataset) == [None, list(BOX)]
    assert [sample.tags for sample in dataset.samples] == [{0}, {0}]
    assert dataset.warnings == (f"{SWAPPED}: 1 (0)",)


@both
@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_that_fit_the_file_but_not_the_stated_size_are_taken_as_they_are(tmp_path, write, orientation):
    stored = (100, 80) if orientation == 1 else (80, 100)
    dataset = load_dataset(
        write(
            tmp_path / "set",
            [(stored, orientation, (80, 100), (60, 20, 95, 50)), (stored, orientation, (80, 100), BOX)],
        )
    )
    assert boxes(dataset) == [[60, 20, 95, 50], list(BOX)]
    assert dataset.warnings == (f"{MISSTATED}: 2 (0, 1)",)


def test_one_box_of_many_outside_of_the_stated_size_is_a_mistake(tmp_path):
    rows = [((100, 80), 1, (50, 40), (5, 10, 60, 25))] + [((100, 80), 1, (50, 40), (5, 10, 15, 25))] * 30
    dataset = load_dataset(write_voc(tmp_path / "set", rows))
    assert boxes(dataset) == [[10, 20, 100, 50]] + [list(BOX)] * 30


@both
def test_a_size_of_another_shape_leaves_the_boxes_out_and_names_the_images(tmp_path, write):
    rows = [((100, 80), 1, (100, 100), BOX), ((100, 80), 1, (100, 80), BOX), ((100, 80), 8, (300, 100), BOX)]
    dataset = load_dataset(write(tmp_path / "set", rows))
    assert boxes(dataset) == [None, list(BOX), None]
    assert dataset.warnings == (f"{OTHER}: 2 (0, 2)",)


BEYOND = "images of no stated size with boxes beyond the file, so the other boxes may refer to another size, too"
CLIPPED = "boxes that reach outside the image, clipped"
DROPPED = "boxes without area inside the image, dropped (their tags stay)"


def write_table(root: Path, rows: list[Row]) -> Path:
    root.mkdir()
    lines = ["image,class,xmin,ymin,xmax,ymax"]
    for number, (size, orientation, _, box) in enumerate(rows):
        draw(root / f"{number}.png", size, orientation)
        lines.append(f"{number}.png,dog,{','.join(map(str, box))}")
    (root / "boxes.csv").write_text("\n".join(lines))
    return root


unstated = pytest.mark.parametrize("write", [write_voc, write_coco, write_table])
NONE = (0, 0)
"""The size that some tools write if they do not know it."""


@unstated
def test_without_a_stated_size_boxes_outside_of_the_file_are_clipped_or_dropped(tmp_path, write):
    rows = [((100, 80), 1, NONE, box) for box in ((50, 60, 110, 90), (120, 10, 150, 30), *([BOX] * 30))]
    dataset = load_dataset(write(tmp_path / "set", rows))
    assert boxes(dataset) == [[50, 60, 100, 80], None, *([list(BOX)] * 30)]
    clipped, dropped = (one.split(": ")[1] for one in dataset.warnings)
    assert dataset.warnings == (f"{CLIPPED}: {clipped}", f"{DROPPED}: {dropped}")
    assert clipped[:4] == "1 (0" and dropped[:4] == "1 (1"


@unstated
def test_many_boxes_beyond_files_of_no_stated_size_are_named(tmp_path, write):
    rows = [((100, 80), 1, NONE, box) for box in (BOX, (120, 10, 150, 30), (60, 70, 90, 130))]
    dataset = load_dataset(write(tmp_path / "set", rows))
    assert boxes(dataset) == [list(BOX), None, [60, 70, 90, 80]]
    assert [line for line in dataset.warnings if line.startswith(f"{BEYOND}: 2 (1")]
    # Boxes drawn carelessly at the edge are no sign of another size.
    careless = load_dataset(write(tmp_path / "careless", [((100, 80), 1, NONE, (10, 20, 130, 90))]))
    assert [line.partition(":")[0] for line in careless.warnings] == [CLIPPED]


@unstated
def test_boxes_of_no_stated_size_from_before_the_rotation_in_exif_are_turned(tmp_path, write):
    before = (82, 20, 98, 50)
    dataset = load_dataset(write(tmp_path / "set", [((100, 80), 6, NONE, before), ((100, 80), 6, NONE, BOX)]))
    assert boxes(dataset) == [[30, 82, 60, 98], [30, 10, 60, 30]]
    assert [line.partition(":")[0] for line in dataset.warnings] == [TURNED]
    # Nothing shows it if all boxes fit the image as displayed.
    fitting = load_dataset(write(tmp_path / "fitting", [((100, 80), 6, NONE, BOX)]))
    assert (boxes(fitting), fitting.warnings) == ([list(BOX)], ())


def test_an_image_of_no_stated_size_is_turned_where_stated_sizes_show_that_exif_was_ignored(tmp_path):
    rows = [((100, 80), orientation, size, BOX) for orientation, size in ((6, (100, 80)), (6, NONE), (3, NONE))]
    dataset = load_dataset(write_voc(tmp_path / "set", rows))
    assert boxes(dataset) == [[30, 10, 60, 30], [30, 10, 60, 30], [70, 30, 90, 60]]
    assert dataset.warnings == (f"{TURNED}: 3 (0, 1, 2)",)


@unstated
@pytest.mark.parametrize("size", [NONE, (100, 80)])
def test_one_image_in_fractions_among_others_in_pixels(tmp_path, write, size):
    rows = [((100, 80), 1, size, BOX), ((100, 80), 1, size, (0.1, 0.25, 0.3, 0.625)), ((100, 80), 1, size, BOX)]
    root = write(tmp_path / "set", rows)
    if write is write_voc:  # Whose pixels are counted from 1, but not its fractions.
        file = root / "annotations" / "1.xml"
        file.write_text(file.read_text().replace("1.1<", "0.1<").replace("1.25<", "0.25<"))
    dataset = load_dataset(root)
    np.testing.assert_allclose(boxes(dataset), [BOX, (10, 20, 30, 50), BOX], rtol=1e-6)
    (warning,) = dataset.warnings
    assert warning.startswith("images whose boxes are fractions of the image, scaled to pixels: 1 (1")


def test_fractions_that_reach_outside_of_their_image_are_clipped(tmp_path):
    rows = [((100, 80), 1, NONE, box) for box in ((0.1, 0.25, 0.3, 0.625), (0.5, 0.5, 1.2, 1), (-0.1, 0, 0.5, 1.001))]
    dataset = load_dataset(write_coco(tmp_path / "set", rows))
    np.testing.assert_allclose(boxes(dataset), [(10, 20, 30, 50), (50, 40, 100, 80), (0, 0, 50, 80)], rtol=1e-6)
    assert f"{CLIPPED}: 2 (1, 2)" in dataset.warnings


def test_a_file_that_cannot_be_read_leaves_its_boxes_as_they_are(tmp_path):
    root = write_table(tmp_path / "set", [((100, 80), 1, NONE, (120, 10, 150, 30)), ((100, 80), 1, NONE, BOX)])
    (root / "0.png").write_bytes(b"damaged")
    dataset = load_dataset(root)
    assert (boxes(dataset), dataset.warnings) == ([[120, 10, 150, 30], list(BOX)], ())


@both
def test_headers_are_read_once_and_only_where_they_matter(tmp_path, write, monkeypatch):
    read = []
    root = write(tmp_path / "set", [((100, 80), 1, (100, 80), BOX), ((100, 80), 1, NONE, BOX)])
    # An image without a box.
    if write is write_voc:
        (root / "annotations" / "2.xml").write_text("<annotation/>")
    else:
        file = root / "annotations" / "all.json"
        content = json.loads(file.read_text())
        content["images"].append({"id": 2, "file_name": "2.png"})
        file.write_text(json.dumps(content))
    draw(root / "images" / "2.png", (100, 80), 1)
    from boxless.datasets import sizes

    original = sizes.image_header
    monkeypatch.setattr(sizes, "image_header", lambda path: read.append(path.name) or original(path))
    assert [len(one.annotations.boxes) for one in load_dataset(root).samples] == [1, 1, 0]
    assert read == ["0.png", "1.png"]
