"""A run and its file on images of every kind: the same boxes, or the same refusal."""

from pathlib import Path

import pytest
from random_runs import Exported
from strange_images import STRANGE

from boxless.errors import ImageError
from boxless.export.onnx import MAX_BOX_ERROR, MAX_SCORE_ERROR, difference
from boxless.inputs import ImageInput, to_rgb
from boxless.predictor import Predictor

# An export takes half a minute.
pytestmark = pytest.mark.slow

FEW = list(STRANGE)[::9]


def size_or_refusal(predictor: Predictor, image: ImageInput) -> tuple[int, int] | str:
    try:
        return predictor.predict(image, 0).size
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.campaign) for name in STRANGE]
)
def test_run_and_file_give_the_same_boxes_or_the_same_refusal(name: str, exported: Exported, tmp_path: Path):
    """All boxes and scores before suppression, which keeps either of two boxes of equal scores."""
    image: ImageInput = STRANGE[name](tmp_path / name) or tmp_path / name
    expected = size_or_refusal(exported.detector, image)
    assert size_or_refusal(exported.runtime, image) == expected
    if not isinstance(expected, str):
        found = difference(exported.detector, exported.runtime, to_rgb(image), name)
        assert found.boxes_px <= MAX_BOX_ERROR
        assert max(found[1:]) <= MAX_SCORE_ERROR


def test_there_are_two_hundred():
    assert len(STRANGE) == 200
