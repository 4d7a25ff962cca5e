import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxless.errors import BoxlessError
from boxless.metrics import detection_outcomes, diagnose_detections
from boxless.metrics.errors import BINS, OUTCOMES
from boxless.structures import Annotations, Detections, Sample

Box = tuple[float, float, float, float]
CLASSES = ("cat", "dog", "owl")
CAT, DOG = 0, 1
HERE, THERE = (100, 100, 200, 200), (400, 400, 500, 500)


def ground_truth(*objects: tuple[int, Box] | tuple[int, Box, bool]) -> Annotations:
    return Annotations(
        np.array([row[1] for row in objects], np.float32).reshape(-1, 4),
        np.array([row[0] for row in objects], np.int64),
        np.array([len(row) > 2 for row in objects], np.bool_),
    )


def found(*objects: tuple[int, Box, float], size: tuple[int, int] = (640, 640)) -> Detections:
    return Detections(
        np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in objects], np.float32),
        np.array([label for label, _, _ in objects], np.int64),
        CLASSES,
        size,
        np.zeros(len(CLASSES), np.float32),
    )


def samples(*annotations: Annotations | None) -> list[Sample]:
    return [Sample(str(i), Path(f"{i}.jpg"), frozenset(), annotations=one) for i, one in enumerate(annotations)]


def outcomes_in(image: Annotations, *boxes: Box) -> list[str]:
    """Outcomes of cats detected in an image, best first; nine cats elsewhere let all of them be evaluated."""
    detections = found(*((CAT, box, 1 - i / 100) for i, box in enumerate(boxes)))
    elsewhere = ground_truth(*[(CAT, HERE)] * 9)
    return detection_outcomes([detections, found()], [image, elsewhere], CAT)[0]


@pytest.mark.parametrize(
    ("box", "outcome"),
    [
        (HERE, "correct"),
        # IoU 5000 / 10000, and 4900 / 10000 with all of the box inside.
        ((100, 100, 200, 150), "correct"),
        ((100, 100, 200, 149), "part"),
        # 30 of 45 columns inside, and 30 of 46 with IoU 900 / 10480.
        ((170, 100, 215, 130), "part"),
        ((170, 100, 216, 130), "background"),
        # IoU 1/9 and 1/40: the object is inside.
        ((50, 50, 350, 350), "too_large"),
        ((0, 0, 640, 640), "too_large"),
        # Holds 67 and 66 of 100 rows; IoU 6600 / 155400 is less than 0.1, 6600 / 33400 is more.
        ((0, 0, 640, 167), "too_large"),
        ((0, 0, 640, 166), "background"),
        ((100, 0, 200, 166), "poorly_placed"),
        # IoU 5000 / 15000, half of either inside.
        ((150, 100, 250, 200), "poorly_placed"),
        (THERE, "background"),
        ((150, 150, 150, 150), "background"),
    ],
)
def test_one_box_and_one_object(box: Box, outcome: str):
    assert outcomes_in(ground_truth((CAT, HERE)), box) == [outcome]


def test_exactly_two_thirds_of_an_object_inside_are_enough():
    kitten = ground_truth((CAT, (100, 100, 130, 130)))
    assert outcomes_in(kitten, (0, 0, 300, 120)) == ["too_large"]
    assert outcomes_in(kitten, (0, 0, 300, 119)) == ["background"]


def test_an_iou_of_exactly_a_tenth_is_poorly_placed():
    cat = ground_truth((CAT, (0, 0, 100, 110)))
    # 20 rows of 110 shared: 2000 / (11000 + 11000 - 2000); then 19.
    assert outcomes_in(cat, (0, 90, 100, 200)) == ["poorly_placed"]
    assert outcomes_in(cat, (0, 91, 100, 201)) == ["background"]


PAIR = ground_truth((CAT, (100, 100, 200, 200)), (CAT, (300, 100, 400, 200)))


def test_a_group_holds_two_thirds_of_each_of_two_objects():
    assert outcomes_in(PAIR, (100, 100, 400, 200)) == ["group"]
    assert outcomes_in(PAIR, (133, 100, 367, 200)) == ["group"]
    # All of the one and 66 columns of the other: too large for one. IoU 10000 / 26600.
    assert outcomes_in(PAIR, (100, 100, 366, 200)) == ["too_large"]
    assert outcomes_in(PAIR, (134, 100, 366, 200)) == ["poorly_placed"]


