import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from boxless.metrics import iou
from boxless.proposals import grouping as module
from boxless.proposals.compiled import UNIT, boundaries, describe, group, segment, suppress
from boxless.proposals.grouping import MAX_BOXES, grouping


def blocks(rows: int, columns: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    colours = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3))
    return np.kron(colours, np.ones((side, side, 1))).astype(np.uint8)


def noise(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    values = np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)
    return np.broadcast_to(values, (height, width, 3)).copy()


def segmented(plane: NDArray[np.float32], k: float, smallest: int) -> list[int]:
    """Felzenszwalb and Huttenlocher's algorithm as in their paper, with sets of pixels and sorted edges."""
    height, width, _ = plane.shape
    edges = []
    for y, x, down in itertools.product(range(height), range(width), (0, 1)):
        if y + down < height and x + 1 - down < width:
            difference = plane[y, x].astype(np.float64) - plane[y + down, x + 1 - down]
            weight = int(16 * np.sqrt((difference**2).sum()))
            edges.append((weight, 2 * (y * width + x) + down, y * width + x, y * width + x + (width if down else 1)))
    edges.sort()
    regions = {pixel: {pixel} for pixel in range(height * width)}
    internal = dict.fromkeys(range(height * width), 0)
    names = list(range(height * width))

    def join(a: int, b: int) -> None:
        regions[a] |= regions.pop(b)
        for pixel in regions[a]:
            names[pixel] = a

    for weight, _, p, q in edges:
        a, b = names[p], names[q]
        if a != b and weight <= min(internal[r] + 16 * k / len(regions[r]) for r in (a, b)):
            join(a, b)
            internal[a] = weight
    for _, _, p, q in edges:
        a, b = names[p], names[q]
        if a != b and min(len(regions[a]), len(regions[b])) < smallest:
            join(a, b)
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [order[name] for name in names]


@pytest.mark.parametrize("seed", range(12))
def test_segmentation_equals_the_algorithm_of_the_paper(seed: int):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 15, 2)
    # Multiples of 1/16 of few colours: many equal weights, and no weight whose root rounds either way.
    plane = (rng.integers(0, (3, 40, 255)[seed % 3], (height, width, 3)) * [1, 0, 0]).astype(np.float32)
    for k, smallest in ((0, 0), (5, 0), (60, 0), (60, 4), (800, 9)):
        labels, count = segment(plane, float(k), smallest)
        wanted = segmented(plane, k, smallest)
        assert labels.ravel().tolist() == wanted
        assert count == max(wanted) + 1


def test_weight_is_the_distance_of_all_three_channels():
    plane = np.zeros((1, 3, 3), np.float32)
    plane[0, 1], plane[0, 2] = (2, 3, 6), (2, 3, 6.5)  # 7 apart, then 0.5
    assert segment(plane, 0.49, 0)[0].tolist() == [[0, 1, 2]]
    assert segment(plane, 0.5, 0)[0].tolist() == [[0, 1, 1]]
    # The joined pair allows its own 0.5 and k / 2, the single pixel k.
    assert segment(plane, 12.9, 0)[0].tolist() == [[0, 1, 1]]
    assert segment(plane, 13.0, 0)[0].tolist() == [[0, 0, 0]]


def test_description_of_a_segmentation_by_hand():
    plane = np.zeros((2, 4, 3), np.float32)
    plane[:, 2:] = (30, 100, 255)
    labels = np.array([[0, 0, 1, 1], [2, 0, 1, 1]], np.int32)
    sizes, boxes, colours, textures = describe(plane, labels, 3)
    assert sizes.tolist() == [3, 4, 1]
    assert boxes.tolist() == [[0, 0, 2, 2], [2, 0, 4, 2], [0, 1, 1, 2]]
    # 25 bins of 10.24 a channel.
    assert {(r, i): int(colours[r, i]) for r, i in np.argwhere(colours).tolist()} == (
        {(0, 0): 3, (0, 25): 3, (0, 50): 3} | {(1, 2): 4, (1, 34): 4, (1, 74): 4} | {(2, 0): 1, (2, 25): 1, (2, 50): 1}
    )
    # Both columns at the edge have a gradient to the right of 30, 100 and 255: octant 0, strengths 2, 3 and 3.
    wanted = {(0, 0): 1, (0, 2): 2, (0, 32): 1, (0, 35): 2, (0, 64): 1, (0, 67): 2}
    wanted |= {(1, 0): 2, (1, 2): 2, (1, 32): 2, (1, 35): 2, (1, 64): 2, (1, 67): 2}
    wanted |= {(2, 0): 1, (2, 32): 1, (2, 64): 1}
    assert {(r, i): int(textures[r, i]) for r, i in np.argwhere(textures).tolist()} == wanted
    lengths, steps = boundaries(plane, labels, 3)
    assert lengths.tolist() == [[0, 2, 2], [2, 0, 0], [2, 0, 0]]
    step = np.sqrt(np.float32(30**2 + 100**2 + 255**2))
    # Below (0, 0) lies region 2; right of it, the step reaches two pixels on, into region 1.
    np.testing.assert_allclose(steps, [[0, 2 * step, step], [2 * step, 0, 0], [step, 0, 0]])


