from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from boxless.cached_dataset import CachedDataset
from boxless.errors import BoxlessError
from boxless.images import read_image
from boxless.pseudo_labels.mosaic import (
    MAX_ENLARGEMENT,
    Crop,
    _cells,
    _crop_pixels,
    _window,
    compose_mosaics,
    trainable,
)
from boxless.structures import Annotations, Dataset, Sample
from boxless.views import View

SCALE = 128
OBJECTS = ([220, 30, 30], [30, 30, 220])
"""Colours of the objects, by class."""
BACKGROUND = [90, 160, 90]


def sample(
    folder: Path,
    number: int,
    label: int,
    *,
    box: tuple[int, int, int, int] = (40, 30, 100, 75),
    size: tuple[int, int] = (160, 120),
    colour: list[int] | None = None,
    tags: frozenset[int] | None = None,
    unsure: frozenset[int] = frozenset(),
    ignore: bool = False,
    copies: int = 1,
) -> Sample:
    """An image of one rectangle on a uniform background."""
    image = np.full((size[1], size[0], 3), BACKGROUND, np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = colour or OBJECTS[label]
    path = folder / f"{number}.png"
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(path), image[:, :, ::-1])
    boxes = np.array([box] * copies, np.float32)
    found = Annotations(boxes, np.full(copies, label, np.int64), np.full(copies, ignore))
    return Sample(str(number), path, tags or frozenset([label]), unsure, found)


def near(image: NDArray[np.uint8], colour: list[int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(image.astype(int) - colour) < 60).all(axis=2))


def test_boxes_are_where_the_objects_are(tmp_path: Path):
    images = [sample(tmp_path / "from", number, number % 2) for number in range(80)]
    # The smallest crops are large enough that their blurred edges do not count.
    found = compose_mosaics(images, 20, 0, 2 * SCALE, tmp_path / "to")
    assert len(found) == 20
    sizes = set()
    for one in found:
        boxes = one.annotations
        assert boxes is not None and 2 <= len(boxes.labels) <= 16 and not boxes.ignore.any()
        assert one.tags == set(boxes.labels.tolist()) and len(one.tags) == 1
        image = read_image(one.path)
        assert max(image.shape) == 2 * SCALE
        own = near(image, OBJECTS[boxes.labels[0]])
        assert not near(image, OBJECTS[1 - boxes.labels[0]]).any()
        for left, top, right, bottom in boxes.boxes.round().astype(int).tolist():
            # All of the box is the object.
            assert own[top + 2 : bottom - 2, left + 2 : right - 2].mean() > 0.99
            sizes.add((right - left) * (bottom - top))
        covered = sum(np.prod(box[2:] - box[:2]) for box in boxes.boxes)
        assert own.sum() == pytest.approx(covered, rel=0.1)
    assert len(sizes) > 10, "objects come in many sizes"


def test_the_same_seed_gives_the_same_images(tmp_path: Path):
    images = [sample(tmp_path / "from", number, number % 2) for number in range(32)]
    first, second, other = (
        [one.path.read_bytes() for one in compose_mosaics(images, 8, seed, SCALE, tmp_path / name)]
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == second
    assert all(one not in other for one in first)


def test_crops_are_cut_from_images_of_one_kept_label_alone(tmp_path: Path):
    good = [sample(tmp_path, number, 0) for number in range(16)]
    odd = [240, 240, 30]
    bad = [
        sample(tmp_path, 90, 0, colour=odd, ignore=True),
        sample(tmp_path, 91, 0, colour=odd, copies=2),
        sample(tmp_path, 92, 0, colour=odd, tags=frozenset([0, 1])),
        Sample("94", good[0].path, frozenset([0])),
    ] * 4
    found = compose_mosaics([*good, *bad], 100, 0, SCALE, tmp_path / "to")
    assert len(found) == 4, "one for four images that crops can be cut from"
    assert not any(near(read_image(one.path), odd).any() for one in found)
    assert compose_mosaics(bad, 100, 0, SCALE, tmp_path / "none") == ()
    assert compose_mosaics(good, 0, 0, SCALE, tmp_path / "none") == ()


def test_what_is_unsure_of_an_image_is_unsure_of_its_mosaics(tmp_path: Path):
    images = [sample(tmp_path, number, 0, unsure=frozenset([1 + number % 2])) for number in range(4)]
    (mosaic,) = compose_mosaics(images, 1, 0, SCALE, tmp_path / "to")
    assert mosaic.tags == {0} and mosaic.unsure and mosaic.unsure <= {1, 2}
    plain = [replace(one, unsure=frozenset()) for one in images]
    (other,) = compose_mosaics(plain, 1, 0, SCALE, tmp_path / "other")
    assert other.unsure == frozenset() and (read_image(other.path) == read_image(mosaic.path)).all()


def test_a_rare_class_gets_as_many_mosaics_as_others(tmp_path: Path):
    images = [sample(tmp_path, number, int(number >= 44)) for number in range(48)]
    found = compose_mosaics(images, 100, 0, SCALE, tmp_path / "to")
    assert [sum(one.tags == {label} for one in found) for label in (0, 1)] == [6, 6]


def test_a_class_gets_at_most_two_mosaics_an_image(tmp_path: Path):
    images = [sample(tmp_path, number, int(number >= 47)) for number in range(48)]
    found = compose_mosaics(images, 100, 0, SCALE, tmp_path / "to")
    assert [sum(one.tags == {label} for one in found) for label in (0, 1)] == [6, 2]


@pytest.mark.parametrize("seed", range(20))
def test_cells_fill_the_canvas_without_overlap(seed: int):
    covered = np.zeros((90, 120), int)
    for left, top, right, bottom in _cells(np.random.default_rng(seed), 120, 90):
        covered[top:bottom, left:right] += 1
        # Three fifths of a quarter, to the pixel.
        assert right - left >= 17 and bottom - top >= 12
    assert (covered == 1).all()


def test_there_are_two_to_sixteen_cells_in_up_to_four_rows():
    layouts = [_cells(np.random.default_rng(seed), 120, 90) for seed in range(400)]
    assert set(range(2, 12)) <= {len(cells) for cells in layouts} <= set(range(2, 17))
    assert {len({top for _, top, _, _ in cells}) for cells in layouts} == {1, 2, 3, 4}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_holds_the_whole_object(seed: int, mirrored: bool):
    random = np.random.default_rng(seed)
    image = np.full((200, 300, 3), BACKGROUND, np.uint8)
    left, top = int(random.integers(0, 200)), int(random.integers(0, 130))
    box = np.array([left, top, left + 80, top + 60], np.float32)
    image[top : top + 60, left : left + 80] = OBJECTS[0]
    window = _window(random, (300, 200), box, (90, 70))
    assert window is not None
    pixels, moved = _crop_pixels(image, Crop(Path("unread.jpg"), box, window, mirrored), (90, 70))
    assert pixels.shape == (70, 90, 3)
    rows, columns = np.nonzero(near(pixels, OBJECTS[0]))
    visible = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]).float()
    assert box_iou(visible, torch.from_numpy(moved)[None]).item() > 0.9
    share = ((moved[2:] - moved[:2]) / [90, 70]).max()
    assert 0.4 < share <= 1


