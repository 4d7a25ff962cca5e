"""VOC's average precision against the devkit's procedure, written out loop by loop on VOC's own integers."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from boxless.metrics import average_precision, precision_recall, ranked_ap, ranking, voc_ap
from boxless.structures import Annotations, Detections

CLASSES = ("cat", "dog", "owl")


@dataclass
class VocImage:
    """VOC's own convention: corners 1-based and inclusive."""

    ground_truth: list[tuple[int, tuple[int, int, int, int], bool]] = field(default_factory=list)
    found: list[tuple[int, tuple[int, int, int, int], float]] = field(default_factory=list)

    def annotations(self) -> Annotations:
        return Annotations(
            exclusive([box for _, box, _ in self.ground_truth]),
            np.array([label for label, _, _ in self.ground_truth], np.int64),
            np.array([difficult for _, _, difficult in self.ground_truth], np.bool_),
        )

    def detections(self) -> Detections:
        return Detections(
            exclusive([box for _, box, _ in self.found]),
            np.array([score for _, _, score in self.found], np.float32),
            np.array([label for label, _, _ in self.found], np.int64),
            CLASSES,
            (40, 40),
            np.zeros(len(CLASSES), np.float32),
        )


def exclusive(boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)


def inclusive_iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / (both - width * height)


def devkit(images: list[VocImage], label: int, threshold: float, cases: Counter[str]) -> tuple[float, float]:
    """(11-point, area) AP, one step at a time; counts the kinds of cases in `cases`."""
    positives = sum(cls == label and not difficult for p in images for cls, _, difficult in p.ground_truth)
    if positives == 0:
        cases["nothing to find"] += 1
        return math.nan, math.nan
    entries = [(score, i, box) for i, p in enumerate(images) for cls, box, score in p.found if cls == label]
    cases["nothing found"] += not entries
    cases["ties"] += len({score for score, _, _ in entries}) < len(entries)
    entries.sort(key=lambda entry: entry[0], reverse=True)
    used: set[tuple[int, int]] = set()
    hits, misses = 0, 0
    curve: list[tuple[float, float]] = []
    for _, i, box in entries:
        best, best_at, best_difficult = -math.inf, -1, False
        for j, (cls, object_box, difficult) in enumerate(images[i].ground_truth):
            if cls == label and inclusive_iou(box, object_box) > best:
                best, best_at, best_difficult = inclusive_iou(box, object_box), j, difficult
        if best >= threshold and best_difficult:
            cases["ignored"] += 1
        elif best >= threshold and (i, best_at) not in used:
            used.add((i, best_at))
            hits += 1
            cases["just enough"] += best == threshold
            cases["three tenths"] += hits / positives == 0.3
        else:
            misses += 1
            cases["duplicate"] += best >= threshold
        if hits + misses:
            curve.append((hits / positives, hits / (hits + misses)))
    # MATLAB's 0:0.1:1; its fourth level is the double after 0.3.
    levels = [0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    eleven = sum(max((p for r, p in curve if r >= level), default=0.0) for level in levels) / 11
    area, last = 0.0, 0.0
    for at, (recall, _) in enumerate(curve):
        if recall != last:
            area += (recall - last) * max(p for _, p in curve[at:])
            last = recall
    return eleven, area


def random_box(random: np.random.Generator) -> tuple[int, int, int, int]:
    x, y = random.integers(1, 12, 2)
    w, h = random.integers(0, 8, 2)
    return int(x), int(y), int(x + w), int(y + h)


def random_images(random: np.random.Generator) -> list[VocImage]:
    images = []
    most_objects, most_found = random.choice([1, 4, 9]), random.choice([0, 4, 12, 12])
    for _ in range(random.integers(1, 7)):
        image = VocImage()
        for _ in range(random.integers(0, most_objects + 1)):
            image.ground_truth.append((int(random.integers(2)), random_box(random), bool(random.random() < 0.25)))
        for _ in range(random.integers(0, most_found + 1)):
            label, box = int(random.integers(2)), random_box(random)
            if image.ground_truth and random.random() < 0.7:
                label, near, _ = image.ground_truth[random.integers(len(image.ground_truth))]
                nudge = random.integers(-1, 2, 2) * int(random.integers(2))
                box = (near[0], near[1], max(near[0], near[2] + int(nudge[0])), max(near[1], near[3] + int(nudge[1])))
            # Few and exactly representable scores, so that ties abound and float32 is not in question.
            image.found.append((label, box, int(random.integers(1, 9)) / 8))
        images.append(image)
    return images


def test_agrees_with_the_devkit_on_random_cases():
    random = np.random.default_rng(2007)
    cases: Counter[str] = Counter()
    for case in range(1500):
        images = random_images(random)
        threshold = float(random.choice([0.25, 0.5, 0.5, 0.75]))
        for label in (0, 1):
            expected = devkit(images, label, threshold, cases)
            ours = voc_ap([p.detections() for p in images], [p.annotations() for p in images], label, threshold)
            np.testing.assert_allclose(
                [ours["11point"], ours["area"]], expected, atol=1e-6, rtol=0, err_msg=f"case {case}, class {label}"
            )
    kinds = "ties", "duplicate", "ignored", "just enough", "three tenths", "nothing found", "nothing to find"
    assert min(cases[kind] for kind in kinds) > 25, cases


def test_a_perfect_detector_has_one():
    images = [VocImage([(0, (1, 1, 9, 9), False), (0, (20, 20, 30, 30), False)]), VocImage()]
    images[0].found = [(0, box, 0.5) for _, box, _ in images[0].ground_truth]
    ap = voc_ap([p.detections() for p in images], [p.annotations() for p in images], 0)
    assert ap == {"11point": pytest.approx(1), "area": pytest.approx(1)}


def test_a_box_matches_its_best_overlap_even_if_another_object_is_free():
    # The second box overlaps the free object by 0.5 and more, but the taken one by more still.
    image = VocImage([(0, (1, 1, 10, 10), False), (0, (1, 1, 10, 14), False)])
    image.found = [(0, (1, 1, 10, 10), 0.9), (0, (1, 1, 10, 11), 0.8)]
    ap = voc_ap([image.detections()], [image.annotations()], 0)
    assert ap["area"] == pytest.approx(0.5)


def test_equal_scores_keep_the_order_given():
    miss_first = VocImage([(0, (1, 1, 10, 10), False)], [(0, (20, 20, 30, 30), 0.5), (0, (1, 1, 10, 10), 0.5)])
    hit_first = VocImage(miss_first.ground_truth, miss_first.found[::-1])
    assert voc_ap([miss_first.detections()], [miss_first.annotations()], 0)["area"] == pytest.approx(0.5)
    assert voc_ap([hit_first.detections()], [hit_first.annotations()], 0)["area"] == pytest.approx(1)


def test_only_difficult_objects_leave_the_class_undefined():
    image = VocImage([(0, (1, 1, 9, 9), True)], [(0, (1, 1, 9, 9), 0.9)])
    ap = voc_ap([image.detections()], [image.annotations()], 0)
    assert math.isnan(ap["11point"])
    assert math.isnan(ap["area"])


def test_no_images_leave_the_class_undefined():
    assert math.isnan(voc_ap([], [], 0)["area"])


def test_detections_and_annotations_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        voc_ap([VocImage().detections()], [], 0)


def test_hand_computed_curve():
    # Hit, miss, hit, miss, miss, hit of 4: precision 1, 1/2, 2/3, 2/4, 2/5, 3/6 at recall 1/4, 1/4, 2/4, 2/4, 2/4, 3/4.
    ap = ranked_ap(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), np.array([1, 0, 1, 0, 0, 1], np.bool_), 4)
    # Levels 0 to 0.2 see 1, levels 0.3 to 0.5 see 2/3, levels 0.6 and 0.7 see 1/2, the last three 0.
    assert ap["11point"] == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 1 / 2) / 11)
    assert ap["area"] == pytest.approx(1 / 4 * (1 + 2 / 3 + 1 / 2))


