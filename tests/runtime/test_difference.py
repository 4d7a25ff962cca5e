"""By how much a file differs from its run, of outputs whose differences are known."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from boxless.errors import BoxlessError
from boxless.export.onnx import Difference, _compare, difference
from boxless.postprocess import ViewArrays
from boxless.predictor import Predictor
from boxless.structures import FloatArray
from boxless.views import View

PIXELS = np.zeros((100, 200, 3), np.uint8)
# Where each is found in a `Difference`.
PLACES = {"image_scores": 1, "proposal_scores": 1, "boxes": 0}


class Given(Predictor):
    """A predictor that gives these outputs, in a view of half the size, one list an image."""

    def __init__(self, *images: ViewArrays) -> None:
        self.images, self.views, self.proposals = list(images), (View(100),), None

    def outputs(self, pixels: NDArray[np.uint8], boxes: FloatArray | None) -> list[ViewArrays]:
        return [self.images.pop(0)]

    def in_parallel(self) -> AbstractContextManager[int]:
        return nullcontext(1)


def outputs(cells: int = 6) -> ViewArrays:
    """Of two classes."""
    scores, boxes = np.full((cells, 2), 0.25, np.float32), np.tile(np.array([[5, 6, 40, 45]], np.float32), (cells, 1))
    return ViewArrays(np.array([0.5, 0.75], np.float32), scores, boxes=boxes)


def changed(field: str, place: tuple[int, ...], by: float) -> ViewArrays:
    found = outputs()
    getattr(found, field)[place] += by
    return found


def compared(two: ViewArrays) -> Difference:
    return difference(Given(outputs()), Given(two), PIXELS, "a.onnx")


def test_equal_outputs_do_not_differ():
    assert compared(outputs()) == (0, 0)


@pytest.mark.parametrize(
    ("field", "place", "by", "expected"),
    [
        ("boxes", (5, 2), 0.25, (0.5, 0)),  # Pixels of the image, which is twice the view.
        ("image_scores", (1,), -0.125, (0, 0.125)),
        ("proposal_scores", (3, 1), 0.125, (0, 0.125)),
    ],
)
def test_the_largest_difference_of_each_output(
    field: str, place: tuple[int, ...], by: float, expected: tuple[float, ...]
):
    assert compared(changed(field, place, by)) == expected


@pytest.mark.parametrize("field", PLACES)
def test_what_is_not_a_number_differs(field: str):
    first = tuple(0 for _ in getattr(outputs(), field).shape)
    found = compared(changed(field, first, float("nan")))
    assert [place for place, value in enumerate(found) if np.isnan(value)] == [PLACES[field]]


@pytest.mark.parametrize(
    ("field", "two"),
    [
        ("proposal_scores", outputs(cells=8)),
        ("proposal_scores", outputs(cells=1)),
        ("boxes", outputs()._replace(boxes=outputs(cells=8).boxes)),
    ],
)
def test_other_shapes_are_refused_in_one_line(field: str, two: ViewArrays):
    shape, expected = getattr(two, field).shape, getattr(outputs(), field).shape
    with pytest.raises(BoxlessError) as error:
        compared(two)
    message = f"a.onnx: not written, as it differs from the run: {field} of shape {shape} instead of {expected};"
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.png" for number in range(3)]
    for file in found:
        Image.fromarray(PIXELS).save(file)
    return found


def compare(two: Sequence[ViewArrays], files: Sequence[Path]) -> dict[str, Any]:
    """`_compare` of a run and a file with these outputs, one an image."""
    return _compare(Given(*(outputs() for _ in files)), Given(*two), files, "a.onnx")


def test_the_largest_of_all_images_is_written(files: list[Path]):
    two = [changed("image_scores", (0,), 2**-11), changed("boxes", (0, 0), 0.125), changed("boxes", (0, 0), 0.0625)]
    expected = {"images": 3, "boxes_px": 0.25, "scores": 0.000488281}
    assert compare(two, files) == expected


@pytest.mark.parametrize("by", [float("nan"), 2.0])
@pytest.mark.parametrize("field", PLACES)
@pytest.mark.parametrize("image", [0, 1, 2])
def test_one_image_on_which_any_output_differs_is_enough(image: int, field: str, by: float, files: list[Path]):
    two = [outputs() for _ in files]
    first = tuple(0 for _ in getattr(two[0], field).shape)
    two[image] = changed(field, first, by)
    with pytest.raises(BoxlessError, match=r"not written, as it differs from the run: .* on 3 images") as error:
        compare(two, files)
    assert ("nan" in str(error.value)) == np.isnan(by) and "\n" not in str(error.value)