def test_a_box_that_fits_one_object_is_correct_whatever_else_it_holds():
    kitten = (110, 110, 130, 130)
    family = ground_truth((CAT, HERE), (CAT, kitten), (CAT, (140, 110, 160, 130)))
    assert outcomes_in(family, HERE) == ["correct"]
    # Inside the large one, around the two small ones.
    assert outcomes_in(family, (105, 105, 165, 135)) == ["group"]
    assert outcomes_in(family, HERE, HERE) == ["correct", "duplicate"]


def test_a_group_is_of_one_class():
    assert outcomes_in(ground_truth((CAT, HERE), (DOG, (300, 100, 400, 200))), (100, 100, 400, 200)) == ["too_large"]


def test_only_the_first_box_on_an_object_is_correct():
    assert outcomes_in(ground_truth((CAT, HERE)), (100, 100, 200, 160), HERE, THERE) == [
        "correct",
        "duplicate",
        "background",
    ]


def test_a_box_on_two_objects_takes_the_free_one_of_highest_iou():
    overlapping = ground_truth((CAT, (100, 100, 200, 200)), (CAT, (100, 120, 200, 220)))
    box = (100, 115, 200, 215)
    assert detection_outcomes([found((CAT, box, 0.9))], [overlapping], CAT)[1][0].tolist() == [False, True]
    outcomes, taken, _ = detection_outcomes([found((CAT, box, 0.9), (CAT, box, 0.8))], [overlapping], CAT)
    assert outcomes == ["correct", "correct"]
    assert taken[0].tolist() == [True, True]
    assert outcomes_in(overlapping, box, box, box) == ["correct", "correct", "duplicate"]


@pytest.mark.parametrize(
    ("box", "outcome"),
    [
        (HERE, "other_class"),
        # IoU 100 / 10000, but wholly inside; and as far outside.
        ((110, 110, 120, 120), "other_class"),
        ((210, 110, 220, 120), "background"),
        ((100, 100, 200, 300), "other_class"),
        # Around it: IoU 10000 / 409600.
        ((0, 0, 640, 640), "background"),
    ],
)
def test_other_classes(box: Box, outcome: str):
    assert outcomes_in(ground_truth((DOG, HERE)), box) == [outcome]


def test_the_own_class_comes_before_others():
    # Third of the cat, and the dog exactly.
    both = ground_truth((CAT, (50, 100, 150, 200)), (DOG, HERE))
    assert outcomes_in(both, HERE) == ["poorly_placed"]


def test_detections_on_difficult_objects_are_replaced_by_the_next():
    images = [ground_truth((CAT, HERE, True), (CAT, THERE))]
    outcomes, taken, _ = detection_outcomes(
        [found((CAT, HERE, 0.9), (CAT, THERE, 0.8), (CAT, THERE, 0.7))], images, CAT
    )
    assert outcomes == ["correct"]
    assert taken[0].tolist() == [False, True]


def test_difficult_objects_decide_the_kind_of_an_error():
    hard = ground_truth((CAT, HERE, True))
    assert outcomes_in(hard, HERE, HERE) == []
    assert outcomes_in(hard, (110, 110, 120, 120), (0, 0, 640, 640)) == ["part", "too_large"]
    assert outcomes_in(ground_truth((CAT, HERE, True), (CAT, THERE)), (100, 100, 500, 500)) == ["group"]
    assert outcomes_in(ground_truth((DOG, HERE, True)), HERE) == ["other_class"]


def test_of_a_found_and_a_difficult_object_the_better_fit_decides():
    easy, hard = (100, 100, 200, 200), (100, 140, 200, 240)
    both = ground_truth((CAT, easy), (CAT, hard, True))
    # IoU with the easy one 90/110 and 70/130, with the hard one 70/130 and 90/110.
    assert outcomes_in(both, easy, (100, 110, 200, 210)) == ["correct", "duplicate"]
    assert outcomes_in(both, easy, (100, 130, 200, 230)) == ["correct"]
    assert outcomes_in(both, (100, 130, 200, 230)) == ["correct"]


