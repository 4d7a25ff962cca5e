from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxless.cached_dataset import CachedDataset
from boxless.detector import CachedImage
from boxless.pseudo_labels import small_objects
from boxless.pseudo_labels.small_objects import consensus_with_small, rescaled_pass
from boxless.structures import Annotations, Dataset, FloatArray, IntArray, Sample
from boxless.views import View


def boxes_of(*boxes: list[float]) -> Annotations:
    """The boxes of classes 0, 1, ... of one image."""
    number = len(boxes)
    return Annotations(np.array(boxes, np.float32).reshape(-1, 4), np.arange(number), np.zeros(number, np.bool_))


def test_small_boxes_are_those_of_the_rescaled_pass_where_both_scales_agree():
    # Class 0 is small and elsewhere in the CAM, class 1 is large. Boxes shifted by one of ten have an IoU of 9/11.
    # Boxes of different images do not overlap.
    def moved(row: int, *boxes: list[float]) -> Annotations:
        return boxes_of(*(list(np.add(box, [100 * row, 0, 100 * row, 0])) for box in boxes))

    seeds = [boxes_of(), *(moved(row, [50, 50, 60, 60], [0, 0, 80, 80]) for row in range(1, 6))]
    predictions = [boxes_of(), *(moved(row, [0, 0, 10, 10], [0, 0, 80, 88]) for row in range(1, 6))]
    small = [np.zeros(0, np.bool_), *[np.array([True, False])] * 4, np.zeros(2, np.bool_)]
    shifts = {1: 1, 2: 0, 3: 0, 4: 6}
    larger_scale = [moved(row, [shift, 0, 10 + shift, 10], [0, 0, 80, 88]) for row, shift in shifts.items()]
    rescaled = [predictions[0], *larger_scale, predictions[5]]
    found = consensus_with_small(seeds, predictions, rescaled, small, [(600, 100)] * 6, 0.7)
    assert found[0].boxes.shape == (0, 4)
    for row in range(1, 6):
        assert not found[row].ignore[1]
        np.testing.assert_allclose(found[row].boxes[1], [100 * row, 0, 100 * row + 80, 84])
    # The box of the rescaled pass itself is kept, not the mean. Where it lies elsewhere, or where there was no rescaled
    # pass and the seed lies elsewhere, the box is ignored.
    np.testing.assert_array_equal(found[1].boxes[0], [101, 0, 111, 10])
    assert [bool(found[row].ignore[0]) for row in range(1, 6)] == [False, False, False, True, True]
    np.testing.assert_array_equal(found[5].boxes[0], [500, 0, 510, 10])


class Recorder:
    """A detector that records at which scale it predicts which labels of images of which size."""

    device, proposals = "cpu", None

    def __init__(self, views: tuple[View, ...], calls: list[Any]) -> None:
        self.views, self.calls, self.features = views, calls, self

    def with_views(self, views: list[View]) -> "Recorder":
        return Recorder(tuple(views), self.calls)

    def extract(self, pixels: Any, view: View) -> View:
        return view

    def boxes_for_labels(self, image: CachedImage, labels: IntArray) -> FloatArray:
        self.calls.append((image.maps, image.size, labels.tolist()))
        return np.full((len(labels), 4), len(self.calls), np.float32)


def test_images_with_a_small_box_are_predicted_at_half_as_large_again_by_the_network_of_their_fold(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(small_objects, "read_image", lambda path: path)
    monkeypatch.setattr(
        small_objects, "map_rows", lambda predict, _, rows, __, extracts_maps: [predict(row) for row in rows]
    )
    # Of 100 x 50 pixels a fifth is 1000: 32 x 31 are small, 32 x 32 are not.
    small, large = [0, 0, 32, 31], [0, 0, 32, 32]
    held_out = [boxes_of(large), boxes_of(large, small), boxes_of(small), boxes_of()]
    samples = tuple(
        Sample(name, Path(name), frozenset(range(len(own))))
        for name, own in zip("abcd", ([0], [0, 1], [0], []), strict=True)
    )
    data = CachedDataset(Dataset("some", ("x", "y"), samples), tuple("abcd"), ((100, 50),) * 4, None, None, {}, {})  # type: ignore[arg-type]
    detectors = [Recorder((View(200), View(100, True)), []), Recorder((View(50),), [])]
    rescaled, found = rescaled_pass(detectors, data, np.array([0, 0, 1, 1]), held_out, [])  # type: ignore[arg-type]
    assert [one.tolist() for one in found] == [[False], [False, True], [True], []]
    assert detectors[0].calls == [([View(300), View(150, True)], (100, 50), [0, 1])]
    assert detectors[1].calls == [([View(75)], (100, 50), [0])]
    assert [own.boxes.tolist() for own in rescaled] == [[large], [large, [1] * 4], [[1] * 4], []]
    # Of a class with enough given boxes none is predicted again.
    rescaled, found = rescaled_pass(detectors, data, np.array([0, 0, 1, 1]), held_out, [1])  # type: ignore[arg-type]
    assert [one.tolist() for one in found] == [[False], [False, False], [True], []]
    assert rescaled[1].boxes.tolist() == [large, small]
