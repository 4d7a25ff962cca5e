import io

import cv2
import numpy as np
import pytest
from PIL import Image

from boxless.doctor.similarity import (
    BITS,
    MAX_DUPLICATE_DIFFERENCE,
    MAX_SCENE_BITS,
    MAX_SCENE_FILES,
    TURNS,
    differ_in_detail,
    group_duplicates,
    group_scenes,
    thumbnail,
    turned,
    turned_hashes,
)
from boxless.images import read_image


def clouds(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (24, 32, 3)).astype(np.float32)
    return cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


COPIES = {
    "encoded": lambda image: encoded(image, 30),
    "half": lambda image: cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA),
    "stretched": lambda image: cv2.resize(image, (400, 400)),
    "grey": lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2),
    "darker": lambda image: (image * 0.6 + 20).astype(np.uint8),
}
TURNED = {
    "mirrored": lambda image: image[:, ::-1].copy(),
    "upside down": lambda image: image[::-1].copy(),
    "half turn": lambda image: image[::-1, ::-1].copy(),
    "left": lambda image: np.rot90(image).copy(),
    "right": lambda image: np.rot90(image, -1).copy(),
    "transposed": lambda image: image.swapaxes(0, 1).copy(),
    "transverse": lambda image: image[::-1, ::-1].swapaxes(0, 1).copy(),
}


def groups(*images: np.ndarray) -> tuple[list[int], list[int]]:
    thumbs = [thumbnail(image) for image in images]
    scenes = group_scenes(turned_hashes(thumbs))
    return scenes.tolist(), group_duplicates(scenes, thumbs).tolist()


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_duplicates(copy: str, demo):
    photos = [read_image(path) for path in sorted((demo / "JPEGImages").iterdir())[:4]]
    for image in [clouds(0), clouds(1), *photos]:
        assert groups(clouds(9), image, COPIES[copy](image)) == ([0, 1, 1], [0, 1, 1])


@pytest.mark.parametrize("turn", TURNED)
def test_turned_and_mirrored_copies_are_duplicates_but_not_the_same_way_up(turn: str, demo):
    photo = read_image(sorted((demo / "JPEGImages").iterdir())[0])
    for image in (clouds(0), photo):
        copy = encoded(COPIES["half"](TURNED[turn](image)), 60)
        assert groups(clouds(9), image, copy) == ([0, 1, 1], [0, 1, 1])
        thumbs = [thumbnail(clouds(9)), thumbnail(image), thumbnail(copy)]
        scenes = group_scenes(turned_hashes(thumbs))
        assert group_duplicates(scenes, thumbs, orientations=1).tolist() == [0, 1, 2]


def test_the_eight_orientations_are_all_different_and_the_first_is_the_image():
    image = np.arange(9, dtype=np.float32).reshape(3, 3)
    found = list(turned(image))
    np.testing.assert_array_equal(found[0], image)
    corners = {(one[0, 0], one[0, 2], one[2, 0], one[2, 2]) for one in found}
    # All ways in which a square can lie: clockwise from each corner, and the other way round.
    assert len(found) == TURNS == len(corners)
    assert corners == {
        *((0, 2, 6, 8), (6, 0, 8, 2), (8, 6, 2, 0), (2, 8, 0, 6)),
        *((2, 0, 8, 6), (0, 6, 2, 8), (6, 8, 0, 2), (8, 2, 6, 0)),
    }


def test_the_negative_is_no_duplicate():
    assert groups(clouds(0), 255 - clouds(0)) == ([0, 1], [0, 1])


@pytest.mark.parametrize("copy", COPIES)
def test_copies_do_not_differ_in_a_detail(copy: str, demo):
    for image in [clouds(0), *(read_image(path) for path in sorted((demo / "JPEGImages").iterdir())[:4])]:
        assert not differ_in_detail(image, COPIES[copy](image))
        assert not differ_in_detail(COPIES[copy](image), image)
        shift = image[1:, 1:]
        assert not differ_in_detail(image, cv2.GaussianBlur(image, (0, 0), 1)) and not differ_in_detail(shift, shift)