def test_objects_that_do_not_fit_give_no_crop():
    random, size = np.random.default_rng(0), (400, 100)
    # The cell is as high as the image at least, and then too narrow for an object as wide as the image.
    assert _window(random, size, np.array([0, 0, 400, 100], np.float32), (50, 100)) is None
    # A few pixels would have to be enlarged more than is allowed.
    small = np.array([200, 50, 206, 56], np.float32)
    assert _window(random, size, small, (100, 100)) is None and MAX_ENLARGEMENT < 0.5 * 100 / 6
    # Ground-truth boxes may reach beyond the image where a file does not give its size.
    assert _window(random, size, np.array([380, 20, 430, 60], np.float32), (50, 50)) is None
    assert _window(random, size, np.array([350, 20, 400, 60], np.float32), (50, 50)) is not None


def test_objects_that_fit_no_narrow_cell_give_fewer_mosaics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boxless.pseudo_labels.mosaic.IMAGES_PER_MOSAIC", 1)
    images = [sample(tmp_path / "from", number, 0, size=(150, 100), box=(0, 40, 150, 60)) for number in range(40)]
    found = compose_mosaics(images, 40, 0, SCALE, tmp_path / "to")
    assert 0 < len(found) < 40


def test_mosaics_have_the_aspect_ratio_of_the_images(tmp_path: Path):
    images = [sample(tmp_path, number, 0, size=(100, 200), box=(20, 60, 80, 120)) for number in range(8)]
    for one in compose_mosaics(images, 2, 0, SCALE, tmp_path / "to"):
        height, width = read_image(one.path).shape[:2]
        assert (width, height) == View(SCALE).size(100, 200) == (64, 128)


def test_images_too_flat_for_a_mosaic_give_none(tmp_path: Path):
    # At 128 px they are 128x5, and no image with a side under 8 px is used.
    images = [sample(tmp_path, number, 0, size=(1000, 40), box=(400, 5, 600, 35)) for number in range(8)]
    assert compose_mosaics(images, 2, 0, SCALE, tmp_path / "to") == ()


# Which images are trained on.


def boxes_of(*ignore: bool) -> Annotations:
    number = len(ignore)
    return Annotations(np.zeros((number, 4), np.float32), np.zeros(number, np.int64), np.array(ignore, np.bool_))


def cached(*samples: Sample) -> CachedDataset:
    dataset = Dataset("some", ("a", "b"), samples)
    sizes = tuple((10 + row, 20) for row in range(len(samples)))
    return CachedDataset(dataset, tuple("abcdefg")[: len(samples)], sizes, None, None, {}, {})  # type: ignore[arg-type]


def test_images_with_a_kept_label_and_negatives_are_trainable():
    def make(name: str, **known: Any) -> Sample:
        return Sample(name, Path(name), **({"tags": frozenset()} | known))

    data = cached(
        make("kept", tags=frozenset({0}), annotations=boxes_of(False)),
        make("ignored only", tags=frozenset({0}), annotations=boxes_of(True, True)),
        make("one of two", tags=frozenset({0}), annotations=boxes_of(True, False)),
        make("negative", annotations=boxes_of()),
        make("unsure", unsure=frozenset({0}), annotations=boxes_of()),
        make("nothing known", unsure=frozenset({0, 1}), annotations=boxes_of()),
        make("without boxes", annotations=None),
    )
    kept = trainable(data)
    assert [sample.id for sample in kept.dataset.samples] == ["kept", "one of two", "negative", "unsure"]
    assert kept.keys == ("a", "c", "d", "e") and kept.sizes == ((10, 20), (12, 20), (13, 20), (14, 20))
    assert replace(kept.dataset, samples=data.dataset.samples) == data.dataset


def test_a_set_without_a_trainable_image_is_an_error():
    data = cached(Sample("ignored only", Path("a"), frozenset({0}), annotations=boxes_of(True)))
    with pytest.raises(BoxlessError, match="no image that can be read has a tag or box to train on"):
        trainable(data)