def test_as_many_are_evaluated_as_there_are_objects_the_best_over_all_images():
    detections = [
        found((CAT, THERE, 0.3), (DOG, HERE, 1.0)),
        found((CAT, HERE, 0.9), (CAT, (0, 0, 10, 10), 0.5)),
        found((CAT, HERE, 0.4)),
    ]
    images = [ground_truth(), ground_truth((CAT, HERE)), ground_truth((CAT, HERE))]
    # The third best would be correct.
    outcomes, taken, places = detection_outcomes(detections, images, CAT)
    assert outcomes == ["correct", "background"]
    assert places == [(1, 0), (1, 1)]
    # Its row counts boxes of other classes too.
    assert detection_outcomes([found((DOG, HERE, 1.0), (CAT, HERE, 0.9))], [ground_truth((CAT, HERE))], CAT)[2] == [
        (0, 1)
    ]
    assert [image.tolist() for image in taken] == [[], [True], [False]]


def test_equal_scores_come_in_the_order_given():
    one_cat = ground_truth((CAT, HERE))
    assert detection_outcomes([found((CAT, THERE, 0.5), (CAT, HERE, 0.5))], [one_cat], CAT)[0] == ["background"]
    assert detection_outcomes([found((CAT, HERE, 0.5), (CAT, THERE, 0.5))], [one_cat], CAT)[0] == ["correct"]
    assert detection_outcomes([found((CAT, THERE, 0.5)), found((CAT, HERE, 0.5))], [ground_truth(), one_cat], CAT)[
        0
    ] == ["background"]
    many = [found((CAT, THERE, 0.5 + i % 2 / 10)) for i in range(40)]
    # The ten best of equal score are those of images 1, 3 ... 19.
    ten = [ground_truth((CAT, THERE)) if i in range(1, 20, 2) else ground_truth() for i in range(40)]
    assert detection_outcomes(many, ten, CAT)[0] == ["correct"] * 10


def test_detections_and_annotations_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        detection_outcomes([found()], [], CAT)


def test_every_number_is_the_hand_worked_one():
    images = samples(
        ground_truth((CAT, HERE), (CAT, THERE), (CAT, (0, 0, 10, 10)), (DOG, THERE)),
        ground_truth((CAT, HERE)),
        ground_truth((DOG, HERE), (DOG, THERE, True)),
        ground_truth(),
        None,
    )
    detections = [
        found((CAT, HERE, 0.9), (CAT, THERE, 0.8)),
        found((CAT, (110, 110, 120, 120), 0.7)),
        # On a difficult dog; in its place the next.
        found((DOG, THERE, 0.9), (DOG, (0, 0, 300, 300), 0.7)),
        found((DOG, HERE, 0.8), (CAT, HERE, 0.6)),
        # The objects of the last image are unknown.
        found((CAT, HERE, 1.0), (DOG, HERE, 1.0)),
    ]
    result = diagnose_detections(detections, images, CLASSES)

    cat, dog, owl = (result["classes"][name] for name in CLASSES)
    assert cat["outcomes"] == dict.fromkeys(OUTCOMES, 0) | {"correct": 2, "part": 1, "background": 1}
    rates = [cat[f"{outcome}_rate"] for outcome in ("correct", "part", "background", "group")]
    assert rates == [1 / 2, 1 / 4, 1 / 4, 0]
    assert (cat["objects"], cat["detections"], cat["found"], cat["recall"]) == (4, 4, 2, 1 / 2)
    assert (cat["recall_small"], cat["recall_first"], cat["recall_further"]) == (0, 1 / 2, 1 / 2)
    assert dog["outcomes"] == dict.fromkeys(OUTCOMES, 0) | {"too_large": 1, "background": 1}
    assert (dog["recall"], dog["recall_small"], dog["recall_first"], dog["recall_further"]) == (0, None, 0, None)
    assert (owl["objects"], owl["detections"], owl["found"]) == (0, 0, 0)
    assert all(value is None for key, value in owl.items() if key.startswith("recall") and key != "recall_by")
    assert all(owl[f"{outcome}_rate"] is None for outcome in OUTCOMES)
    assert result["outcomes"] == dict.fromkeys(OUTCOMES, 0) | {"correct": 2, "part": 1, "too_large": 1, "background": 2}
    assert (result["part_rate"], result["too_large_rate"], result["background_rate"]) == (1 / 6, 1 / 6, 2 / 6)
    assert (result["recall"], result["recall_small"], result["recall_first"]) == (2 / 6, 0, 1 / 4)
    assert result["recall_further"] == 1 / 2
    assert result["recall_by"]["count"] == {
        "1": {"objects": 3, "found": 0, "recall": 0},
        "2": {"objects": 0, "found": 0, "recall": None},
        "3-4": {"objects": 3, "found": 2, "recall": 2 / 3},
        "5+": {"objects": 0, "found": 0, "recall": None},
    }
    assert result["images"] == 4