@pytest.mark.parametrize("octant", range(8))
def test_texture_distinguishes_octants(octant: int):
    angle = np.deg2rad(45 * octant + 20)
    y, x = np.mgrid[:9, :9]
    ramp = np.repeat((10 * (x * np.cos(angle) + y * np.sin(angle)) + 128)[..., None], 3, 2).astype(np.float32)
    textures = describe(ramp, np.zeros((9, 9), np.int32), 1)[3]
    right = (np.sin(angle) < 0, np.cos(angle) < 0, abs(np.sin(angle)) > abs(np.cos(angle)))
    first = textures[0, :32].reshape(2, 2, 2, 4).sum(axis=3)
    assert np.unravel_index(first.argmax(), (2, 2, 2)) == (right[1], right[0], right[2])


def grouped(
    sizes: NDArray[np.int32],
    boxes: NDArray[np.int32],
    histograms: NDArray[np.int32],
    lengths: NDArray[np.float32],
    steps: NDArray[np.float32],
    by_contrast: bool,
) -> list[list[int]]:
    """Naive grouping that compares all pairs before every merge: boxes in the order of appearance."""
    area = sizes.sum()
    regions = {r: (int(sizes[r]), boxes[r], histograms[r], {r}) for r in range(len(sizes))}
    found = boxes.tolist()

    def similarity(a: int, b: int) -> float:
        (n, box, histogram, members), (m, other, second, others) = regions[a], regions[b]
        pairs = np.ix_(sorted(members), sorted(others))
        length = lengths[pairs].sum()
        if length == 0:
            return -1
        left, top = np.minimum(box, other)[:2]
        right, bottom = np.maximum(box, other)[2:]
        value = 1 - (n + m) / area + 1 - ((right - left) * (bottom - top) - n - m) / area
        value += np.minimum(histogram, second).sum() / UNIT
        return float(value + (1 / (1 + steps[pairs].sum() / length / 40) if by_contrast else 0))

    while len(regions) > 1:
        a, b = max(itertools.combinations(sorted(regions), 2), key=lambda pair: similarity(*pair))
        (n, box, histogram, members), (m, other, second, others) = regions[a], regions.pop(b)
        box = np.concatenate([np.minimum(box, other)[:2], np.maximum(box, other)[2:]])
        # Whole numbers, as the compiled code keeps them.
        share = np.float32(n / (n + m))
        mean = (histogram * np.float64(share) + second * np.float64(1 - share)).astype(np.int32)
        regions[a] = n + m, box, mean, members | others
        found.append(box.tolist())
    return found


