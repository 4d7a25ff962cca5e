import numpy as np
import pytest
from numpy.typing import NDArray

from boxless.structures import Annotations, Detections
from boxless.visualize import draw_boxes
from boxless.visualize.boxes import _caption, class_colour

GREY = 60


def ground(height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def found(
    boxes: list[tuple[float, float, float, float]],
    labels: list[int],
    classes: tuple[str, ...] = ("cat", "dog", "cow"),
    size: tuple[int, int] = (320, 240),
) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, len(labels)).astype(np.float32),
        np.array(labels, np.int64),
        classes,
        size,
        np.zeros(len(classes), np.float32),
    )


def painted(image: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    return (image == class_colour(label)).all(axis=2)


def test_outline_lies_on_the_first_and_last_pixels_of_the_box() -> None:
    image = ground()
    drawn = draw_boxes(image, found([(50, 100, 200, 180)], [1]))
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (image == GREY).all()
    line = painted(drawn, 1)[101:]  # the label stands above
    rows, columns = np.nonzero(line)
    assert (columns.min(), columns.max(), rows.max() + 101) == (50, 199, 179)
    assert painted(drawn, 1)[100, 50:200].all() and painted(drawn, 1)[179, 50:200].all()
    assert painted(drawn, 1)[100:180, 50].all() and painted(drawn, 1)[100:180, 199].all()
    assert (drawn[110:170, 60:190] == GREY).all()


def test_the_caption_is_a_filled_rectangle_above_the_box_with_legible_text() -> None:
    drawn = draw_boxes(ground(), found([(50, 100, 200, 180)], [0]))
    above = drawn[:100]
    rows, columns = np.nonzero((above != GREY).any(axis=2))
    assert rows.max() == 99 and columns.min() == 50
    caption = above[rows.min() :, 50 : columns.max() + 1]
    assert caption.shape[0] >= 10
    assert 0.5 < (caption == class_colour(0)).all(axis=2).mean() < 1
    assert (caption.max(axis=2) < 40).any()  # black ink on the light orange


def test_colours_follow_the_class_index_and_repeat_late() -> None:
    assert len({class_colour(label) for label in range(21)}) == 21
    one = draw_boxes(ground(), found([(50, 100, 200, 180)], [2]))
    two = draw_boxes(ground(), found([(10, 20, 40, 50), (50, 100, 200, 180)], [0, 2]))
    assert painted(one, 2)[179, 120] and painted(two, 2)[179, 120]


def test_lines_and_captions_grow_with_the_image() -> None:
    def measure(scale: int) -> tuple[int, int]:
        size = 320 * scale, 240 * scale
        boxes = [(50.0 * scale, 100.0 * scale, 200.0 * scale, 180.0 * scale)]
        drawn = draw_boxes(ground(size[1], size[0]), found(boxes, [1], size=size))
        line = painted(drawn, 1)[:, 195 * scale].sum() // 2
        caption = (drawn[: 100 * scale] != GREY).any(axis=(1, 2)).sum()
        return int(line), int(caption)

    (line, caption), (line4, caption4) = measure(1), measure(4)
    assert line == 2 and line4 == 8
    assert caption4 >= 3 * caption


@pytest.mark.parametrize("size", [(320, 240), (40, 300), (12, 9)])
def test_captions_stay_inside_the_image(size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    for _ in range(100):
        x1, x2 = sorted(rng.integers(0, width, 2).tolist())
        y1, y2 = sorted(rng.integers(0, height, 2).tolist())
        caption = _caption("a class of a very long name", 0.5, (x1, y1, x2, y2), (0, 0, 0), size, [])
        left, top, right, bottom = caption.place
        assert 0 <= left <= right < width
        assert 0 <= top <= bottom < height


def test_a_long_name_is_shortened_and_the_score_stays() -> None:
    caption = _caption("a class of a very long name", 0.5, (0, 0, 90, 90), (0, 0, 0), (100, 100), [])
    assert caption.text.endswith("… 0.50") and caption.text.startswith("a c")
    assert _caption("cat", 0.5, (0, 0, 90, 90), (0, 0, 0), (100, 100), []).text == "cat 0.50"


def test_captions_of_the_same_box_do_not_overlap() -> None:
    captions = []
    for name in ("cat", "dog", "cow"):
        captions.append(_caption(name, 0.5, (50, 60, 200, 180), (0, 0, 0), (320, 240), captions))
    tops = [caption.place[1] for caption in captions]
    height = captions[0].place[3] - tops[0] + 1
    assert tops == [60 - height, 60, 181]


def test_the_highest_score_lies_on_top_and_every_box_is_drawn() -> None:
    many = [(220.0, 2.0 + 7 * row, 300.0, 6.0 + 7 * row) for row in range(30)]
    drawn = draw_boxes(ground(), found([(50.0, 100.0, 200.0, 180.0)] * 2 + many, [0, 1, *[2] * 30]))
    assert painted(drawn, 0)[179, 60:200].all()
    assert painted(drawn, 2)[[int(box[3]) - 1 for box in many], 299].all()


def test_ground_truth_is_drawn_as_thin_dashes() -> None:
    ground_truth = Annotations(np.array([[20, 30, 120, 130]], np.float32), np.array([0]), np.array([False]))
    drawn = draw_boxes(ground(), found([], []), ground_truth)
    top = drawn[30, 20:120]
    assert ((top == 255).all(axis=1) | (top == 0).all(axis=1)).all()
    white = (top == 255).all(axis=1)
    assert 0.3 < white.mean() < 0.7
    assert np.count_nonzero(np.diff(white)) > 6
    assert (drawn[31, 22:118] == GREY).all()
    assert (drawn[129, 20:120] != GREY).all() and (drawn[30:130, 119] != GREY).all()


def test_boxes_beyond_the_border_and_nothing_at_all() -> None:
    drawn = draw_boxes(ground(), found([(-50, -20, 400, 300), (330, 250, 340, 260)], [0, 1]))
    assert painted(drawn, 0)[239, 10:300].all()
    np.testing.assert_array_equal(draw_boxes(ground(), found([], [])), ground())


@pytest.mark.parametrize("shape", [(60, 1200, 3), (1200, 60, 3)])
def test_lines_and_captions_of_a_panorama_leave_its_objects_visible(shape: tuple[int, int, int]) -> None:
    # The caption finds place above the box, and its lines are two pixels wide.
    drawn = draw_boxes(ground(*shape[:2]), found([(20, 20, 50, 50)], [0], size=shape[1::-1]))
    assert (drawn[22:48, 22:48] == GREY).all()