def test_a_spot_of_three_percent_is_a_detail_also_beneath_noise():
    for seed in range(5):
        image, spotted = clouds(seed), clouds(seed).astype(int)
        spotted[100:110, 200:210] += 60 if spotted[100:110, 200:210].mean() < 128 else -60
        noisy = spotted * 0.9 + 10 + np.random.default_rng(seed).normal(0, 6, image.shape)
        for other in (spotted, noisy):
            assert differ_in_detail(image, encoded(other.clip(0, 255).astype(np.uint8), 80))


def test_drawn_images_are_all_different(demo):
    images = [read_image(path) for path in sorted((demo / "JPEGImages").iterdir())]
    assert groups(*images)[0] == list(range(22))


def test_an_object_in_another_place_makes_a_near_duplicate():
    one, other = clouds(0), clouds(0)
    one[40:52, 50:62] = other[140:152, 200:212] = 255
    assert groups(one, other) == ([0, 0], [0, 1])


def with_spot(image: np.ndarray, number: int) -> np.ndarray:
    """The image with a spot of 2 % of its width, at a place of its own."""
    spotted = image.astype(int)
    part = spotted[30 + 12 * number : 36 + 12 * number, 150:156]
    part += 60 if part.mean() < 128 else -60
    return spotted.clip(0, 255).astype(np.uint8)


def test_of_a_large_scene_copies_are_told_from_images_that_differ_in_a_detail():
    takes = [clouds(0), *(with_spot(clouds(0), number) for number in range(MAX_SCENE_FILES))]
    copies = [encoded(TURNED[turn](takes[4]), 60 + 5 * number) for number, turn in enumerate(TURNED)]
    scenes, duplicates = groups(*takes, *copies, COPIES["darker"](takes[0]))
    assert scenes == [0] * 19
    assert duplicates == [*range(11), *[4] * 7, 0]
    # Among a few images of a scene, such a spot may be an artefact.
    assert groups(*takes[:3]) == ([0, 0, 0], [0, 0, 0])


def test_copies_do_not_drift_in_a_large_scene():
    # A shadow that passes: each image is like the one before it, and the last is not like the first.
    shade = np.linspace(0, 1, 320)[None, :, None]
    takes = [(clouds(0) * (1 - 0.02 * number * shade)).astype(np.uint8) for number in range(MAX_SCENE_FILES + 10)]
    scenes, duplicates = groups(*takes)
    assert scenes == [0] * 20 and len(set(duplicates)) > 3
    assert duplicates == sorted(duplicates)


def test_uniform_images_are_duplicates():
    assert groups(*(np.full((50, 60, 3), value, np.uint8) for value in (0, 128, 255))) == ([0, 0, 0], [0, 0, 0])


def test_the_threshold_is_counted_in_bits_and_levels():
    hashes = np.zeros((4, BITS), np.bool_)
    hashes[1, :MAX_SCENE_BITS] = hashes[2, : MAX_SCENE_BITS + 1] = True
    hashes[3] = True
    # The third is too far from the first, and one bit from the second: it joins their group.
    assert group_scenes(hashes[None]).tolist() == [0, 0, 0, 3]
    assert group_scenes(hashes[None, [0, 2, 3]]).tolist() == [0, 1, 2]
    # In another orientation the second is near to the first.
    turned_too = np.stack([hashes[[0, 2, 3]], hashes[[0, 0, 3]]])
    assert group_scenes(turned_too).tolist() == [0, 0, 2]
    flat = np.tile(np.linspace(0, 255, 32, dtype=np.float32), (32, 1))
    spotted = [flat.copy() for _ in range(2)]
    spotted[0][3, 3] += MAX_DUPLICATE_DIFFERENCE - 1
    spotted[1][3, 3] += MAX_DUPLICATE_DIFFERENCE + 1
    one_scene = np.zeros(2, np.int64)
    assert group_duplicates(one_scene, [flat, spotted[0]]).tolist() == [0, 0]
    assert group_duplicates(one_scene, [flat, spotted[1]]).tolist() == [0, 1]


def test_thousands_are_compared_across_blocks():
    hashes = np.random.default_rng(0).random((2500, BITS)) < 0.5
    hashes[[1500, 2400]] = hashes[7]
    hashes[2400, :MAX_SCENE_BITS] ^= True
    expected = np.arange(2500)
    expected[[1500, 2400]] = 7
    assert group_scenes(hashes[None]).tolist() == expected.tolist()
