import numpy as np
import pytest

from boxless.metrics import corloc
from boxless.structures import Annotations, Detections

OBJECT, HALF, LESS, AWAY = (0, 0, 10, 10), (0, 0, 10, 5), (0, 0, 10, 4), (50, 50, 60, 60)


def ground_truth(*objects: tuple[int, tuple[int, int, int, int], bool]) -> Annotations:
    labels, boxes, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    return Annotations(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(difficult, np.bool_)
    )


def found(*objects: tuple[int, tuple[float, float, float, float], float]) -> Detections:
    labels, boxes, scores = zip(*objects, strict=True) if objects else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        ("cat", "dog"),
        (100, 100),
        np.zeros(2, np.float32),
    )


def test_only_the_best_box_of_the_class_counts():
    cat = ground_truth((0, OBJECT, False))
    assert corloc([found((0, AWAY, 0.9), (0, OBJECT, 0.8), (1, AWAY, 1.0))], [cat], 2)[0] == 0
    assert corloc([found((0, AWAY, 0.7), (0, OBJECT, 0.8), (1, AWAY, 1.0))], [cat], 2)[0] == 1


def test_an_iou_of_exactly_half_is_correct():
    cat = ground_truth((0, OBJECT, False))
    assert corloc([found((0, HALF, 1))], [cat], 2)[0] == 1
    assert corloc([found((0, LESS, 1))], [cat], 2)[0] == 0


def test_a_box_on_any_object_of_the_class_is_correct_and_on_another_class_is_not():
    both = ground_truth((0, OBJECT, False), (0, AWAY, False), (1, (20, 20, 30, 30), False))
    assert corloc([found((0, AWAY, 1), (1, OBJECT, 1))], [both], 2).tolist() == [1, 0]


def test_is_the_share_of_the_images_that_show_the_class():
    images = [
        (found((0, OBJECT, 0.5)), ground_truth((0, OBJECT, False))),
        (found((0, AWAY, 0.5)), ground_truth((0, OBJECT, False))),
        (found(), ground_truth((0, OBJECT, False))),
        (found((1, OBJECT, 0.5)), ground_truth((0, OBJECT, False))),
        (found((0, OBJECT, 0.5)), ground_truth()),
    ]
    shares = corloc([f for f, _ in images], [t for _, t in images], 2)
    assert shares[0] == 1 / 4
    assert np.isnan(shares[1])


def test_difficult_objects_are_hits_but_do_not_make_an_image_count():
    beside = ground_truth((0, OBJECT, False), (0, AWAY, True))
    alone = ground_truth((0, AWAY, True))
    assert corloc([found((0, AWAY, 1)), found()], [beside, alone], 2)[0] == 1
    assert np.isnan(corloc([found((0, AWAY, 1))], [alone], 2)[0])


def test_of_equal_scores_the_first_is_the_best():
    cat = ground_truth((0, OBJECT, False))
    assert corloc([found((0, OBJECT, 0.5), (0, AWAY, 0.5))], [cat], 2)[0] == 1
    assert corloc([found((0, AWAY, 0.5), (0, OBJECT, 0.5))], [cat], 2)[0] == 0


def test_detections_and_annotations_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        corloc([found()], [], 2)


def test_in_the_convention_of_oicr_no_image_is_left_out_and_half_is_not_enough():
    plain, hard = ground_truth((0, OBJECT, False)), ground_truth((0, OBJECT, True))
    detections = [found((0, HALF, 1)), found((0, (0, 0, 10, 5.1), 1)), found(), found((0, OBJECT, 1))]
    annotations = [plain, plain, hard, hard]
    assert corloc(detections, annotations, 2)[0] == 2 / 2
    oicr = corloc(detections, annotations, 2, convention="oicr")
    assert oicr[0] == 2 / 4 and np.isnan(oicr[1])
