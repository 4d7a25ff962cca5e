import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from boxless.config import ProposalConfig
from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.images import read_image
from boxless.proposals import GENERATORS, propose
from boxless.proposals.generate import generate, select
from boxless.structures import FloatArray

CONFIGS = [
    ProposalConfig(size=160),
    ProposalConfig(generator="selective_search", size=160),
    ProposalConfig(generator="grid"),
]

FRESH = """
import hashlib, sys
from pathlib import Path
from boxless.config import ProposalConfig
from boxless.images import read_image
from boxless.proposals import GENERATORS, propose
boxes = propose(read_image(Path(sys.argv[1])), ProposalConfig.model_validate_json(sys.argv[2]))
print(hashlib.sha256(boxes.tobytes()).hexdigest(), "torch" in sys.modules)
"""


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_sound(boxes: FloatArray, width: int, height: int) -> None:
    """Check what `propose` guarantees for any image."""
    assert boxes.dtype == np.float32
    assert boxes.ndim == 2
    assert boxes.shape[1] == 4
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    rows = [tuple(row) for row in boxes.tolist()]
    assert rows == sorted(set(rows))
    assert (0, 0, width, height) in rows


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.generator)
def test_proposals_are_bit_identical_in_every_process(demo: Path, config: ProposalConfig):
    path = load_dataset(demo, "train").samples[0].path
    image = read_image(path)
    first = propose(image, config)
    assert len(first) > 20
    assert propose(image, config).tobytes() == first.tobytes()
    run = subprocess.run(
        [sys.executable, "-c", FRESH, str(path), config.model_dump_json()], capture_output=True, text=True, check=True
    )
    # Proposals do not import torch, which takes seconds.
    assert run.stdout.split() == [hashlib.sha256(first.tobytes()).hexdigest(), "False"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.generator)
@pytest.mark.parametrize(("width", "height"), [(8, 8), (3000, 20), (20, 3000), (8, 2000), (96, 64), (401, 401)])
def test_any_shape_has_sound_proposals(config: ProposalConfig, width: int, height: int):
    for image in (np.full((height, width, 3), 77, np.uint8), noise(width, height)):
        assert_sound(generate(image, config), width, height)
        assert_sound(propose(image, config), width, height)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.generator)
def test_photos_have_sound_proposals(demo: Path, config: ProposalConfig):
    for sample in load_dataset(demo, "val").samples[:3]:
        image = read_image(sample.path)
        assert_sound(propose(image, config), image.shape[1], image.shape[0])


def test_a_generator_registered_from_outside_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(GENERATORS, "halves", lambda image, size: np.array([[0, 0, size, 20]] * 2, np.float32))
    config = ProposalConfig.model_construct(generator="halves", size=40, min_side=1, min_area=0)
    assert generate(noise(96, 64), config).tolist() == [[0, 0, 40, 20], [0, 0, 96, 64]]


def test_an_unknown_generator_is_an_error_that_lists_the_known_ones():
    config = ProposalConfig.model_construct(generator="magic", size=40, min_side=1, min_area=0)
    with pytest.raises(BoxlessError, match="'magic' is unknown; there are grouping, selective_search, grid"):
        generate(noise(96, 64), config)


@pytest.mark.parametrize("generator", ["grouping", "selective_search"])
def test_a_uniform_image_has_one_proposal(generator: str):
    boxes = generate(np.full((60, 80, 3), 200, np.uint8), ProposalConfig(generator=generator))
    assert boxes.tolist() == [[0, 0, 80, 60]]


def test_select_drops_short_sides_and_small_areas():
    boxes = np.array(
        [
            [0, 0, 200, 100],  # the whole image
            [0, 0, 19, 100],  # a side of 19
            [0, 0, 20, 100],  # a side of 20, a tenth of the area
            [0, 0, 40, 49],  # an area of 1960
            [10, 10, 50, 60],  # an area of 2000
        ],
        np.float32,
    )
    config = ProposalConfig(min_side=20, min_area=0.1)
    assert select(boxes, config).tolist() == boxes[[0, 2, 4]].tolist()
    assert select(boxes, ProposalConfig(min_side=1, min_area=0)).tolist() == boxes.tolist()
    assert select(boxes, ProposalConfig(min_side=41, min_area=0)).tolist() == boxes[[0]].tolist()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.generator)
def test_the_whole_image_is_kept_however_small_it_is(config: ProposalConfig):
    strict = config.model_copy(update={"min_side": 500, "min_area": 0.99})
    assert propose(noise(96, 64), strict).tolist() == [[0, 0, 96, 64]]


@given(
    st.lists(st.tuples(*[st.integers(0, 99)] * 2, *[st.integers(1, 100)] * 2), max_size=30),
    st.integers(1, 120),
    st.floats(0, 0.99),
)
def test_select_keeps_exactly_the_large_boxes(corners: list[tuple[int, ...]], min_side: int, min_area: float):
    drawn = {(x, y, min(x + w, 100), min(y + h, 80)) for x, y, w, h in corners if y < 80}
    boxes = sorted(drawn | {(0, 0, 100, 80)})
    config = ProposalConfig(min_side=min_side, min_area=min_area)
    wanted = [
        (left, top, right, bottom)
        for left, top, right, bottom in boxes
        if (left, top, right, bottom) == (0, 0, 100, 80)
        or (min(right - left, bottom - top) >= min_side and (right - left) * (bottom - top) >= min_area * 8000)
    ]
    assert [tuple(row) for row in select(np.array(boxes, np.float32), config).tolist()] == wanted


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.generator)
def test_propose_is_generate_then_select(demo: Path, config: ProposalConfig):
    image = read_image(load_dataset(demo, "train").samples[1].path)
    everything = generate(image, config)
    few = propose(image, config.model_copy(update={"min_side": 60}))
    sides = everything[:, 2:] - everything[:, :2]
    area = image.shape[0] * image.shape[1]
    large = (sides.min(axis=1) >= 60) & (sides.prod(axis=1) >= 0.01 * area)
    assert 0 < large.sum() < len(everything)
    assert few.tolist() == everything[large].tolist()
