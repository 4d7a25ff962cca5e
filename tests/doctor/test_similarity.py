import io

import cv2
import numpy as np
import pytest
from PIL import Image

from boxless.doctor.similarity import ALIKE, BITS, SAME, SCENE, group_alike, group_same, image_hash, thumbnail
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
OTHERS = {
    "mirrored": lambda image: image[:, ::-1].copy(),
    "negative": lambda image: 255 - image,
    "upside down": lambda image: image[::-1].copy(),
}


def groups(*images: np.ndarray) -> tuple[list[int], list[int]]:
    thumbs = [thumbnail(image) for image in images]
    alike = group_alike(np.array([image_hash(thumb) for thumb in thumbs]))
    return alike.tolist(), group_same(alike, thumbs).tolist()


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_the_same_image(copy: str, demo):
    photos = [read_image(path) for path in sorted((demo / "JPEGImages").iterdir())[:4]]
    for image in [clouds(0), clouds(1), *photos]:
        assert groups(clouds(9), image, COPIES[copy](image)) == ([0, 1, 1], [0, 1, 1])


@pytest.mark.parametrize("other", OTHERS)
def test_other_images_are_not(other: str):
    assert groups(clouds(0), OTHERS[other](clouds(0))) == ([0, 1], [0, 1])


def test_drawn_images_are_all_different(demo):
    images = [read_image(path) for path in sorted((demo / "JPEGImages").iterdir())]
    assert groups(*images)[0] == list(range(22))


def test_a_thing_in_another_place_is_another_image_of_the_same_scene():
    one, other = clouds(0), clouds(0)
    one[40:52, 50:62] = other[140:152, 200:212] = 255
    assert groups(one, other) == ([0, 0], [0, 1])


def test_a_scene_of_many_takes_has_no_copies():
    takes = [np.clip(clouds(0).astype(int) + number // 6, 0, 255).astype(np.uint8) for number in range(SCENE + 1)]
    assert groups(*takes[:SCENE]) == ([0] * SCENE, [0] * SCENE)
    assert groups(*takes) == ([0] * (SCENE + 1), list(range(SCENE + 1)))


def test_images_of_one_colour_are_the_same():
    assert groups(*(np.full((50, 60, 3), value, np.uint8) for value in (0, 128, 255))) == ([0, 0, 0], [0, 0, 0])


def test_the_threshold_is_counted_in_bits_and_levels():
    hashes = np.zeros((4, BITS), np.bool_)
    hashes[1, :ALIKE] = hashes[2, : ALIKE + 1] = True
    hashes[3] = True
    # The third is too far from the first, and one bit from the second: it joins their group.
    assert group_alike(hashes).tolist() == [0, 0, 0, 3]
    assert group_alike(hashes[[0, 2, 3]]).tolist() == [0, 1, 2]
    flat = np.tile(np.linspace(0, 255, 32, dtype=np.float32), (32, 1))
    spotted = [flat.copy() for _ in range(2)]
    spotted[0][3, 3] += SAME - 1
    spotted[1][3, 3] += SAME + 1
    one_scene = np.zeros(2, np.int64)
    assert group_same(one_scene, [flat, spotted[0]]).tolist() == [0, 0]
    assert group_same(one_scene, [flat, spotted[1]]).tolist() == [0, 1]


def test_thousands_are_compared_across_blocks():
    hashes = np.random.default_rng(0).random((2500, BITS)) < 0.5
    hashes[[1500, 2400]] = hashes[7]
    hashes[2400, :ALIKE] ^= True
    expected = np.arange(2500)
    expected[[1500, 2400]] = 7
    assert group_alike(hashes).tolist() == expected.tolist()