@pytest.mark.parametrize(
    ("side", "size", "fraction"),
    [
        # Of 100 x 100 pixels; small ends below 32 x 32, medium below 96 x 96.
        (9, "small", "<1%"),
        (10, "small", "1-4%"),
        (20, "small", "4-16%"),
        (31, "small", "4-16%"),
        (32, "medium", "4-16%"),
        (40, "medium", "16-64%"),
        (80, "medium", "64%+"),
        (95, "medium", "64%+"),
        (96, "large", "64%+"),
    ],
)
def test_sizes_of_objects(side: int, size: str, fraction: str):
    box = (0, 0, side, side)
    result = diagnose_detections([found((CAT, box, 0.5), size=(100, 100))], samples(ground_truth((CAT, box))), CLASSES)
    for kind, name in (("size", size), ("fraction", fraction), ("count", "1"), ("order", "first")):
        filled = {bin: row for bin, row in result["recall_by"][kind].items() if row["objects"]}
        assert filled == {name: {"objects": 1, "found": 1, "recall": 1}}, kind
    assert result["recall_small"] == (1 if size == "small" else None)


@pytest.mark.parametrize(("number", "bin"), [(1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (5, "5+"), (9, "5+")])
def test_objects_of_a_class_in_an_image(number: int, bin: str):
    cats = [(CAT, (50 * i, 0, 50 * i + 40, 40)) for i in range(number)]
    hits = found(*((CAT, box, 0.5) for _, box in cats[1:]), (DOG, HERE, 0.5))
    # Neither the dogs nor the difficult cat count.
    crowd = ground_truth(*cats, (CAT, THERE, True), (DOG, HERE), (DOG, THERE))
    row = diagnose_detections([hits], samples(crowd), CLASSES)["classes"]["cat"]
    assert row["recall_by"]["count"][bin] == {"objects": number, "found": number - 1, "recall": (number - 1) / number}
    assert row["recall_first"] == (number > 1)
    assert row["recall_further"] == (None if number == 1 else max(number - 2, 0) / (number - 1))


def test_counts_are_consistent_on_random_images():
    random = np.random.default_rng(0)

    def boxes(count: int) -> list[Box]:
        corners = np.sort(random.integers(0, 4, (count, 2, 2)), axis=1) * 30
        return [(left, top, right + 30, bottom + 30) for (left, top), (right, bottom) in corners.tolist()]

    outcomes = set()
    for _ in range(30):
        images = samples(
            *(
                ground_truth(*((int(random.integers(3)), box, *[True] * (random.random() < 0.2)) for box in boxes(6)))
                for _ in range(8)
            )
        )
        detections = [
            found(*((int(random.integers(3)), box, random.integers(5) / 5) for box in boxes(8)), size=(120, 120))
            for _ in images
        ]
        result = diagnose_detections(detections, images, CLASSES)
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        for row in (result, *result["classes"].values()):
            outcomes |= {outcome for outcome, number in row["outcomes"].items() if number}
            assert row["found"] == row["outcomes"]["correct"]
            assert row["detections"] == sum(row["outcomes"].values()) <= row["objects"]
            for kind in (*BINS, "order"):
                bins = row["recall_by"][kind].values()
                assert [sum(bin[key] for bin in bins) for key in ("objects", "found")] == [row["objects"], row["found"]]
        for key in ("objects", "detections", "found"):
            assert result[key] == sum(row[key] for row in result["classes"].values())
    assert outcomes == set(OUTCOMES)


def test_every_key_has_its_convention():
    result = diagnose_detections([found()], samples(ground_truth((CAT, HERE))), CLASSES)
    assert set(result["conventions"]) == {"top_scored", "rates", "recall", "order", *OUTCOMES, *BINS}
    assert all(sentence.endswith(".") for sentence in result["conventions"].values())
    for row in (result, result["classes"]["cat"]):
        assert row["recall_small"] is None and row["recall"] == 0 and row["part_rate"] is None


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(BoxlessError, match="no image has boxes"):
        diagnose_detections([found()], samples(None), CLASSES)
    with pytest.raises(BoxlessError, match="1 detection for 2 images"):
        diagnose_detections([found()], samples(ground_truth(), ground_truth()), CLASSES)
    with pytest.raises(BoxlessError, match="detected with classes cat, dog"):
        diagnose_detections(
            [replace(found(), classes=("cat", "dog"), image_scores=np.zeros(2))], samples(ground_truth()), CLASSES
        )