@pytest.mark.parametrize("cue", ["histogram", "contrast", "neither", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_the_hierarchy_equals_that_of_naive_grouping(seed: int, cue: str):
    rng = np.random.default_rng(seed)
    plane = np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((3, 4, 1))).astype(np.float32)
    plane += rng.random(plane.shape, np.float32)
    labels, count = segment(plane, 20.0, 2)
    assert 20 < count < 60
    sizes, boxes, _, _ = describe(plane, labels, count)
    lengths, steps = boundaries(plane, labels, count)
    histograms = rng.dirichlet(np.ones(7), count) * UNIT if cue in ("histogram", "both") else np.empty((count, 0))
    given = (sizes, boxes, histograms.astype(np.int32), lengths, steps, cue in ("contrast", "both"))
    copies = [np.copy(array) for array in given]
    found, levels = group(*given)
    assert found.tolist() == grouped(*given)
    assert levels.tolist() == [count] * count + list(range(count - 1, 0, -1))
    # The arguments are shared by several hierarchies, so they must not change.
    assert all((array == copy).all() for array, copy in zip(given, copies, strict=True))


def test_of_equally_similar_pairs_the_lowest_numbers_are_merged_first():
    # 64 pixels: sums of 64ths are exact in any order of addition.
    labels = np.kron(np.arange(16, dtype=np.int32).reshape(4, 4), np.ones((2, 2), np.int32))
    plane = np.zeros((8, 8, 3), np.float32)
    sizes, boxes, _, _ = describe(plane, labels, 16)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        order = rng.permutation(16).astype(np.int32)
        histograms = np.eye(3, dtype=np.int32)[rng.integers(0, 3, 16)] * UNIT
        lengths, steps = boundaries(plane, np.argsort(order).astype(np.int32)[labels], 16)
        given = (sizes, boxes[order], histograms, lengths, steps, False)
        assert group(*given)[0].tolist() == grouped(*given)


def test_every_similarity_measure_gives_another_hierarchy():
    plane = np.ascontiguousarray(blocks(7, 8, 10)).astype(np.float32) + noise(80, 70) * np.float32(0.3)
    hierarchies = [boxes.tolist() for boxes, _ in module._hierarchies(plane)]
    assert len(hierarchies) == 4
    for one, other in itertools.combinations(hierarchies, 2):
        assert len(one) == len(other) > 60
        assert one != other


def test_suppression_keeps_the_first_of_near_duplicates():
    boxes = np.array(
        [[0, 0, 100, 10], [0, 0, 91, 10], [0, 0, 90, 10], [0, 0, 81, 10], [200, 0, 210, 9], [0, 0, 100, 10]], np.int32
    )
    # IoU with the first: 0.91, 0.9, 0.81; the fourth has an IoU of exactly 0.9 with the third.
    assert suppress(boxes, 0.9, 9).tolist() == [0, 2, 3, 4]
    assert suppress(boxes, 0.8, 9).tolist() == [0, 4]
    assert suppress(boxes, 0.9, 2).tolist() == [0, 2]
    # An IoU of exactly 0.5.
    assert suppress(np.array([[0, 0, 3, 1], [1, 0, 4, 1]], np.int32), 0.5, 9).tolist() == [0, 1]


def test_all_uniform_rectangles_are_found():
    boxes = [(20, 20, 90, 120), (110, 15, 300, 60), (150, 80, 260, 200), (180, 110, 230, 160), (10, 150, 120, 220)]
    colours = [(200, 40, 40), (40, 60, 200), (230, 220, 60), (20, 20, 20), (240, 240, 240)]
    image = np.full((240, 320, 3), (40, 150, 70), np.uint8)
    for (left, top, right, bottom), colour in zip(boxes, colours, strict=True):
        image[top:bottom, left:right] = colour
    assert (iou(np.array(boxes, np.float32), grouping(image, 320)).max(axis=1) > 0.9).all()
    # Segmented at half the size; boxes are in pixels of the image.
    assert (iou(np.array(boxes, np.float32), grouping(image, 160)).max(axis=1) > 0.8).all()


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 2), (2, 1), (3, 3), (1, 2000), (2000, 1), (5, 700), (4000, 3000), (401, 300)]
)
def test_boxes_of_any_shape_are_inside_and_distinct(width: int, height: int):
    for image in (noise(width, height), noise(width, height, 1), np.full((height, width, 3), 90, np.uint8)):
        boxes = grouping(image, 120)
        assert boxes.dtype == np.float32
        assert boxes.shape[1:] == (4,)
        assert 1 <= len(boxes) <= MAX_BOXES
        assert len(np.unique(boxes, axis=0)) == len(boxes)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (width, height)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes[0].tolist() == [0, 0, width, height]
    assert len(boxes) == 1


def test_no_two_boxes_are_near_duplicates():
    boxes = grouping(blocks(8, 9, 20), 400)
    overlaps = iou(boxes, boxes) - np.eye(len(boxes), dtype=np.float32)
    assert len(boxes) > 50
    assert overlaps.max() <= 0.92


def test_the_number_of_regions_is_limited(monkeypatch: pytest.MonkeyPatch):
    counts = []
    real = module._hierarchies

    def counted(plane: NDArray[np.float32]) -> object:
        found = real(plane)
        counts.append((len(found[0][0]) + 1) // 2)
        return found

    monkeypatch.setattr(module, "_hierarchies", counted)
    assert len(grouping(noise(500, 400), 500)) > 100
    assert len(counts) == 3
    assert max(counts) <= module.MAX_REGIONS


def test_results_are_bit_identical_in_any_thread():
    images = [blocks(5, 7, 12, seed) for seed in range(4)]
    first = [grouping(image, 400).tobytes() for image in images]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda image: grouping(image, 400).tobytes(), images * 4))
    assert again == first * 4


def test_numba_is_imported_by_the_first_call_only():
    code = "import sys, boxless.proposals; print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