def test_the_curve_is_raised_to_the_best_beyond():
    recall, precision = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 2 / 3])
    assert average_precision(recall, precision, "area") == pytest.approx(2 / 3)
    assert average_precision(recall, precision, "11point") == pytest.approx(2 / 3)


def test_an_empty_curve_has_zero():
    nothing = np.zeros(0)
    assert average_precision(nothing, nothing, "area") == 0
    assert average_precision(nothing, nothing, "11point") == 0


@pytest.mark.parametrize(("hits", "levels"), [(1, 2), (2, 3), (3, 3), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11)])
def test_recall_in_tenths_reaches_the_levels_that_the_devkit_counts(hits: int, levels: int):
    # 3/10 alone misses its level, because MATLAB's is 3 * 0.1.
    ap = ranked_ap(np.ones(hits), np.ones(hits, np.bool_), 10)
    assert ap["11point"] == pytest.approx(levels / 11)


def test_one_hit_of_three_has_a_third_of_the_area():
    ap = ranked_ap(np.ones(1), np.ones(1, np.bool_), 3)
    assert ap == {"11point": pytest.approx(4 / 11), "area": pytest.approx(1 / 3)}


def test_a_ranking_and_its_curve_by_hand():
    difficult = VocImage(ground_truth=[(0, (1, 1, 10, 10), True)], found=[(0, (1, 1, 10, 10), 0.9)])
    twice = VocImage(
        ground_truth=[(0, (1, 1, 10, 10), False), (0, (21, 21, 30, 30), False), (1, (31, 31, 40, 40), False)],
        found=[(0, (1, 1, 10, 10), 0.4), (0, (1, 1, 10, 9), 0.3), (0, (31, 31, 40, 40), 0.8), (1, (1, 1, 9, 9), 1.0)],
    )
    found, ground_truth = [p.detections() for p in (difficult, twice)], [p.annotations() for p in (difficult, twice)]
    scores, hits, positives = ranking(found, ground_truth, 0)
    # The box on the difficult object is neither; the last of the others is of an object already found.
    assert scores.tolist() == np.array([0.8, 0.4, 0.3], np.float32).tolist()
    assert (hits.tolist(), positives) == ([False, True, False], 2)
    recall, precision = precision_recall(hits, positives)
    assert recall.tolist() == [0, 1 / 2, 1 / 2]
    assert precision.tolist() == [0, 1 / 2, 1 / 3]
