import numpy as np
import pytest

from boxless.metrics import pointing_ap
from boxless.structures import Annotations

BOX = (100, 200, 150, 260)
NEVER = (900.0, 900.0)


def ground_truth(*objects: tuple[int, tuple[int, int, int, int], bool]) -> Annotations:
    labels, boxes, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    return Annotations(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(difficult, np.bool_)
    )


def one_class(points: list[tuple[float, float]], scores: list[float], annotations: list[Annotations]) -> float:
    """Pointing AP of class 0 of 1."""
    return float(
        pointing_ap(np.array(points, np.float32)[:, None], np.array(scores, np.float32)[:, None], annotations)[0]
    )


@pytest.mark.parametrize(
    ("point", "correct"),
    [
        ((125, 230), True),
        ((82, 182), True),
        ((81, 182), False),
        ((82, 181), False),
        ((167, 277), True),
        ((168, 277), False),
        ((167, 278), False),
    ],
)
def test_a_point_is_correct_inside_the_box_grown_by_18_pixels(point: tuple[float, float], correct: bool):
    assert one_class([point], [0.5], [ground_truth((0, BOX, False))]) == correct


def test_hand_worked_ranking():
    # By falling score: correct; class absent; wrong point; correct. Three images show the class.
    points = [(120, 230), (120, 230), NEVER, (120, 230)]
    annotations = [
        ground_truth((0, BOX, False)),
        ground_truth(),
        ground_truth((0, BOX, False)),
        ground_truth((0, BOX, False)),
    ]
    # Precision 1 at recall 1/3, then 2/4 at recall 2/3; recall 1 is never reached.
    assert one_class(points, [0.9, 0.8, 0.7, 0.6], annotations) == pytest.approx(1 / 3 + 1 / 3 * 2 / 4)
    # Ranked last, the image without the class and the wrong point cost no precision.
    assert one_class(points, [0.9, 0.1, 0.2, 0.6], annotations) == pytest.approx(2 / 3)


def test_images_with_only_difficult_objects_are_left_out():
    inside = [(120.0, 230.0)] * 2
    annotations = [ground_truth((0, BOX, True)), ground_truth((0, BOX, False))]
    assert one_class(inside, [0.9, 0.1], annotations) == 1
    assert one_class([NEVER, inside[0]], [0.9, 0.1], annotations) == 1


def test_a_point_on_a_difficult_object_beside_another_is_correct():
    annotations = [ground_truth((0, (400, 400, 450, 450), False), (0, BOX, True))]
    assert one_class([(120, 230)], [0.5], annotations) == 1


def test_each_class_has_its_own_point_and_score():
    annotations = [ground_truth((0, BOX, False), (1, (300, 300, 350, 350), False)), ground_truth((1, BOX, False))]
    points = np.array([[(120, 230), (320, 320), NEVER], [(120, 230), (320, 320), NEVER]], np.float32)
    scores = np.array([[0.1, 0.9, 0.5], [0.9, 0.8, 0.5]], np.float32)
    # Class 0: absent first, then correct: 1/2. Class 1: correct, then wrong, 2 to find: 1/2. Class 2 is in no image.
    np.testing.assert_allclose(pointing_ap(points, scores, annotations), [0.5, 0.5, np.nan])


def test_an_image_without_a_point_is_wrong():
    annotations = [ground_truth((0, BOX, False)), ground_truth((0, BOX, False))]
    assert one_class([(np.nan, np.nan), (120, 230)], [0.1, 0.9], annotations) == 0.5
